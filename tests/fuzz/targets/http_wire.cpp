// Targets and bodies of HTTP requests (agent/control/http_wire.hpp).
//
// Input: whether the rest is a target or a body.
#include "agent/control/http_wire.hpp"

#include <algorithm>

#include "tests/fuzz/support/fuzz_target.hpp"

namespace havm::fuzz {
namespace {

void check_target(std::string_view text) {
  const auto target = decode_http_target(text);
  if (!target) {
    FUZZ_CHECK(!target.error().message.empty(), "a refusal says why");
    return;
  }
  for (const std::string& segment : target.value().path)
    FUZZ_CHECK(!segment.empty() && segment.find('\0') == std::string::npos, "a segment is a text");
  FUZZ_CHECK(target.value().query.size() < text.size(), "a query is a part of the target");
  const std::string written = http_target(target.value().path);
  const auto again = decode_http_target(written);
  FUZZ_CHECK(
      again.has_value() && again.value().path == target.value().path && again.value().query.empty(),
      "decode(encode(path)) == path");
  FUZZ_CHECK(written.find_first_of("?# ") == std::string::npos, "a target is escaped");
}

int depth_of(const nlohmann::json& value) {
  int deepest = 0;
  if (value.is_structured())
    for (const auto& member : value)
      deepest = std::max(deepest, depth_of(member));
  return value.is_structured() ? deepest + 1 : 0;
}

void check_body(const std::string& text) {
  const auto body = parse_http_body(text);
  if (!body) {
    const std::string told = dump_http_body(HttpResponse::error(400, body.error().message).body);
    const auto again = parse_http_body(told);
    FUZZ_CHECK(again.has_value() && again.value().contains("error"), "a refusal can be told");
    return;
  }
  FUZZ_CHECK(depth_of(body.value()) <= http_json_depth_max + 1, "a body is not deep");
  const auto again = parse_http_body(dump_http_body(body.value()));
  FUZZ_CHECK(again.has_value(), "what is encoded can be decoded");
  FUZZ_CHECK(again.value() == body.value(), "decode(encode(x)) == x");
}

}  // namespace

void one_input(Bytes input) {
  Input in(input);
  if (in.flag())
    check_target(text_of(in.rest()));
  else
    check_body(string_of(in.rest()));
}

std::vector<std::string> seeds() {
  const auto target = [](const std::string& text) { return packed(1, 1) + text; };
  const auto body = [](const std::string& text) { return packed(0, 1) + text; };
  return {target("/v1/vms/web%201/start?wait=1"),
          target("/"),
          target("/%e2%82%ac/%2F"),
          target("/a//b"),
          target("/%4"),
          target("/%00"),
          target("x"),
          target("/a#b"),
          body(R"({"definition":{"vm":"web1","n":[1,-2,3.5e7,true,null]},"text":"\u20ac"})"),
          body(""),
          body("[" + std::string(70, '[') + std::string(70, ']') + "]"),
          body(R"({"a":1,"a":2} x)"),
          body("[1e999]")};
}

}  // namespace havm::fuzz
