// The job of guard_protocol: packets of docs/protocol/guard.md ↔ structs. No I/O; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "agent/guard/guard_core.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

constexpr std::size_t guard_packet_bytes_max = 512;

struct GuardCommand {
  enum class Verb { Event, Forget, Status };
  Verb verb = Verb::Status;
  std::string vm;
  int pid = 0;                    // watch
  std::uint64_t start_ticks = 0;  // watch
  GuardEvent event;               // of verb Event, without its time
};

Result<GuardCommand> parse_guard_command(std::string_view packet);
std::string format_guard_status(const std::string& name, int pid, const GuardVm& vm);

}  // namespace havm
