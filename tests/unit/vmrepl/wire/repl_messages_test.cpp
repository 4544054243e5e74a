// repl_messages: all messages go round; a message without one of its fields, or with that field of
// another type, is refused by the name of the field; unknown fields are left alone.
#include "vmrepl/wire/repl_messages.hpp"

#include <random>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "vmrepl/wire/frame_codec.hpp"

namespace havm {
namespace {

using nlohmann::json;

Hello sample_hello() {
  Hello hello;
  hello.vm = "web1";
  hello.vm_id = "f1b2c3d4-0000-4000-8000-000000000001";
  hello.node = "a";
  hello.boot_id = "11111111-2222-3333-4444-555555555555";
  hello.epoch = Epoch(4);
  hello.session = SessionId(0xfedcba9876543210);
  hello.lease = std::chrono::milliseconds(4000);
  hello.disks = {{"vda", std::uint64_t{1} << 40}, {"vdb", 512}};
  hello.engine_version = "0.1.0";
  return hello;
}

HelloOk sample_hello_ok() {
  HelloOk ok;
  ok.node = "b";
  ok.boot_id = "22222222-2222-3333-4444-555555555555";
  ok.state = ReplicaState::outdated;
  ok.promised_epoch = Epoch(4);
  ok.record_epoch = Epoch(3);
  ok.suspect = true;
  return ok;
}

// For each field: missing, null, of another type. `decode` must refuse and name it.
template <class Decode>
void expect_every_field_is_needed(const std::string& good, Decode decode) {
  ASSERT_TRUE(decode(good));
  const json object = json::parse(good);
  for (const auto& [name, value] : object.items()) {
    std::vector<json> variants;
    json without = object;
    without.erase(name);
    variants.push_back(without);
    for (const json& wrong : {json(), json(-1), json(1.5), json(json::object()),
                              value.is_string() ? json(3) : json("text")}) {
      json changed = object;
      changed[name] = wrong;
      variants.push_back(changed);
    }
    for (const json& variant : variants) {
      const auto result = decode(variant.dump());
      ASSERT_FALSE(result) << variant.dump();
      EXPECT_NE(result.error().message.find("'" + name + "'"), std::string::npos)
          << result.error().message;
    }
  }
}

// What the partner said is quoted in answers; it must not make a frame that cannot be.
TEST(ReplMessages, AReasonIsCutToWhatAFrameCarries) {
  const std::string hostile(json_payload_bytes_max, '\x01');  // six characters of JSON each
  Bye bye;
  bye.reason = hostile;
  HelloRefused refused;
  refused.reason = "no: " + hostile;
  EXPECT_LE(encode(bye).size(), json_payload_bytes_max);
  EXPECT_LE(encode(refused).size(), json_payload_bytes_max);
  const std::string kept = decode_hello_refused(encode(refused)).value().reason;
  EXPECT_EQ(kept.size(), reason_bytes_max);
  EXPECT_TRUE(kept.starts_with("no: \x01")) << kept.substr(0, 10);
  EXPECT_TRUE(kept.ends_with("…"));

  // Not in the middle of a character, and what is short enough stays.
  std::string umlauts;
  while (umlauts.size() < reason_bytes_max)
    umlauts += "ü";
  bye.reason = umlauts;
  EXPECT_EQ(decode_bye(encode(bye)).value().reason, umlauts);
  bye.reason = "x" + umlauts;
  const std::string cut = decode_bye(encode(bye)).value().reason;
  EXPECT_LE(cut.size(), reason_bytes_max);
  EXPECT_TRUE(cut.ends_with("ü…"));

  const json said = {{"reason", hostile}};
  EXPECT_EQ(decode_bye(said.dump()).value().reason.size(), reason_bytes_max);
}

TEST(ReplMessages, AllGoRound) {
  EXPECT_EQ(decode_hello(encode(sample_hello())).value(), sample_hello());
  EXPECT_EQ(decode_hello_ok(encode(sample_hello_ok())).value(), sample_hello_ok());
  const HelloRefused refused{"has promised epoch 9", Epoch(9)};
  EXPECT_EQ(decode_hello_refused(encode(refused)).value(), refused);
  const EpochMessage epoch{InSync::both};
  EXPECT_EQ(decode_epoch_message(encode(epoch)).value(), epoch);
  const Bye bye{"the VM was stopped"};
  EXPECT_EQ(decode_bye(encode(bye)).value(), bye);
}

TEST(ReplMessages, AreSpelledAsDocumented) {
  const json hello = json::parse(encode(sample_hello()));
  EXPECT_EQ(hello["session"], 0xfedcba9876543210U);
  EXPECT_EQ(hello["lease_ms"], 4000);
  EXPECT_EQ(hello["disks"][0], json({{"name", "vda"}, {"size", std::uint64_t{1} << 40}}));
  EXPECT_EQ(json::parse(encode(sample_hello_ok()))["state"], "outdated");
  EXPECT_EQ(encode(EpochMessage{InSync::both}), R"({"in_sync":"both"})");
}

TEST(ReplMessages, EveryFieldIsNeededWithItsType) {
  expect_every_field_is_needed(encode(sample_hello()),
                               [](const auto& t) { return decode_hello(t); });
  expect_every_field_is_needed(encode(sample_hello_ok()),
                               [](const auto& t) { return decode_hello_ok(t); });
  expect_every_field_is_needed(encode(HelloRefused{"no", Epoch(1)}),
                               [](const auto& t) { return decode_hello_refused(t); });
  expect_every_field_is_needed(encode(EpochMessage{}),
                               [](const auto& t) { return decode_epoch_message(t); });
  expect_every_field_is_needed(encode(Bye{"x"}), [](const auto& t) { return decode_bye(t); });
}

TEST(ReplMessages, FieldsOfADiskAreNamedWithItsIndex) {
  json hello = json::parse(encode(sample_hello()));
  hello["disks"][1].erase("size");
  const auto result = decode_hello(hello.dump());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "hello: disk 1: field 'size' is missing");
  hello["disks"][1] = "vdb";
  EXPECT_EQ(decode_hello(hello.dump()).error().message, "hello: disk 1 is not a JSON object");
}

TEST(ReplMessages, ALaterVersionMayAddFields) {
  json ok = json::parse(encode(sample_hello_ok()));
  ok["compression"] = "zstd";
  EXPECT_EQ(decode_hello_ok(ok.dump()).value(), sample_hello_ok());
}

TEST(ReplMessages, UnknownSpellingsAndAbsurdValuesAreRefused) {
  json ok = json::parse(encode(sample_hello_ok()));
  ok["state"] = "UpToDate";
  EXPECT_FALSE(decode_hello_ok(ok.dump()));
  EXPECT_FALSE(decode_epoch_message(R"({"in_sync":"all"})"));
  json hello = json::parse(encode(sample_hello()));
  hello["lease_ms"] = std::uint64_t{1} << 63;
  EXPECT_FALSE(decode_hello(hello.dump()));
  hello = json::parse(encode(sample_hello()));
  hello["vm"] = "";
  EXPECT_FALSE(decode_hello(hello.dump()));
  hello = json::parse(encode(sample_hello()));
  hello["disks"] = std::vector<json>(hello_disks_max + 1, hello["disks"][0]);
  EXPECT_FALSE(decode_hello(hello.dump()));
}

TEST(ReplMessages, WhatIsNotAnObjectIsRefused) {
  for (const char* text : {"", "{", "[]", "7", "null", "{} {}", "\"hello\"", "\xff\xfe"}) {
    EXPECT_FALSE(decode_hello(text)) << text;
    EXPECT_FALSE(decode_bye(text)) << text;
  }
  EXPECT_FALSE(decode_hello(std::string(60000, '[')));
}

TEST(ReplMessages, EveryTruncationAndManyDamagesAreRefusedOrRead) {
  const std::string good = encode(sample_hello());
  for (std::size_t n = 0; n < good.size(); ++n)
    ASSERT_FALSE(decode_hello(good.substr(0, n)));
  std::mt19937 random(5);
  for (int i = 0; i < 5000; ++i) {  // the sanitizers are the judges here
    std::string bad = good;
    bad[random() % bad.size()] = static_cast<char>(random());
    const auto result = decode_hello(bad);
    ASSERT_TRUE(result || !result.error().message.empty());
  }
}

TEST(ReplMessages, TextThatIsNotUtf8IsSentAnyway) {
  const auto round = decode_bye(encode(Bye{"disk \xff failed"}));
  ASSERT_TRUE(round);
  EXPECT_EQ(round.value().reason, "disk \xef\xbf\xbd failed");
}

}  // namespace
}  // namespace havm
