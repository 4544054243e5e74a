// NBD requests, what is made of them, and the replies (vmrepl/nbd: request core, reply codec).
//
// Input: what was agreed, size and alignment of the export, one request, then extents.
#include <algorithm>

#include "tests/fuzz/support/fuzz_target.hpp"
#include "vmrepl/nbd/nbd_bytes.hpp"
#include "vmrepl/nbd/nbd_reply_codec.hpp"
#include "vmrepl/nbd/nbd_request_core.hpp"

namespace havm::fuzz {
namespace {

std::vector<std::byte> encode(const NbdRequest& request) {
  NbdWriter writer;
  writer.integer(request.magic).integer(request.flags).integer(request.command);
  writer.integer(request.cookie).integer(request.offset).integer(request.length);
  return writer.bytes();
}

bool has_range(NbdAction action) {
  return action == NbdAction::read || action == NbdAction::write || action == NbdAction::trim ||
         action == NbdAction::write_zeroes || action == NbdAction::block_status;
}

void check_verdict(const NbdVerdict& verdict, const NbdRequest& request, const NbdExport& served,
                   const NbdAgreement& agreement) {
  FUZZ_CHECK(verdict.payload_bytes <= nbd_payload_bytes_max, "a payload has a bound");
  FUZZ_CHECK(verdict.payload_bytes == 0 || request.command == nbd_cmd_write,
             "only a write carries data");
  if (verdict.action == NbdAction::write)
    FUZZ_CHECK(verdict.payload_bytes == request.length, "a write's data has its length");
  if (verdict.action == NbdAction::refuse)
    FUZZ_CHECK(verdict.error != 0 && !verdict.reason.empty(), "a refusal says why");
  if (verdict.action == NbdAction::drop) FUZZ_CHECK(!verdict.reason.empty(), "a drop says why");
  if (verdict.action == NbdAction::read)
    FUZZ_CHECK(request.length <= nbd_payload_bytes_max, "a read has a bound");
  if (verdict.action == NbdAction::block_status)
    FUZZ_CHECK(agreement.block_status, "block status was agreed");
  if (!has_range(verdict.action)) return;
  FUZZ_CHECK(request.length > 0 && request.offset < served.size_bytes &&
                 request.length <= served.size_bytes - request.offset,
             "what reaches the disk is inside of it");
  FUZZ_CHECK(
      request.offset % served.alignment_bytes == 0 && request.length % served.alignment_bytes == 0,
      "what reaches the disk is aligned");
}

// Reads a reply as a client would. `data_bytes` follow it.
void check_reply(const NbdReply& reply, std::uint64_t cookie, std::size_t data_bytes) {
  std::vector<std::byte> bytes(reply.head.begin(),
                               reply.head.begin() + static_cast<std::ptrdiff_t>(reply.head_size));
  bytes.insert(bytes.end(), reply.tail.begin(), reply.tail.end());
  NbdReader reader(bytes);
  if (reader.integer<std::uint32_t>() == nbd_simple_reply_magic) {
    reader.integer<std::uint32_t>();
    FUZZ_CHECK(reader.integer<std::uint64_t>() == cookie && reader.finished(),
               "a simple reply is 16 bytes with the cookie");
    return;
  }
  FUZZ_CHECK(reader.integer<std::uint16_t>() == nbd_reply_flag_done, "one chunk is the last");
  reader.integer<std::uint16_t>();
  FUZZ_CHECK(reader.integer<std::uint64_t>() == cookie, "a chunk carries the cookie");
  const auto length = reader.integer<std::uint32_t>();
  reader.text(length - data_bytes);
  FUZZ_CHECK(reader.finished(), "a chunk has the length it tells");
}

void check_replies(const NbdVerdict& verdict, const NbdRequest& request, bool structured) {
  if (verdict.action == NbdAction::refuse) {
    check_reply(nbd_failure(request.cookie, structured, verdict.error, verdict.reason),
                request.cookie, 0);
  } else if (verdict.action == NbdAction::read && structured) {
    check_reply(nbd_data_head(request.cookie, request.offset, request.length), request.cookie,
                request.length);
    check_reply(nbd_hole(request.cookie, request.offset, request.length), request.cookie, 0);
  } else if (verdict.action == NbdAction::succeed) {
    check_reply(structured ? nbd_no_data(request.cookie) : nbd_simple_success(request.cookie),
                request.cookie, 0);
  }
}

// Told as a hole, and a hole indeed, byte by byte of the ranges' ends.
void check_merged(const std::vector<NbdExtent>& extents, const std::vector<NbdExtent>& merged,
                  std::uint32_t alignment, std::size_t count_max) {
  FUZZ_CHECK(merged.size() <= count_max, "the number of descriptors is bounded");
  std::uint64_t all = 0;
  for (const NbdExtent& e : extents)
    all += e.length;
  std::uint64_t at = 0;
  for (std::size_t i = 0; i < merged.size(); ++i) {
    FUZZ_CHECK(merged[i].length > 0, "a descriptor is not empty");
    FUZZ_CHECK(i == 0 || merged[i].hole != merged[i - 1].hole, "equal neighbours are one");
    const std::uint64_t end = at + merged[i].length;
    std::uint64_t start = 0;
    for (const NbdExtent& e : extents) {
      const bool touches = start < end && start + e.length > at && e.length > 0;
      FUZZ_CHECK(!touches || !merged[i].hole || e.hole, "data is never told as a hole");
      start += e.length;
    }
    if (merged[i].hole)
      FUZZ_CHECK(at % alignment == 0 && end % alignment == 0, "a hole is aligned");
    at = end;
  }
  FUZZ_CHECK(at == all || merged.size() == count_max, "the whole range is described");
}

void check_extents(Input& in, std::uint32_t alignment) {
  std::vector<NbdExtent> extents;
  std::uint64_t left = UINT32_MAX;
  while (!in.empty() && extents.size() < 64) {
    NbdExtent extent;
    extent.hole = in.flag();
    const std::uint64_t length = in.number(3) << (in.byte() % 12);
    extent.length = static_cast<std::uint32_t>(std::min(length, left));
    left -= extent.length;
    extents.push_back(extent);
  }
  const std::size_t count_max = 1 + extents.size() / 2;
  const auto merged = nbd_merge_extents(extents, alignment, count_max);
  check_merged(extents, merged, alignment, count_max);
  if (!merged.empty()) check_reply(nbd_block_status(7, merged), 7, 0);
}

}  // namespace

void one_input(Bytes input) {
  Input in(input);
  const std::uint8_t bits = in.byte();
  NbdAgreement agreement;
  agreement.structured_replies = (bits & 1U) != 0;
  agreement.block_status = agreement.structured_replies && (bits & 2U) != 0;
  NbdExport served;
  served.name = "vda";
  served.alignment_bytes = (bits & 4U) != 0 ? 512 : 4096;
  served.size_bytes = in.number(8) / 4096 * 4096;
  std::vector<std::byte> bytes(nbd_request_bytes);
  std::ranges::copy(in.bytes(nbd_request_bytes), bytes.begin());
  if ((bits & 8U) != 0) store_big_endian(bytes.data(), nbd_request_magic);

  const NbdRequest request =
      decode_nbd_request(std::span<const std::byte, nbd_request_bytes>(bytes));
  FUZZ_CHECK(encode(request) == bytes, "encode(decode(bytes)) == bytes");
  const NbdVerdict verdict = judge_nbd_request(request, served, agreement);
  check_verdict(verdict, request, served, agreement);
  check_replies(verdict, request, agreement.structured_replies);
  check_extents(in, served.alignment_bytes);
}

std::vector<std::string> seeds() {
  const std::string extents =
      packed(1, 1) + packed(5000, 3) + packed(0, 1) + packed(0, 1) + packed(4096, 3) + packed(3, 1);
  std::vector<std::string> all;
  for (const std::uint16_t command : {nbd_cmd_read, nbd_cmd_write, nbd_cmd_disc, nbd_cmd_flush,
                                      nbd_cmd_trim, nbd_cmd_write_zeroes, nbd_cmd_block_status}) {
    NbdRequest request;
    request.magic = nbd_request_magic;
    request.command = command;
    request.cookie = 0x0102030405060708;
    request.flags = command == nbd_cmd_write ? nbd_cmd_flag_fua : 0;
    if (command != nbd_cmd_flush && command != nbd_cmd_disc) {
      request.offset = 8192;
      request.length = 4096;
    }
    all.push_back(packed(command % 2 == 0 ? 7 : 0, 1) + packed(1U << 20, 8) +
                  string_of(encode(request)) + extents);
  }
  return all;
}

}  // namespace havm::fuzz
