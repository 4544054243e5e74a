#include "agent/guard/guard_protocol.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <limits>
#include <vector>

namespace havm {
namespace {

// Arguments: v name of a VM, p process id, s start ticks, e epoch, t nanoseconds since boot.
struct Syntax {
  std::string_view word;
  GuardCommand::Verb verb;
  GuardEventKind event;
  std::string_view arguments;
};
using Verb = GuardCommand::Verb;
using Kind = GuardEventKind;
constexpr Syntax syntaxes[] = {
    {"watch", Verb::Event, Kind::Watch, "vpset"}, {"renew", Verb::Event, Kind::Renew, "vet"},
    {"alone", Verb::Event, Kind::Alone, "ve"},    {"lease", Verb::Event, Kind::Lease, "ve"},
    {"stop", Verb::Event, Kind::Stop, "v"},       {"kill", Verb::Event, Kind::Kill, "v"},
    {"forget", Verb::Forget, Kind::Tick, "v"},    {"continue", Verb::Event, Kind::Continue, "ve"},
    {"status", Verb::Status, Kind::Tick, ""},
};

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> words;
  for (std::size_t space = 0; space != std::string_view::npos;) {
    space = text.find(' ');
    words.push_back(text.substr(0, space));
    text.remove_prefix(space == std::string_view::npos ? text.size() : space + 1);
  }
  return words;
}

bool take(GuardCommand& command, char kind, std::string_view word) {
  if (kind == 'v') {
    command.vm = word;
    return !word.empty() &&
           std::ranges::all_of(word, [](unsigned char c) { return c > ' ' && c != 127; });
  }
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  const std::uint64_t max =
      kind == 'p' ? std::numeric_limits<int>::max() : std::numeric_limits<std::int64_t>::max();
  if (error != std::errc() || end != word.data() + word.size() || number > max) return false;
  if (kind == 'p') command.pid = static_cast<int>(number);
  if (kind == 's') command.start_ticks = number;
  if (kind == 'e') command.event.epoch = Epoch(number);
  if (kind == 't') command.event.sent = from_ns(static_cast<long long>(number));
  return kind != 'p' || number > 1;  // 0, 1: no QEMU has them
}

}  // namespace

Result<GuardCommand> parse_guard_command(std::string_view packet) {
  if (packet.size() > guard_packet_bytes_max) return Error("the packet is too long", EINVAL);
  const auto words = split(packet);
  const auto* syntax = std::ranges::find(syntaxes, words[0], &Syntax::word);
  if (syntax == std::end(syntaxes)) return Error("unknown command", EINVAL);
  if (words.size() != syntax->arguments.size() + 1) return Error("wrong number of words", EINVAL);
  GuardCommand command;
  command.verb = syntax->verb;
  command.event.kind = syntax->event;
  for (std::size_t i = 1; i < words.size(); ++i)
    if (!take(command, syntax->arguments[i - 1], words[i]))
      return Error("word " + std::to_string(i + 1) + " is not valid", EINVAL);
  return command;
}

std::string format_guard_status(const std::string& name, int pid, const GuardVm& vm) {
  const char* state = vm.held ? "stopped" : "paused";
  // Until every thread was seen stopped it must be taken for running.
  if (vm.phase == GuardPhase::Running || vm.phase == GuardPhase::Stopping) state = "running";
  if (vm.phase == GuardPhase::Killing) state = "killed";
  if (vm.phase == GuardPhase::Gone) state = "gone";
  const long long pause_at = vm.phase == GuardPhase::Running ? 0 : to_ns(vm.paused_at);
  return name + " " + std::to_string(pid) + " " + std::to_string(vm.epoch.value) +
         (vm.needs_lease ? " 1 " : " 0 ") + state + " " + std::to_string(to_ns(vm.last_sent)) +
         " " + std::to_string(pause_at);
}

}  // namespace havm
