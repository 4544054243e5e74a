#include "vmrepl/nbd/nbd_request_core.hpp"

#include <optional>

#include "vmrepl/nbd/nbd_bytes.hpp"

namespace havm {
namespace {

struct CommandRule {
  NbdAction action;
  unsigned flags;  // allowed beside FUA
  std::uint32_t error_beyond_end;
};

std::optional<CommandRule> rule_of(std::uint16_t command, const NbdAgreement& agreement) {
  switch (command) {
    case nbd_cmd_read:
      return CommandRule{NbdAction::read, agreement.structured_replies ? nbd_cmd_flag_df : 0U,
                         nbd_error_inval};
    case nbd_cmd_write:
      return CommandRule{NbdAction::write, 0, nbd_error_nospc};
    case nbd_cmd_disc:
      return CommandRule{NbdAction::disconnect, 0, nbd_error_inval};
    case nbd_cmd_flush:
      return CommandRule{NbdAction::flush, 0, nbd_error_inval};
    case nbd_cmd_trim:
      return CommandRule{NbdAction::trim, 0, nbd_error_inval};
    case nbd_cmd_write_zeroes:
      return CommandRule{NbdAction::write_zeroes, nbd_cmd_flag_no_hole, nbd_error_nospc};
    case nbd_cmd_block_status:
      return CommandRule{NbdAction::block_status, nbd_cmd_flag_req_one, nbd_error_inval};
    default:
      return std::nullopt;
  }
}

NbdVerdict refused(NbdVerdict verdict, std::uint32_t error, std::string_view reason) {
  verdict.action = NbdAction::refuse;
  verdict.error = error;
  verdict.reason = reason;
  return verdict;
}

NbdVerdict dropped(std::string_view reason) {
  NbdVerdict verdict;
  verdict.reason = reason;
  return verdict;
}

NbdVerdict judge_range(const NbdRequest& request, const NbdExport& served, const CommandRule& rule,
                       NbdVerdict verdict) {
  if (request.offset > served.size_bytes || request.length > served.size_bytes - request.offset)
    return refused(verdict, rule.error_beyond_end, "beyond the end of the disk");
  if (request.offset % served.alignment_bytes != 0 || request.length % served.alignment_bytes != 0)
    return refused(verdict, nbd_error_inval, "not a multiple of the minimum block size");
  if (request.length == 0) {
    if (rule.action == NbdAction::block_status)
      return refused(verdict, nbd_error_inval, "block status of nothing");
    verdict.action = NbdAction::succeed;
  }
  return verdict;
}

}  // namespace

NbdRequest decode_nbd_request(std::span<const std::byte, nbd_request_bytes> bytes) {
  NbdRequest request;
  request.magic = load_big_endian<std::uint32_t>(bytes.data());
  request.flags = load_big_endian<std::uint16_t>(bytes.data() + 4);
  request.command = load_big_endian<std::uint16_t>(bytes.data() + 6);
  request.cookie = load_big_endian<std::uint64_t>(bytes.data() + 8);
  request.offset = load_big_endian<std::uint64_t>(bytes.data() + 16);
  request.length = load_big_endian<std::uint32_t>(bytes.data() + 24);
  return request;
}

NbdVerdict judge_nbd_request(const NbdRequest& request, const NbdExport& served,
                             const NbdAgreement& agreement) {
  if (request.magic != nbd_request_magic) return dropped("a request without the request magic");

  NbdVerdict verdict;
  const bool carries_payload = request.command == nbd_cmd_write;
  if (carries_payload) verdict.payload_bytes = request.length;
  if (carries_payload && request.length > nbd_payload_bytes_max)
    return dropped("a write larger than the maximum block size");

  const std::optional<CommandRule> rule = rule_of(request.command, agreement);
  if (!rule) return refused(verdict, nbd_error_inval, "unknown command");
  verdict.action = rule->action;
  // A request to disconnect has no reply in which its flags could be criticised.
  if (rule->action == NbdAction::disconnect) return verdict;

  if ((request.flags & ~(nbd_cmd_flag_fua | rule->flags)) != 0)
    return refused(verdict, nbd_error_inval, "a flag that this command does not have");
  verdict.fua = (request.flags & nbd_cmd_flag_fua) != 0;
  verdict.may_unmap =
      rule->action == NbdAction::write_zeroes && (request.flags & nbd_cmd_flag_no_hole) == 0;
  verdict.one_extent = (request.flags & nbd_cmd_flag_req_one) != 0;

  if (rule->action == NbdAction::flush) {
    if (request.offset == 0 && request.length == 0) return verdict;
    return refused(verdict, nbd_error_inval, "a flush has no range");
  }
  if (rule->action == NbdAction::block_status && !agreement.block_status)
    return refused(verdict, nbd_error_inval, "no metadata context was selected");
  if (rule->action == NbdAction::read && request.length > nbd_payload_bytes_max)
    return refused(verdict, nbd_error_inval, "a read larger than the maximum block size");
  return judge_range(request, served, *rule, verdict);
}

}  // namespace havm
