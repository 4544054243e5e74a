#include "vmrepl/nbd/nbd_request_core.hpp"

#include <random>

#include <gtest/gtest.h>

#include "tests/unit/vmrepl/nbd/nbd_client_bytes.hpp"

namespace havm {
namespace {

using nbd_test::Bytes;

constexpr std::uint64_t size = std::uint64_t{8} << 30;
const NbdExport served{"vda", size, 512};
constexpr NbdAgreement everything{true, true};

NbdVerdict judge(std::uint16_t command, std::uint64_t offset, std::uint32_t length,
                 unsigned flags = 0, const NbdAgreement& agreement = everything) {
  const Bytes bytes =
      nbd_test::request(command, 9, offset, length, static_cast<std::uint16_t>(flags));
  const std::span<const std::byte, nbd_request_bytes> fixed(bytes.data(), nbd_request_bytes);
  return judge_nbd_request(decode_nbd_request(fixed), served, agreement);
}

TEST(NbdRequestCore, DecodesEveryField) {
  const Bytes bytes =
      nbd_test::request(0x0102, 0x030405060708090a, 0x0b0c0d0e0f101112, 0x13141516, 0x1718);
  ASSERT_EQ(bytes.size(), nbd_request_bytes);
  const auto request =
      decode_nbd_request(std::span<const std::byte, nbd_request_bytes>(bytes.data(), bytes.size()));
  EXPECT_EQ(request.magic, nbd_request_magic);
  EXPECT_EQ(request.command, 0x0102);
  EXPECT_EQ(request.cookie, 0x030405060708090aU);
  EXPECT_EQ(request.offset, 0x0b0c0d0e0f101112U);
  EXPECT_EQ(request.length, 0x13141516U);
  EXPECT_EQ(request.flags, 0x1718);
}

struct Case {
  const char* name;
  std::uint16_t command;
  std::uint64_t offset;
  std::uint32_t length;
  unsigned flags;
  NbdAction action;
  std::uint32_t error;
};

class NbdRequestTable : public ::testing::TestWithParam<Case> {};

TEST_P(NbdRequestTable, IsJudged) {
  const Case& c = GetParam();
  const NbdVerdict verdict = judge(c.command, c.offset, c.length, c.flags);
  EXPECT_EQ(verdict.action, c.action) << verdict.reason;
  EXPECT_EQ(verdict.error, c.error);
  EXPECT_EQ(verdict.reason.empty(), c.action != NbdAction::refuse && c.action != NbdAction::drop);
  if (c.action == NbdAction::drop) return;
  EXPECT_EQ(verdict.payload_bytes, c.command == nbd_cmd_write ? c.length : 0);
}

constexpr std::uint32_t mib32 = 32U << 20;
constexpr std::uint32_t beyond = nbd_error_nospc;
constexpr std::uint32_t invalid = nbd_error_inval;
using A = NbdAction;

INSTANTIATE_TEST_SUITE_P(
    Requests, NbdRequestTable,
    ::testing::Values(
        Case{"read", nbd_cmd_read, 0, 512, 0, A::read, 0},
        Case{"read_last", nbd_cmd_read, size - 512, 512, 0, A::read, 0},
        Case{"read_largest", nbd_cmd_read, 0, mib32, 0, A::read, 0},
        Case{"read_too_large", nbd_cmd_read, 0, mib32 + 512, 0, A::refuse, invalid},
        Case{"read_past_end", nbd_cmd_read, size - 512, 1024, 0, A::refuse, invalid},
        Case{"read_wrapping", nbd_cmd_read, UINT64_MAX - 511, 1024, 0, A::refuse, invalid},
        Case{"read_unaligned_offset", nbd_cmd_read, 1, 512, 0, A::refuse, invalid},
        Case{"read_unaligned_length", nbd_cmd_read, 0, 511, 0, A::refuse, invalid},
        Case{"read_empty", nbd_cmd_read, 512, 0, 0, A::succeed, 0},
        Case{"read_df", nbd_cmd_read, 0, 512, nbd_cmd_flag_df, A::read, 0},
        Case{"read_fua", nbd_cmd_read, 0, 512, nbd_cmd_flag_fua, A::read, 0},
        Case{"read_no_hole", nbd_cmd_read, 0, 512, nbd_cmd_flag_no_hole, A::refuse, invalid},
        Case{"read_payload_length_flag", nbd_cmd_read, 0, 512, 1U << 5, A::refuse, invalid},
        Case{"write", nbd_cmd_write, 4096, 4096, 0, A::write, 0},
        Case{"write_fua", nbd_cmd_write, 4096, 4096, nbd_cmd_flag_fua, A::write, 0},
        Case{"write_df", nbd_cmd_write, 0, 512, nbd_cmd_flag_df, A::refuse, invalid},
        Case{"write_largest", nbd_cmd_write, 0, mib32, 0, A::write, 0},
        Case{"write_too_large", nbd_cmd_write, 0, mib32 + 1, 0, A::drop, 0},
        Case{"write_at_end", nbd_cmd_write, size, 512, 0, A::refuse, beyond},
        Case{"write_past_end", nbd_cmd_write, size - 512, 1024, 0, A::refuse, beyond},
        Case{"write_wrapping", nbd_cmd_write, UINT64_MAX - 511, 512, 0, A::refuse, beyond},
        Case{"write_unaligned", nbd_cmd_write, 100, 100, 0, A::refuse, invalid},
        Case{"write_empty", nbd_cmd_write, size, 0, 0, A::succeed, 0},
        Case{"flush", nbd_cmd_flush, 0, 0, 0, A::flush, 0},
        Case{"flush_fua", nbd_cmd_flush, 0, 0, nbd_cmd_flag_fua, A::flush, 0},
        Case{"flush_offset", nbd_cmd_flush, 512, 0, 0, A::refuse, invalid},
        Case{"flush_length", nbd_cmd_flush, 0, 512, 0, A::refuse, invalid},
        Case{"trim", nbd_cmd_trim, 0, 512, 0, A::trim, 0},
        Case{"trim_large", nbd_cmd_trim, 0, 0xfffffe00, nbd_cmd_flag_fua, A::trim, 0},
        Case{"trim_no_hole", nbd_cmd_trim, 0, 512, nbd_cmd_flag_no_hole, A::refuse, invalid},
        Case{"trim_past_end", nbd_cmd_trim, size, 512, 0, A::refuse, invalid},
        Case{"zero", nbd_cmd_write_zeroes, 0, 1U << 30, 0, A::write_zeroes, 0},
        Case{"zero_no_hole", nbd_cmd_write_zeroes, 0, 512, 3, A::write_zeroes, 0},
        Case{"zero_fast", nbd_cmd_write_zeroes, 0, 512, 1U << 4, A::refuse, invalid},
        Case{"zero_past_end", nbd_cmd_write_zeroes, size - 512, 1024, 0, A::refuse, beyond},
        Case{"status", nbd_cmd_block_status, 0, 0xfffffe00, 0, A::block_status, 0},
        Case{"status_one", nbd_cmd_block_status, 0, 512, nbd_cmd_flag_req_one, A::block_status, 0},
        Case{"status_past_end", nbd_cmd_block_status, size, 512, 0, A::refuse, invalid},
        Case{"status_empty", nbd_cmd_block_status, 0, 0, 0, A::refuse, invalid},
        Case{"disconnect", nbd_cmd_disc, 0, 0, 0, A::disconnect, 0},
        Case{"cache", 5, 0, 512, 0, A::refuse, invalid},
        Case{"resize", 8, 0, 512, 0, A::refuse, invalid},
        Case{"unknown", 0xffff, 0, 0, 0xffff, A::refuse, invalid}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(NbdRequestCore, FlagsReachTheService) {
  EXPECT_TRUE(judge(nbd_cmd_write, 0, 512, nbd_cmd_flag_fua).fua);
  EXPECT_FALSE(judge(nbd_cmd_write, 0, 512).fua);
  EXPECT_TRUE(judge(nbd_cmd_write_zeroes, 0, 512).may_unmap);
  EXPECT_FALSE(judge(nbd_cmd_write_zeroes, 0, 512, nbd_cmd_flag_no_hole).may_unmap);
  EXPECT_TRUE(judge(nbd_cmd_block_status, 0, 512, nbd_cmd_flag_req_one).one_extent);
  EXPECT_FALSE(judge(nbd_cmd_block_status, 0, 512).one_extent);
}

TEST(NbdRequestCore, WhatWasNotAgreedIsRefused) {
  EXPECT_EQ(judge(nbd_cmd_read, 0, 512, nbd_cmd_flag_df, {false, false}).action, A::refuse);
  EXPECT_EQ(judge(nbd_cmd_block_status, 0, 512, 0, {true, false}).action, A::refuse);
  EXPECT_EQ(judge(nbd_cmd_block_status, 0, 512, 0, {false, false}).error, nbd_error_inval);
}

TEST(NbdRequestCore, WrongMagicDrops) {
  NbdRequest request;
  request.magic = nbd_request_magic ^ 1U;
  EXPECT_EQ(judge_nbd_request(request, served, everything).action, A::drop);
}

TEST(NbdRequestCore, WhateverIsPassedOnIsValid) {
  std::mt19937_64 random(11);  // a fixed seed: a failure is repeatable
  for (int round = 0; round < 200'000; ++round) {
    NbdRequest request;
    request.magic = nbd_request_magic;
    request.command = static_cast<std::uint16_t>(random() % 10);
    request.flags = static_cast<std::uint16_t>(random() % 64);
    request.offset = random() % 2 == 0 ? random() : (random() % (size + 4096)) & ~511ULL;
    request.length = static_cast<std::uint32_t>(random() % 2 == 0 ? random() : random() & 0xfffe00);
    const NbdVerdict v = judge_nbd_request(request, served, everything);
    const bool has_range = v.action == A::read || v.action == A::write || v.action == A::trim ||
                           v.action == A::write_zeroes || v.action == A::block_status;
    if (!has_range) continue;
    ASSERT_GT(request.length, 0U);
    ASSERT_EQ((request.offset | request.length) % 512, 0U);
    ASSERT_LE(request.offset, size);
    ASSERT_LE(request.length, size - request.offset);
  }
}

}  // namespace
}  // namespace havm
