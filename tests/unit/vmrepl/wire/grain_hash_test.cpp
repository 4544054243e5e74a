// grain_hash: which bytes a checksum is of, and that it goes round.
#include "vmrepl/wire/grain_hash.hpp"

#include <gtest/gtest.h>

namespace havm {
namespace {

constexpr std::size_t grain = DirtyBitmap::grain_bytes;

TEST(GrainHash, IsThatOfThePublishedAlgorithm) {
  // Of the one byte "a", as xxhsum -H2 prints it.
  const std::vector<std::byte> a(1, std::byte{'a'});
  ASSERT_EQ(hash_grains(a).size(), 1U);
  EXPECT_EQ(hash_grains(a)[0], (GrainHash{0xa96faf705af16834, 0xe6c632b61e964e1f}));
}

TEST(GrainHash, EveryFlippedByteChangesThatOfItsGrainOnly) {
  std::vector<std::byte> data(2 * grain + 512, std::byte{7});
  const auto before = hash_grains(data);
  ASSERT_EQ(before.size(), 3U);
  for (const std::size_t at :
       {std::size_t{0}, grain - 1, grain, 2 * grain - 1, 2 * grain, 2 * grain + 511}) {
    data[at] ^= std::byte{1};
    const auto after = hash_grains(data);
    for (std::size_t i = 0; i < 3; ++i)
      EXPECT_EQ(after[i] == before[i], i != at / grain) << at << " " << i;
    data[at] ^= std::byte{1};
  }
  EXPECT_EQ(hash_grains(data), before);
}

TEST(GrainHash, AShortLastGrainIsNotThatOfALongerOne) {
  const std::vector<std::byte> data(grain);
  EXPECT_NE(hash_grains(data), hash_grains(std::span(data).first(grain - 512)));
}

TEST(GrainHash, GoesRound) {
  const std::vector<GrainHash> hashes{{1, 2}, {UINT64_MAX, 0x0123456789abcdef}};
  const auto bytes = encode_hashes(hashes);
  EXPECT_EQ(bytes.size(), 32U);
  EXPECT_EQ(bytes[7], std::byte{1});
  EXPECT_EQ(bytes[16 + 8], std::byte{0x01});
  EXPECT_EQ(decode_hashes(bytes), hashes);
  EXPECT_TRUE(decode_hashes({}).empty());
}

}  // namespace
}  // namespace havm
