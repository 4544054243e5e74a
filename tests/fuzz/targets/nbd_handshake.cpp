// The server's side of the NBD handshake (vmrepl/nbd/nbd_handshake_core.hpp).
//
// Input: the export's alignment, a seed for the cuts, the client's bytes.
#include <algorithm>

#include "tests/fuzz/support/fuzz_target.hpp"
#include "vmrepl/nbd/nbd_bytes.hpp"
#include "vmrepl/nbd/nbd_handshake_core.hpp"
#include "vmrepl/nbd/nbd_protocol.hpp"

namespace havm::fuzz {
namespace {

constexpr std::size_t step_bytes_max = 16 + nbd_option_bytes_max;
// Replies to one option: three informations and an acknowledgement, or an error's sentence.
constexpr std::size_t replies_bytes_max = 512;

NbdExport served(std::uint32_t alignment) {
  return {"vda", 1U << 20, alignment};
}

struct Course {
  std::vector<std::byte> replies;
  std::size_t consumed = 0;
  NbdHandshakeOutcome outcome = NbdHandshakeOutcome::more;
  NbdAgreement agreement;
};

void check_step(const NbdHandshakeStep& step, Bytes given) {
  FUZZ_CHECK(step.consumed <= given.size(), "only what came is consumed");
  FUZZ_CHECK(step.replies.size() <= replies_bytes_max, "an answer is bounded");
  FUZZ_CHECK(step.wanted <= step_bytes_max, "what is waited for is bounded");
  if (step.outcome == NbdHandshakeOutcome::violation)
    FUZZ_CHECK(!step.reason.empty(), "a violation has a reason");
  else if (step.consumed == 0)
    FUZZ_CHECK(step.wanted > given.size() && step.replies.empty(),
               "an incomplete message is waited for, silently");
}

// Every reply to an option (all but the answer to EXPORT_NAME) is well-formed.
void check_replies(Bytes replies) {
  while (!replies.empty()) {
    NbdReader head(replies);
    FUZZ_CHECK(head.integer<std::uint64_t>() == nbd_option_reply_magic, "a reply has its magic");
    head.integer<std::uint32_t>();
    head.integer<std::uint32_t>();
    const auto length = head.integer<std::uint32_t>();
    FUZZ_CHECK(head.ok() && length <= replies.size() - 20, "a reply has the length it tells");
    replies = replies.subspan(20 + length);
  }
}

// As the connection does it: the bytes that are there, at most `window` at first, more when asked.
Course run(Bytes stream, std::uint32_t alignment, std::uint64_t cuts) {
  NbdHandshakeCore core(served(alignment));
  Course course;
  std::size_t here = 0;  // bytes that have arrived
  while (course.outcome == NbdHandshakeOutcome::more) {
    const Bytes input = stream.subspan(course.consumed, here - course.consumed);
    const NbdHandshakeStep step = core.step(input);
    check_step(step, input);
    if (step.consumed == 0 && step.outcome == NbdHandshakeOutcome::more) {
      if (here == stream.size()) break;
      cuts = cuts * 6364136223846793005U + 1442695040888963407U;
      const std::size_t piece = cuts == 0 ? stream.size() : 1 + (cuts >> 58);
      here += std::min(piece, stream.size() - here);
      continue;
    }
    if (step.outcome != NbdHandshakeOutcome::transmission) check_replies(step.replies);
    course.consumed += step.consumed;
    course.replies.insert(course.replies.end(), step.replies.begin(), step.replies.end());
    course.outcome = step.outcome;
  }
  course.agreement = core.agreement();
  return course;
}

}  // namespace

void one_input(Bytes input) {
  Input in(input);
  const std::uint32_t alignment = in.flag() ? 512 : 4096;
  const std::uint64_t cuts = in.number(4) + 1;
  const Bytes stream = in.rest();
  const Course cut = run(stream, alignment, cuts);
  // All at once, and byte by byte in its own way: the same.
  for (const std::uint64_t other : {cuts + 1, cuts * 3}) {
    const Course again = run(stream, alignment, other);
    FUZZ_CHECK(again.replies == cut.replies && again.consumed == cut.consumed &&
                   again.outcome == cut.outcome &&
                   again.agreement.structured_replies == cut.agreement.structured_replies &&
                   again.agreement.block_status == cut.agreement.block_status,
               "the handshake does not depend on how the stream is cut");
  }
  FUZZ_CHECK(!cut.agreement.block_status || cut.agreement.structured_replies,
             "block status needs structured replies");
}

std::vector<std::string> seeds() {
  const auto option = [](std::uint32_t type, NbdWriter data) {
    NbdWriter writer;
    writer.integer(nbd_option_magic).integer(type);
    writer.integer(static_cast<std::uint32_t>(data.bytes().size())).raw(data.bytes());
    return string_of(writer.bytes());
  };
  const auto flags = [](std::uint32_t value) {
    NbdWriter writer;
    writer.integer(value);
    return packed(1, 1) + packed(12345, 4) + string_of(writer.bytes());
  };
  const auto name = [](std::string_view text) {
    NbdWriter writer;
    writer.integer(static_cast<std::uint32_t>(text.size())).text(text);
    return writer;
  };
  const auto go = [&](std::uint32_t type) {
    NbdWriter data = name("vda");
    data.integer(std::uint16_t{2}).integer(nbd_info_name).integer(nbd_info_block_size);
    return option(type, data);
  };
  const auto context = [&](std::uint32_t type, std::string_view query) {
    NbdWriter data = name("");
    data.integer(std::uint32_t{1}).integer(static_cast<std::uint32_t>(query.size())).text(query);
    return option(type, data);
  };
  const std::string both = flags(nbd_flag_fixed_newstyle | nbd_flag_no_zeroes);
  const std::string structured = option(nbd_opt_structured_reply, {});
  NbdWriter export_name;
  export_name.text("vda");
  return {both + option(nbd_opt_list, {}) + option(nbd_opt_abort, {}),
          both + structured + context(nbd_opt_set_meta_context, "base:allocation") +
              go(nbd_opt_go) + "the first request",
          both + structured + context(nbd_opt_list_meta_context, "base:") + go(nbd_opt_info),
          both + option(nbd_opt_starttls, {}) + option(99, name("x")) + go(nbd_opt_go),
          flags(nbd_flag_fixed_newstyle) + option(nbd_opt_export_name, export_name),
          flags(0) + option(nbd_opt_export_name, {}),
          both + context(nbd_opt_set_meta_context, "base:allocation") + structured};
}

}  // namespace havm::fuzz
