// The lines of the control socket, above all those that nobody sends in good faith.
#include "vmrepl/control/control_lines.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace havm {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

std::string brackets(std::size_t depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

ControlRefusal refusal_of(const std::string& line) {
  const auto parsed = parse_control_command(line);
  const auto* refusal = std::get_if<ControlRefusal>(&parsed);
  EXPECT_NE(refusal, nullptr) << line.substr(0, 100);
  return refusal != nullptr ? *refusal : ControlRefusal{};
}

TEST(ControlLines, ACommandIsItsIdItsNameAndTheRest) {
  const auto parsed = parse_control_command(R"({"id":-7,"cmd":"promise","epoch":4})");
  const auto& command = std::get<ControlCommand>(parsed);
  EXPECT_EQ(command.id, Json(-7));
  EXPECT_EQ(command.cmd, "promise");
  EXPECT_EQ(command.request, Json({{"epoch", 4}}));
  EXPECT_TRUE(std::get<ControlCommand>(parse_control_command(R"({"cmd":"x"})")).id.is_null());
}

TEST(ControlLines, ARefusalTellsTheIdWhereThereIsOne) {
  EXPECT_EQ(refusal_of(R"({"id":7,"cmd":8})").id, Json(7));
  EXPECT_TRUE(refusal_of(R"({"id":"7","cmd":"x"})").id.is_null());
  EXPECT_THAT(refusal_of(R"({"id":1.5,"cmd":"x"})").why, HasSubstr("'id'"));
  EXPECT_THAT(refusal_of(R"([{"id":1,"cmd":"x"}])").why, HasSubstr("not one JSON object"));
}

// JSON is copied, compared and written out recursively: half a million levels fit into a line, and
// not onto a stack.
TEST(ControlLines, DeepJsonIsRefusedWhereverItStands) {
  const std::string deep = brackets(500'000);
  EXPECT_THAT(refusal_of(R"({"cmd":"x","id":)" + deep + "}").why, HasSubstr("not one JSON object"));
  EXPECT_THAT(refusal_of(R"({"id":1,"cmd":"x","more":)" + deep + "}").why,
              HasSubstr("not one JSON object"));
  EXPECT_FALSE(parse_engine_line(R"({"id":1,"ok":true,"result":)" + deep + "}"));
  EXPECT_FALSE(parse_engine_line(R"({"event":)" + deep + "}"));

  const std::string bearable = brackets(control_depth_max - 1);
  const auto parsed = parse_control_command(R"({"id":1,"cmd":"x","more":)" + bearable + "}");
  EXPECT_TRUE(std::holds_alternative<ControlCommand>(parsed));
  EXPECT_TRUE(parse_engine_line(R"({"id":1,"ok":true,"result":)" + bearable + "}"));
}

TEST(ControlLines, RepliesGoRound) {
  const auto good = parse_engine_line(control_reply_line(7, Result<Json>(Json({{"a", 1}}))));
  const auto& reply = std::get<ControlReply>(good.value());
  EXPECT_EQ(reply.id, 7u);
  EXPECT_EQ(reply.outcome.value(), Json({{"a", 1}}));

  const auto bad = parse_engine_line(control_reply_line(8, Result<Json>(Error("no\nway", 5))));
  const auto& refused = std::get<ControlReply>(bad.value());
  ASSERT_FALSE(refused.outcome);
  EXPECT_EQ(refused.outcome.error().message, "no\nway");
  EXPECT_EQ(refused.outcome.error().code, 0);

  EXPECT_EQ(control_reply_line(nullptr, Result<Json>(Json())),
            "{\"id\":null,\"ok\":true,\"result\":{}}\n");
  EXPECT_EQ(control_line({{"text", "caf\xe9"}}), "{\"text\":\"caf\xef\xbf\xbd\"}\n");
}

TEST(ControlLines, WhatIsNoReplyIsNone) {
  for (const char* line :
       {"", "7", R"({"id":-1,"ok":true})", R"({"id":1})", R"({"ok":true})", R"({"id":1,"ok":"x"})"})
    EXPECT_FALSE(parse_engine_line(line)) << line;
  const auto silent = parse_engine_line(R"({"id":1,"ok":false,"error":7})");
  EXPECT_THAT(std::get<ControlReply>(silent.value()).outcome.error().message,
              HasSubstr("without a reason"));
  const auto event = parse_engine_line(R"({"event":"synced","id":1,"ok":true})");
  EXPECT_EQ(std::get<ControlEvent>(event.value()).event["event"], "synced");
}

}  // namespace
}  // namespace havm
