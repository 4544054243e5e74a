// Buffer: alignment, moving, reuse across many sizes.
#include "vmrepl/base/buffer.hpp"

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace havm {
namespace {

TEST(Buffer, IsAlignedAndAllOfItIsOurs) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{512}, std::size_t{4096},
                                 std::size_t{4097}, std::size_t{1} << 20, std::size_t{40} << 20}) {
    Buffer buffer(size);
    EXPECT_EQ(buffer.size(), size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % Buffer::alignment_bytes, 0U);
    std::memset(buffer.data(), 0x5a, size);  // the address sanitizer watches
  }
}

TEST(Buffer, DefaultAndMovedFromAreEmpty) {
  Buffer first;
  EXPECT_TRUE(first.empty());
  Buffer second(100);
  const std::byte* memory = second.data();
  first = std::move(second);
  EXPECT_EQ(first.data(), memory);
  EXPECT_TRUE(second.empty());  // NOLINT(bugprone-use-after-move): that is the question
  const Buffer third(std::move(first));
  EXPECT_EQ(third.size(), 100U);
}

TEST(Buffer, LiveBuffersNeverShareMemory) {
  std::mt19937 random(7);
  struct Live {
    Buffer buffer;
    unsigned char mark;
  };
  std::vector<Live> live;
  for (int step = 0; step < 3000; ++step) {
    if (live.size() < 40 && random() % 2 == 0) {
      const auto mark = static_cast<unsigned char>(random());
      live.push_back({Buffer(1 + random() % 20000), mark});
      std::memset(live.back().buffer.data(), mark, live.back().buffer.size());
    } else if (!live.empty()) {
      const std::size_t i = random() % live.size();
      for (const std::byte b : live[i].buffer.span())
        ASSERT_EQ(std::to_integer<unsigned char>(b), live[i].mark);
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
}

}  // namespace
}  // namespace havm
