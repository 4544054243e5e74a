#include "vmrepl/nbd/nbd_reply_codec.hpp"

#include <cerrno>
#include <random>

#include <gtest/gtest.h>

#include "tests/unit/vmrepl/nbd/nbd_client_bytes.hpp"

namespace havm {
namespace {

using nbd_test::Bytes;

constexpr std::uint64_t cookie = 0x1122334455667788;

Bytes bytes_of(const NbdReply& reply) {
  Bytes bytes(reply.head.begin(),
              reply.head.begin() + static_cast<std::ptrdiff_t>(reply.head_size));
  bytes.insert(bytes.end(), reply.tail.begin(), reply.tail.end());
  return bytes;
}

NbdWriter chunk(std::uint16_t type, std::uint32_t length) {
  NbdWriter writer;
  writer.integer(std::uint32_t{0x668e33ef}).integer(std::uint16_t{1}).integer(type);
  writer.integer(cookie).integer(length);
  return writer;
}

TEST(NbdReplyCodec, SimpleReplies) {
  NbdWriter success;
  success.integer(std::uint32_t{0x67446698}).integer(std::uint32_t{0}).integer(cookie);
  EXPECT_EQ(bytes_of(nbd_simple_success(cookie)), success.bytes());
  NbdWriter failure;
  failure.integer(std::uint32_t{0x67446698}).integer(std::uint32_t{28}).integer(cookie);
  EXPECT_EQ(bytes_of(nbd_failure(cookie, false, nbd_error_nospc, "full")), failure.bytes());
}

TEST(NbdReplyCodec, ErrorChunkCarriesTheSentence) {
  NbdWriter expected = chunk(0x8001, 10);
  expected.integer(std::uint32_t{5}).integer(std::uint16_t{4}).text("dead");
  EXPECT_EQ(bytes_of(nbd_failure(cookie, true, nbd_error_io, "dead")), expected.bytes());
  NbdWriter silent = chunk(0x8001, 6);
  silent.integer(std::uint32_t{5}).integer(std::uint16_t{0});
  EXPECT_EQ(bytes_of(nbd_failure(cookie, true, nbd_error_io, "")), silent.bytes());
}

TEST(NbdReplyCodec, ReadChunks) {
  NbdWriter data = chunk(1, 8 + 4096);
  data.integer(std::uint64_t{8192});
  EXPECT_EQ(bytes_of(nbd_data_head(cookie, 8192, 4096)), data.bytes());
  NbdWriter hole = chunk(2, 12);
  hole.integer(std::uint64_t{8192}).integer(std::uint32_t{4096});
  EXPECT_EQ(bytes_of(nbd_hole(cookie, 8192, 4096)), hole.bytes());
  EXPECT_EQ(bytes_of(nbd_no_data(cookie)), chunk(0, 0).bytes());
}

TEST(NbdReplyCodec, BlockStatus) {
  NbdWriter expected = chunk(5, 4 + 16);
  expected.integer(nbd_base_allocation_id);
  expected.integer(std::uint32_t{4096}).integer(std::uint32_t{0});
  expected.integer(std::uint32_t{8192}).integer(std::uint32_t{3});
  const std::vector<NbdExtent> extents{{4096, false}, {8192, true}};
  EXPECT_EQ(bytes_of(nbd_block_status(cookie, extents)), expected.bytes());
}

using Extents = std::vector<NbdExtent>;

std::string show(const Extents& extents) {
  std::string text;
  for (const NbdExtent& e : extents)
    text += (e.hole ? "hole " : "data ") + std::to_string(e.length) + ", ";
  return text;
}

TEST(NbdReplyCodec, MergesNeighboursRoundsHolesInwardsAndCuts) {
  const auto merge = [](const Extents& in, std::size_t count) {
    return show(nbd_merge_extents(in, 4096, count));
  };
  EXPECT_EQ(merge({{4096, false}}, 9), "data 4096, ");
  EXPECT_EQ(merge({{4096, true}, {4096, true}, {4096, false}}, 9), "hole 8192, data 4096, ");
  EXPECT_EQ(merge({{4096, false}, {4096, true}, {4096, false}}, 1), "data 4096, ");
  EXPECT_EQ(merge({{1024, false}, {11264, true}}, 9), "data 4096, hole 8192, ");
  EXPECT_EQ(merge({{5000, true}, {3192, false}, {4096, true}}, 9),
            "hole 4096, data 4096, hole 4096, ");
  EXPECT_EQ(merge({{1024, false}, {2048, true}, {1024, false}}, 9), "data 4096, ");
  EXPECT_EQ(merge({{0xfffff000, true}}, 9), "hole 4294963200, ");
}

TEST(NbdReplyCodec, MergedExtentsNeverCallDataAHole) {
  std::mt19937 random(3);  // a fixed seed: a failure is repeatable
  for (int round = 0; round < 2000; ++round) {
    Extents in;
    std::vector<bool> hole;  // one entry for 512 bytes
    while (hole.size() < 64) {
      const std::size_t units = 1 + random() % 12;
      const bool is_hole = random() % 2 == 0;
      in.push_back({static_cast<std::uint32_t>(units * 512), is_hole});
      hole.insert(hole.end(), units, is_hole);
    }
    std::size_t at = 0;
    for (const NbdExtent& out : nbd_merge_extents(in, 2048, SIZE_MAX)) {
      ASSERT_GT(out.length, 0U);
      for (std::size_t i = 0; i < out.length / 512; ++i, ++at)
        ASSERT_TRUE(!out.hole || hole.at(at));
    }
    ASSERT_EQ(at, hole.size());
  }
}

TEST(NbdReplyCodec, ErrnoBecomesWhatNbdCanSay) {
  const std::vector<std::pair<int, std::uint32_t>> table{
      {EPERM, 1},      {EACCES, 1},  {EROFS, 1},     {EIO, 5},         {ENOMEM, 12},
      {EINVAL, 22},    {ENOSPC, 28}, {EDQUOT, 28},   {EFBIG, 28},      {EOVERFLOW, 5},
      {EOPNOTSUPP, 5}, {ENODEV, 5},  {EREMOTEIO, 5}, {ESHUTDOWN, 108}, {ETIMEDOUT, 5}};
  for (const auto& [errno_value, wire] : table)
    EXPECT_EQ(nbd_error_of_errno(errno_value), wire) << errno_value;
}

}  // namespace
}  // namespace havm
