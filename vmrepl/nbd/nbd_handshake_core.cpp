#include "vmrepl/nbd/nbd_handshake_core.hpp"

#include <algorithm>

#include "vmrepl/nbd/nbd_bytes.hpp"
#include "vmrepl/nbd/nbd_protocol.hpp"

namespace havm {
namespace {

constexpr std::size_t client_flags_bytes = 4;
constexpr std::size_t option_header_bytes = 16;
constexpr std::size_t export_name_padding_bytes = 124;

void reply(NbdHandshakeStep& step, std::uint32_t option, std::uint32_t type,
           std::span<const std::byte> data = {}) {
  NbdWriter writer;
  writer.integer(nbd_option_reply_magic).integer(option).integer(type);
  writer.integer(static_cast<std::uint32_t>(data.size())).raw(data);
  step.replies.insert(step.replies.end(), writer.bytes().begin(), writer.bytes().end());
}

// Errors carry a sentence for the person at the client.
void refuse(NbdHandshakeStep& step, std::uint32_t option, std::uint32_t error,
            std::string_view why) {
  reply(step, option, error, std::as_bytes(std::span(why)));
}

void violation(NbdHandshakeStep& step, std::string_view why) {
  step.outcome = NbdHandshakeOutcome::violation;
  step.reason = why;
}

void reply_context(NbdHandshakeStep& step, std::uint32_t option, std::uint32_t id) {
  NbdWriter data;
  data.integer(id).text(nbd_base_allocation);
  reply(step, option, nbd_rep_meta_context, data.bytes());
}

// Does a query select base:allocation? "base:" alone is a wildcard, which only lists.
bool selects_allocation(std::string_view query, bool listing) {
  return query == nbd_base_allocation || (listing && query == "base:");
}

}  // namespace

std::vector<std::byte> NbdHandshakeCore::greeting() {
  NbdWriter writer;
  writer.integer(nbd_init_magic).integer(nbd_option_magic);
  writer.integer(static_cast<std::uint16_t>(nbd_flag_fixed_newstyle | nbd_flag_no_zeroes));
  return std::move(writer.bytes());
}

NbdHandshakeStep NbdHandshakeCore::step(std::span<const std::byte> input) {
  if (!have_client_flags_) return client_flags(input);

  NbdHandshakeStep step;
  step.wanted = option_header_bytes;
  if (input.size() < option_header_bytes) return step;
  NbdReader header(input.first(option_header_bytes));
  const auto magic = header.integer<std::uint64_t>();
  Option option;
  option.type = header.integer<std::uint32_t>();
  const auto length = header.integer<std::uint32_t>();
  if (magic != nbd_option_magic) {
    violation(step, "an option without the option magic");
    return step;
  }
  if (length > nbd_option_bytes_max) {
    violation(step, "an option longer than this server reads");
    return step;
  }
  step.wanted += length;
  if (input.size() < step.wanted) return step;
  step.consumed = step.wanted;
  if (++options_ > nbd_options_max) {
    violation(step, "too many options");
    return step;
  }
  option.data = input.subspan(option_header_bytes, length);
  handle(option, step);
  return step;
}

NbdHandshakeStep NbdHandshakeCore::client_flags(std::span<const std::byte> input) {
  NbdHandshakeStep step;
  step.wanted = client_flags_bytes;
  if (input.size() < client_flags_bytes) return step;
  step.consumed = client_flags_bytes;
  const auto flags = load_big_endian<std::uint32_t>(input.data());
  constexpr std::uint32_t known = nbd_flag_fixed_newstyle | nbd_flag_no_zeroes;
  if ((flags & ~known) != 0) {
    violation(step, "unknown client flags");
    return step;
  }
  have_client_flags_ = true;
  fixed_newstyle_ = (flags & nbd_flag_fixed_newstyle) != 0;
  no_zeroes_ = (flags & nbd_flag_no_zeroes) != 0;
  return step;
}

void NbdHandshakeCore::handle(const Option& option, NbdHandshakeStep& step) {
  if (!fixed_newstyle_ && option.type != nbd_opt_export_name) {
    violation(step, "an option that needs the fixed newstyle handshake, which was not asked for");
    return;
  }
  switch (option.type) {
    case nbd_opt_export_name:
      return export_name(option, step);
    case nbd_opt_abort:
      reply(step, option.type, nbd_rep_ack);
      step.outcome = NbdHandshakeOutcome::ended;
      step.reason = "the client aborted the handshake";
      return;
    case nbd_opt_list:
      return list(option, step);
    case nbd_opt_info:
      return info_or_go(option, step);
    case nbd_opt_go:
      return info_or_go(option, step);
    case nbd_opt_structured_reply:
      return structured_reply(option, step);
    case nbd_opt_list_meta_context:
      return meta_context(option, step);
    case nbd_opt_set_meta_context:
      return meta_context(option, step);
    case nbd_opt_starttls:
      return refuse(step, option.type, nbd_rep_err_unsup, "no TLS on this unix socket");
    default:
      return refuse(step, option.type, nbd_rep_err_unsup, "unknown option");
  }
}

bool NbdHandshakeCore::is_ours(std::string_view name) const {
  return name.empty() || name == export_.name;
}

std::uint16_t NbdHandshakeCore::transmission_flags() const {
  // CAN_MULTI_CONN holds because a connection caches nothing: every connection of the disk submits
  // to the same BlockService, and its flush covers every write completed before it, whoever sent
  // it.
  const unsigned flags = nbd_tx_has_flags | nbd_tx_send_flush | nbd_tx_send_fua | nbd_tx_send_trim |
                         nbd_tx_send_write_zeroes | nbd_tx_can_multi_conn |
                         (agreement_.structured_replies ? nbd_tx_send_df : 0U);
  return static_cast<std::uint16_t>(flags);
}

// This option has no error reply: a wrong name can only be answered by closing.
void NbdHandshakeCore::export_name(const Option& option, NbdHandshakeStep& step) {
  NbdReader reader(option.data);
  if (!is_ours(reader.text(option.data.size()))) {
    violation(step, "an export name that is not served here");
    return;
  }
  NbdWriter writer;
  writer.integer(export_.size_bytes).integer(transmission_flags());
  if (!no_zeroes_) writer.zeroes(export_name_padding_bytes);
  step.replies = std::move(writer.bytes());
  step.outcome = NbdHandshakeOutcome::transmission;
}

void NbdHandshakeCore::info_or_go(const Option& option, NbdHandshakeStep& step) {
  NbdReader reader(option.data);
  const std::string_view name = reader.text(reader.integer<std::uint32_t>());
  const auto count = reader.integer<std::uint16_t>();
  bool name_wanted = false;
  for (std::uint16_t i = 0; i < count && reader.ok(); ++i)
    name_wanted |= reader.integer<std::uint16_t>() == nbd_info_name;
  if (!reader.finished())
    return refuse(step, option.type, nbd_rep_err_invalid, "malformed option data");
  if (name.size() > nbd_string_bytes_max)
    return refuse(step, option.type, nbd_rep_err_too_big, "export name too long");
  if (!is_ours(name))
    return refuse(step, option.type, nbd_rep_err_unknown, "no such export on this socket");

  NbdWriter about;
  about.integer(nbd_info_export).integer(export_.size_bytes).integer(transmission_flags());
  reply(step, option.type, nbd_rep_info, about.bytes());
  NbdWriter sizes;
  sizes.integer(nbd_info_block_size).integer(export_.alignment_bytes);
  sizes.integer(std::max(nbd_preferred_block_bytes, export_.alignment_bytes));
  sizes.integer(nbd_payload_bytes_max);
  reply(step, option.type, nbd_rep_info, sizes.bytes());
  if (name_wanted) {
    NbdWriter named;
    named.integer(nbd_info_name).text(export_.name);
    reply(step, option.type, nbd_rep_info, named.bytes());
  }
  reply(step, option.type, nbd_rep_ack);
  if (option.type == nbd_opt_go) step.outcome = NbdHandshakeOutcome::transmission;
}

void NbdHandshakeCore::list(const Option& option, NbdHandshakeStep& step) {
  if (!option.data.empty())
    return refuse(step, option.type, nbd_rep_err_invalid, "LIST carries no data");
  NbdWriter writer;
  writer.integer(static_cast<std::uint32_t>(export_.name.size())).text(export_.name);
  reply(step, option.type, nbd_rep_server, writer.bytes());
  reply(step, option.type, nbd_rep_ack);
}

void NbdHandshakeCore::structured_reply(const Option& option, NbdHandshakeStep& step) {
  if (!option.data.empty())
    return refuse(step, option.type, nbd_rep_err_invalid, "STRUCTURED_REPLY carries no data");
  agreement_.structured_replies = true;
  reply(step, option.type, nbd_rep_ack);
}

void NbdHandshakeCore::meta_context(const Option& option, NbdHandshakeStep& step) {
  const bool listing = option.type == nbd_opt_list_meta_context;
  // A failed SET leaves nothing selected (proto.md), so that nobody relies on an older choice.
  if (!listing) agreement_.block_status = false;
  if (!agreement_.structured_replies)
    return refuse(step, option.type, nbd_rep_err_invalid, "STRUCTURED_REPLY must come first");

  NbdReader reader(option.data);
  const std::string_view name = reader.text(reader.integer<std::uint32_t>());
  const auto queries = reader.integer<std::uint32_t>();
  bool selected = listing && queries == 0;  // no query lists everything, and selects nothing
  bool too_long = name.size() > nbd_string_bytes_max;
  for (std::uint32_t i = 0; i < queries && reader.ok(); ++i) {
    const std::string_view query = reader.text(reader.integer<std::uint32_t>());
    too_long |= query.size() > nbd_string_bytes_max;
    selected |= selects_allocation(query, listing);
  }
  if (!reader.finished())
    return refuse(step, option.type, nbd_rep_err_invalid, "malformed option data");
  if (too_long) return refuse(step, option.type, nbd_rep_err_too_big, "name or query too long");
  if (!is_ours(name))
    return refuse(step, option.type, nbd_rep_err_unknown, "no such export on this socket");

  if (selected) reply_context(step, option.type, listing ? 0 : nbd_base_allocation_id);
  if (!listing) agreement_.block_status = selected;
  reply(step, option.type, nbd_rep_ack);
}

}  // namespace havm
