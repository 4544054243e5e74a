// The lines of the engine's control socket, both directions (docs/protocol/engine-control.md).
//
// Input: which direction, a depth of nesting that a fuzzer would not write out, the line; '@' in it
// stands for that many brackets.
#include "vmrepl/control/control_lines.hpp"

#include "tests/fuzz/support/fuzz_target.hpp"

namespace havm::fuzz {
namespace {

using Json = nlohmann::json;

constexpr std::size_t line_bytes_max = std::size_t{1} << 20;

std::string expanded(std::string_view line, std::size_t depth) {
  std::string text;
  for (const char c : line) {
    if (c != '@')
      text.push_back(c);
    else if (text.size() + 2 * depth <= line_bytes_max)
      text += std::string(depth, '[') + std::string(depth, ']');
  }
  return text;
}

void check_refusal(const ControlRefusal& refusal) {
  FUZZ_CHECK(!refusal.why.empty(), "a refusal says why");
  FUZZ_CHECK(refusal.id.is_null() || refusal.id.is_number_integer(), "an id is an integer");
  const std::string line = control_reply_line(refusal.id, Error(refusal.why));
  FUZZ_CHECK(line.find('\n') == line.size() - 1, "a reply is one line");
}

void check_command(const ControlCommand& command) {
  FUZZ_CHECK(command.id.is_null() || command.id.is_number_integer(), "an id is an integer");
  FUZZ_CHECK(command.request.is_object() && !command.request.contains("cmd") &&
                 !command.request.contains("id"),
             "a request is the other fields");
  Json written = command.request;
  written["cmd"] = command.cmd;
  if (!command.id.is_null()) written["id"] = command.id;
  const std::string line = control_line(written);
  FUZZ_CHECK(line.find('\n') == line.size() - 1, "a command is one line");
  const auto again = parse_control_command(line);
  const auto* same = std::get_if<ControlCommand>(&again);
  FUZZ_CHECK(same != nullptr && same->id == command.id && same->cmd == command.cmd &&
                 same->request == command.request,
             "decode(encode(x)) == x");
}

void check_reply(const ControlReply& reply) {
  const std::string line = control_reply_line(reply.id, reply.outcome);
  FUZZ_CHECK(line.find('\n') == line.size() - 1, "a reply is one line");
  const auto again = parse_engine_line(line);
  FUZZ_CHECK(again.has_value(), "what is encoded can be decoded");
  const auto* same = std::get_if<ControlReply>(&again.value());
  FUZZ_CHECK(same != nullptr && same->id == reply.id &&
                 same->outcome.has_value() == reply.outcome.has_value(),
             "a reply stays a reply");
  if (!reply.outcome)
    FUZZ_CHECK(same->outcome.error().message == reply.outcome.error().message,
               "decode(encode(error)) == error");
  else if (!reply.outcome.value().is_null())
    FUZZ_CHECK(same->outcome.value() == reply.outcome.value(), "decode(encode(x)) == x");
}

}  // namespace

void one_input(Bytes input) {
  Input in(input);
  const bool to_engine = in.flag();
  const std::size_t depth = in.number(2);
  const std::string line = expanded(text_of(in.rest()), depth);
  if (to_engine) {
    const auto parsed = parse_control_command(line);
    if (const auto* refusal = std::get_if<ControlRefusal>(&parsed))
      check_refusal(*refusal);
    else
      check_command(std::get<ControlCommand>(parsed));
    return;
  }
  const auto parsed = parse_engine_line(line);
  if (!parsed) {
    FUZZ_CHECK(!parsed.error().message.empty(), "a refusal says why");
    return;
  }
  if (const auto* event = std::get_if<ControlEvent>(&parsed.value())) {
    const auto again = parse_engine_line(control_line(event->event));
    FUZZ_CHECK(again.has_value() && std::get<ControlEvent>(again.value()).event == event->event,
               "decode(encode(event)) == event");
    return;
  }
  check_reply(std::get<ControlReply>(parsed.value()));
}

std::vector<std::string> seeds() {
  const auto to_engine = [](std::size_t depth, const std::string& line) {
    return packed(1, 1) + packed(depth, 2) + line;
  };
  const auto from_engine = [](std::size_t depth, const std::string& line) {
    return packed(0, 1) + packed(depth, 2) + line;
  };
  return {to_engine(0, R"({"id":7,"cmd":"promise","epoch":4})"),
          to_engine(0, R"({"id":-1,"cmd":"stand-by","epoch":5,"outdated":true})"),
          to_engine(0, R"({"cmd":"status"})"),
          to_engine(0, R"({"id":"x","cmd":7})"),
          to_engine(4, R"({"id":1,"cmd":"echo","more":@})"),
          to_engine(65535, R"({"id":@,"cmd":"status"})"),
          to_engine(65535, R"({"id":1,"cmd":"status","more":@})"),
          from_engine(0, R"({"id":7,"ok":true,"result":{"grant_age_ms":3,"suspect":false}})"),
          from_engine(0, R"({"id":8,"ok":false,"error":"it cannot be done"})"),
          from_engine(0, R"({"event":"session","state":"lost","reason":"silence"})"),
          from_engine(65535, R"({"id":7,"ok":true,"result":@})"),
          from_engine(65535, R"({"event":@})")};
}

}  // namespace havm::fuzz
