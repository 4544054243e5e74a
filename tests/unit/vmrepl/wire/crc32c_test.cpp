// crc32c: the published vectors, and the fast forms against the definition.
#include "vmrepl/wire/crc32c.hpp"

#include <algorithm>
#include <numeric>
#include <random>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace havm {
namespace {

std::uint32_t crc_of(std::string_view text) {
  return crc32c(std::as_bytes(std::span<const char>(text.data(), text.size())));
}

// Bit by bit, as the polynomial division is defined.
std::uint32_t by_definition(std::span<const std::byte> data) {
  std::uint32_t crc = ~0U;
  for (const std::byte b : data) {
    crc ^= std::to_integer<std::uint32_t>(b);
    for (int bit = 0; bit < 8; ++bit)
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0U);
  }
  return ~crc;
}

std::vector<std::byte> random_bytes(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(size);
  std::ranges::generate(bytes, [&] { return static_cast<std::byte>(random()); });
  return bytes;
}

TEST(Crc32c, PublishedVectors) {
  EXPECT_EQ(crc_of(""), 0U);
  EXPECT_EQ(crc_of("123456789"), 0xe3069283U);
  EXPECT_EQ(crc_of("a"), 0xc1d04330U);
  // RFC 3720, appendix B.4.
  std::vector<std::byte> bytes(32, std::byte{0});
  EXPECT_EQ(crc32c(bytes), 0x8a9136aaU);
  std::ranges::fill(bytes, std::byte{0xff});
  EXPECT_EQ(crc32c(bytes), 0x62a8ab43U);
  for (unsigned i = 0; i < 32; ++i)
    bytes[i] = static_cast<std::byte>(i);
  EXPECT_EQ(crc32c(bytes), 0x46dd794eU);
  std::ranges::reverse(bytes);
  EXPECT_EQ(crc32c(bytes), 0x113fdb5cU);
}

TEST(Crc32c, BothFormsAgreeWithTheDefinitionAtEveryLengthAndPlace) {
  const std::vector<std::byte> all = random_bytes(7000, 1);
  for (std::size_t length = 0; length < 6500; length += (length < 300 ? 1 : 97)) {
    const std::size_t begin = length % 17;
    const auto piece = std::span<const std::byte>(all).subspan(begin, length);
    const std::uint32_t expected = by_definition(piece);
    ASSERT_EQ(crc32c(piece), expected) << length;
    ASSERT_EQ(crc32c_by_table(piece), expected) << length;
  }
}

TEST(Crc32c, AroundTheLaneBoundaries) {
  const std::vector<std::byte> all = random_bytes(3 * 3 * 1024 + 64, 2);
  for (const std::size_t lanes : {std::size_t{3072}, std::size_t{6144}, std::size_t{9216}})
    for (std::size_t length = lanes - 9; length <= lanes + 9; ++length) {
      const auto piece = std::span<const std::byte>(all).first(length);
      ASSERT_EQ(crc32c(piece), by_definition(piece)) << length;
    }
}

TEST(Crc32c, GoesOnFromAnEarlierPiece) {
  const std::vector<std::byte> all = random_bytes(10000, 3);
  const std::span<const std::byte> span(all);
  for (const std::size_t cut : {0U, 1U, 7U, 64U, 3071U, 5000U, 9999U, 10000U}) {
    EXPECT_EQ(crc32c(span.subspan(cut), crc32c(span.first(cut))), crc32c(span)) << cut;
    EXPECT_EQ(crc32c_by_table(span.subspan(cut), crc32c_by_table(span.first(cut))), crc32c(span));
  }
}

#if defined(__x86_64__)
TEST(Crc32c, UsesTheInstructionWhereTheProcessorHasIt) {
  EXPECT_EQ(crc32c_is_hardware(), __builtin_cpu_supports("sse4.2") != 0);
}
#endif

}  // namespace
}  // namespace havm
