// WriteBack: ranges stay inside the write and break at sectors; the seed decides; never means
// never.
#include "tests/lab/lossyfs/write_back.hpp"

#include <gtest/gtest.h>

namespace havm::lab {
namespace {

constexpr std::uint64_t sector = WriteBack::sector_bytes;

std::vector<std::vector<ByteRange>> draws(double chance, std::uint64_t seed) {
  WriteBack write_back(chance, seed);
  std::vector<std::vector<ByteRange>> all;
  for (std::uint64_t i = 0; i < 400; ++i)
    all.push_back(write_back.of_write(i * 4096, 4096));
  return all;
}

std::string text_of(const std::vector<std::vector<ByteRange>>& all) {
  std::string text;
  for (const auto& ranges : all) {
    for (const ByteRange& range : ranges)
      text += std::to_string(range.offset) + "+" + std::to_string(range.length) + " ";
    text += "\n";
  }
  return text;
}

TEST(WriteBackTest, WithoutChanceNothingIsKept) {
  for (const auto& ranges : draws(0.0, 7))
    EXPECT_TRUE(ranges.empty());
}

TEST(WriteBackTest, OneSeedIsOneFateAndAnotherIsAnother) {
  EXPECT_EQ(text_of(draws(0.5, 7)), text_of(draws(0.5, 7)));
  EXPECT_NE(text_of(draws(0.5, 7)), text_of(draws(0.5, 8)));
}

TEST(WriteBackTest, SomeWritesAreLostSomeTornSomeWhole) {
  int lost = 0;
  int torn = 0;
  int whole = 0;
  for (const auto& ranges : draws(0.5, 3)) {
    std::uint64_t kept = 0;
    for (const ByteRange& range : ranges)
      kept += range.length;
    (kept == 0 ? lost : kept == 4096 ? whole : torn)++;
  }
  EXPECT_GT(lost, 100);
  EXPECT_GT(torn, 50);
  EXPECT_GT(whole, 50);
}

TEST(WriteBackTest, RangesAreInsideInOrderAndBreakAtSectors) {
  WriteBack write_back(1.0, 11);
  for (std::uint64_t i = 0; i < 500; ++i) {
    const std::uint64_t offset = i * 37;
    const std::uint64_t length = 1 + i * 13;
    for (const bool zeroes : {false, true}) {
      const auto ranges =
          zeroes ? write_back.of_zeroes(offset, length) : write_back.of_write(offset, length);
      std::uint64_t at = offset;
      for (const ByteRange& range : ranges) {
        ASSERT_GE(range.offset, at);
        ASSERT_GT(range.length, 0U);
        at = range.offset + range.length;
        ASSERT_LE(at, offset + length);
        ASSERT_TRUE(range.offset == offset || range.offset % sector == 0);
        ASSERT_TRUE(at == offset + length || at % sector == 0);
      }
    }
  }
}

}  // namespace
}  // namespace havm::lab
