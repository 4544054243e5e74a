// The job of control_lines: the lines of docs/protocol/engine-control.md, text ↔ structs, for both
// ends of the control socket. No I/O; any thread.
//
// Guarantees
//  1. No line makes it throw, and what it returns is nested at most control_depth_max levels: JSON
//     is copied and written out recursively, and a deep line must not exhaust the stack.
//  2. The `id` of a command that is refused is told, wherever the line has one that is an integer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include <nlohmann/json.hpp>

#include "vmrepl/base/result.hpp"

namespace havm {

constexpr int control_depth_max = 64;

// What a client sends.
struct ControlCommand {
  nlohmann::json id;  // an integer, or null when there was none
  std::string cmd;
  nlohmann::json request;  // an object: the other fields
};
struct ControlRefusal {
  nlohmann::json id;
  std::string why;
};
std::variant<ControlCommand, ControlRefusal> parse_control_command(std::string_view line);

// What the engine sends.
struct ControlEvent {
  nlohmann::json event;  // the whole object
};
struct ControlReply {
  std::uint64_t id = 0;
  Result<nlohmann::json> outcome;
};
// The Error: the line is neither, and whoever sent it is no engine.
Result<std::variant<ControlEvent, ControlReply>> parse_engine_line(std::string_view line);

// Each with its newline. Bytes that are not UTF-8 are replaced.
std::string control_line(const nlohmann::json& object);
std::string control_reply_line(const nlohmann::json& id, const Result<nlohmann::json>& outcome);

}  // namespace havm
