// Packets to the guard (docs/protocol/guard.md), each fed on into the guard's rules.
//
// Input: packets, one a line.
#include "agent/guard/guard_protocol.hpp"

#include <algorithm>
#include <map>

#include "tests/fuzz/support/fuzz_target.hpp"

namespace havm::fuzz {
namespace {

const char* word_of(const GuardCommand& command) {
  if (command.verb == GuardCommand::Verb::Status) return "status";
  if (command.verb == GuardCommand::Verb::Forget) return "forget";
  switch (command.event.kind) {
    case GuardEventKind::Watch:
      return "watch";
    case GuardEventKind::Renew:
      return "renew";
    case GuardEventKind::Alone:
      return "alone";
    case GuardEventKind::Lease:
      return "lease";
    case GuardEventKind::Stop:
      return "stop";
    case GuardEventKind::Kill:
      return "kill";
    case GuardEventKind::Continue:
      return "continue";
    default:
      return "no command";
  }
}

std::string format(const GuardCommand& command) {
  std::string text = word_of(command);
  if (command.verb == GuardCommand::Verb::Status) return text;
  text += " " + command.vm;
  if (command.verb == GuardCommand::Verb::Forget) return text;
  const GuardEventKind kind = command.event.kind;
  if (kind == GuardEventKind::Stop || kind == GuardEventKind::Kill) return text;
  if (kind == GuardEventKind::Watch)
    text += " " + std::to_string(command.pid) + " " + std::to_string(command.start_ticks);
  text += " " + std::to_string(command.event.epoch.value);
  if (kind == GuardEventKind::Watch || kind == GuardEventKind::Renew)
    text += " " + std::to_string(to_ns(command.event.sent));
  return text;
}

void check_command(const GuardCommand& command, std::string_view packet) {
  if (command.verb != GuardCommand::Verb::Status) {
    FUZZ_CHECK(!command.vm.empty(), "a command names a VM");
    FUZZ_CHECK(std::ranges::all_of(command.vm, [](unsigned char c) { return c > ' ' && c != 127; }),
               "a VM's name is a word");
  }
  if (command.event.kind == GuardEventKind::Watch)
    FUZZ_CHECK(command.pid > 1, "what is watched is a process");
  FUZZ_CHECK(to_ns(command.event.sent) >= 0, "a time is not negative");
  const std::string written = format(command);
  const auto again = parse_guard_command(written);
  FUZZ_CHECK(again.has_value() && format(again.value()) == written, "decode(encode(x)) == x");
  // Leading zeroes are the one freedom of a packet.
  FUZZ_CHECK(written.size() <= packet.size(), "nothing is added to what was said");
}

// The guard's own guarantees 2 to 4, where one event shows them.
void check_rules(std::map<std::string, GuardVm>& vms, const GuardCommand& command, TimePoint now) {
  const GuardTimes times{std::chrono::seconds(6)};
  GuardVm& vm = vms[command.vm];
  GuardEvent event = command.event;
  event.now = now;
  const GuardDecision decision = guard_step(vm, event, times);
  FUZZ_CHECK(decision.reply[0] != '\0', "every command is answered");
  FUZZ_CHECK(decision.action == GuardAction::None || decision.reason[0] != '\0',
             "every action has a reason");
  if (decision.action == GuardAction::Resume)
    FUZZ_CHECK(!decision.vm.held, "what is under stop is not resumed");
  FUZZ_CHECK(decision.vm.epoch >= vm.epoch || event.kind == GuardEventKind::Watch,
             "the watched epoch falls by nothing but a watch");
  vm = decision.vm;
  const std::string status = format_guard_status(command.vm, 4711, vm);
  FUZZ_CHECK(std::ranges::count(status, ' ') == 6, "a status line has seven words");
}

}  // namespace

void one_input(Bytes input) {
  std::string_view text = text_of(input);
  std::map<std::string, GuardVm> vms;
  TimePoint now = from_ns(1'000'000'000'000);
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view packet = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    now += std::chrono::milliseconds(700);
    const auto command = parse_guard_command(packet);
    if (!command) {
      FUZZ_CHECK(!command.error().message.empty(), "a refusal says why");
      continue;
    }
    FUZZ_CHECK(packet.size() <= guard_packet_bytes_max, "a packet is bounded");
    check_command(command.value(), packet);
    if (command.value().verb == GuardCommand::Verb::Event) check_rules(vms, command.value(), now);
  }
}

std::vector<std::string> seeds() {
  return {
      "watch web1 4711 123456 4 1000000000000\nrenew web1 4 1000500000000\nalone web1 4\n"
      "lease web1 5\nstop web1\ncontinue web1 5\nkill web1\nforget web1\nstatus",
      "watch web1 1 1 1 1\nwatch web1 2147483648 1 1 1\nrenew web1 4 9223372036854775807",
      "status x\nstop\nstop  web1\nrenew web1 -1 +1\nnonsense"};
}

}  // namespace havm::fuzz
