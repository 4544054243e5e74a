#include "vmrepl/control/control_lines.hpp"

#include <cerrno>
#include <utility>

namespace havm {
namespace {

using Json = nlohmann::json;

// Discarded unless it is JSON of a bearable depth.
Json parse_shallow(std::string_view line) {
  bool too_deep = false;
  const auto check_depth = [&too_deep](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > control_depth_max;
    return !too_deep;  // false drops the part: nothing deep is ever built
  };
  Json value = Json::parse(line, check_depth, false);
  return too_deep ? Json(Json::value_t::discarded) : value;
}

}  // namespace

std::variant<ControlCommand, ControlRefusal> parse_control_command(std::string_view line) {
  Json request = parse_shallow(line);
  if (!request.is_object()) return ControlRefusal{nullptr, "a line is not one JSON object"};
  ControlCommand command;
  if (const auto id = request.find("id"); id != request.end()) command.id = std::move(*id);
  if (!command.id.is_null() && !command.id.is_number_integer())
    return ControlRefusal{nullptr, "'id' is not an integer"};
  const auto cmd = request.find("cmd");
  if (cmd == request.end() || !cmd->is_string())
    return ControlRefusal{std::move(command.id), "'cmd' is not a string"};
  command.cmd = cmd->get<std::string>();
  request.erase("id");
  request.erase("cmd");
  command.request = std::move(request);
  return command;
}

Result<std::variant<ControlEvent, ControlReply>> parse_engine_line(std::string_view line) {
  Json message = parse_shallow(line);
  if (!message.is_object()) return Error("the engine sent what is not a JSON object", EBADMSG);
  std::variant<ControlEvent, ControlReply> parsed;
  if (message.contains("event")) {
    parsed = ControlEvent{std::move(message)};
    return parsed;
  }
  const auto id = message.find("id");
  const auto ok = message.find("ok");
  if (id == message.end() || !id->is_number_unsigned() || ok == message.end() || !ok->is_boolean())
    return Error("the engine sent a reply that belongs to no command", EBADMSG);
  Result<Json> outcome = Json::object();
  const auto error = message.find("error");
  if (const auto result = message.find("result"); ok->get<bool>()) {
    if (result != message.end()) outcome = std::move(*result);
  } else if (error != message.end() && error->is_string()) {
    outcome = Error(error->get<std::string>());
  } else {
    outcome = Error("the engine refused without a reason");
  }
  parsed = ControlReply{id->get<std::uint64_t>(), std::move(outcome)};
  return parsed;
}

std::string control_line(const Json& object) {
  return object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string control_reply_line(const Json& id, const Result<Json>& outcome) {
  Json reply;
  reply["id"] = id;
  reply["ok"] = outcome.has_value();
  if (outcome)
    reply["result"] = outcome.value().is_null() ? Json::object() : outcome.value();
  else
    reply["error"] = outcome.error().message;
  return control_line(reply);
}

}  // namespace havm
