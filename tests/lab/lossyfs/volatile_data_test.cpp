// VolatileData against an array of bytes that are volatile or not.
#include "tests/lab/lossyfs/volatile_data.hpp"

#include <limits>
#include <random>

#include <gtest/gtest.h>

namespace havm::lab {
namespace {

constexpr std::uint64_t space = 200;

std::vector<std::byte> filled(std::size_t size, unsigned value) {
  return std::vector<std::byte>(size, static_cast<std::byte>(value));
}

class Model {
 public:
  void write(std::uint64_t offset, const std::vector<std::byte>& bytes) {
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes_[offset + i] = bytes[i];
  }
  void forget(std::uint64_t offset, std::uint64_t length) {
    for (std::uint64_t i = offset; i < std::min(space, offset + length); ++i)
      bytes_[i].reset();
  }
  void expect_equal(const VolatileData& data) const {
    auto read = filled(space, 0xee);
    data.overlay(0, read);
    for (std::uint64_t i = 0; i < space; ++i) {
      ASSERT_EQ(read[i], bytes_[i].value_or(std::byte{0xee})) << "at " << i;
      const auto piece = data.at_or_after(i);
      ASSERT_EQ(piece && piece->offset <= i, bytes_[i].has_value()) << "at " << i;
      if (piece) {
        ASSERT_GT(piece->end(), i);
      }
    }
    auto part = filled(space / 3, 0xee);
    data.overlay(space / 3, part);
    for (std::size_t i = 0; i < part.size(); ++i)
      ASSERT_EQ(part[i], read[space / 3 + i]) << "at " << i << " of a part";
  }

 private:
  std::vector<std::optional<std::byte>> bytes_{space};
};

TEST(VolatileDataTest, IsWhatAnArrayWouldBe) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    VolatileData data;
    Model model;
    for (unsigned step = 1; step < 120; ++step) {
      const std::uint64_t offset = random() % space;
      const std::uint64_t length = random() % (space - offset + 1);
      switch (random() % 4) {
        case 0: {
          const auto zeroes = filled(length, 0);
          data.zero(offset, length);
          model.write(offset, zeroes);
          break;
        }
        case 1:
          data.forget(offset, length);
          model.forget(offset, length);
          break;
        default: {
          const auto bytes = filled(length, step);
          data.write(offset, bytes);
          model.write(offset, bytes);
        }
      }
      model.expect_equal(data);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(VolatileDataTest, HoldsMemoryForBytesOnly) {
  VolatileData data;
  data.zero(0, std::uint64_t{1} << 40);
  EXPECT_EQ(data.bytes_held(), 0U);
  data.write(1000, filled(100, 1));
  EXPECT_EQ(data.bytes_held(), 100U);
  data.write(1050, filled(100, 2));
  EXPECT_EQ(data.bytes_held(), 150U);
  data.zero(1010, 10);
  EXPECT_EQ(data.bytes_held(), 140U);
  data.forget(1100, std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(data.bytes_held(), 90U);
  EXPECT_FALSE(data.at_or_after(1100));
  data.forget(0, std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(data.bytes_held(), 0U);
  EXPECT_TRUE(data.empty());
}

}  // namespace
}  // namespace havm::lab
