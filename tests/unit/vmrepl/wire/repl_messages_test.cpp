// repl_messages: all messages go round; a message without one of its fields, or with that field of
// another type, is refused by the name of the field; unknown fields are left alone.
#include "vmrepl/wire/repl_messages.hpp"

#include <algorithm>
#include <random>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "vmrepl/wire/big_endian.hpp"
#include "vmrepl/wire/frame_codec.hpp"

namespace havm {
namespace {

using nlohmann::json;

json history_fields() {
  json fields = json::object();
  for (const char* name : {"generation", "base_generation", "history", "generation_shared",
                           "owner_epoch", "lack_epoch", "damaged", "dirty_known"})
    fields[name] = true;
  return fields;
}

// No field has the value it takes when it is absent.
void set_history(ReplicaHistory& history) {
  history.generation = 0xfedcba9876543210;
  history.base_generation = 1;
  history.history = {2, 1};
  history.generation_shared = false;
  history.owner_epoch = Epoch(3);
  history.lack_epoch = Epoch(2);
  history.damaged = history.dirty_known = true;
}

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
  set_history(hello);
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
  set_history(ok);
  return ok;
}

// An older engine leaves them out.
bool is_of_protocol_2(const std::string& name) {
  static const json fields = history_fields();
  return name == "protocol" || fields.contains(name);
}

bool is_optional_number(const std::string& name) {
  return name == "protocol" || name == "owner_epoch" || name == "lack_epoch";
}

// For each field: missing, null, of another type. `decode` must refuse and name it.
template <class Decode>
void expect_every_field_is_needed(const std::string& good, Decode decode, bool is_hello = false) {
  ASSERT_TRUE(decode(good));
  const json object = json::parse(good);
  for (const auto& [name, value] : object.items()) {
    std::vector<json> variants;
    json without = object;
    without.erase(name);
    const bool may_be_absent = is_hello && is_of_protocol_2(name);
    ASSERT_EQ(decode(without.dump()).has_value(), may_be_absent) << name;
    if (!may_be_absent) variants.push_back(without);
    for (const json& wrong : {json(), json(-1), json(1.5), json(json::object()),
                              value.is_string() ? json(3) : json("text")}) {
      json changed = object;
      changed[name] = wrong;
      if (wrong.is_null() && is_hello && is_optional_number(name))
        continue;  // as if it were absent
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
  for (const SyncMode mode : {SyncMode::partial, SyncMode::full}) {
    const SyncBegin begin{mode, UINT64_MAX};
    EXPECT_EQ(decode_sync_begin(encode(begin)).value(), begin);
  }
  const SyncEnd end{0xfedcba9876543210, {2, 1}};
  EXPECT_EQ(decode_sync_end(encode(end)).value(), end);
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
  expect_every_field_is_needed(
      encode(sample_hello()), [](const auto& t) { return decode_hello(t); }, true);
  expect_every_field_is_needed(
      encode(sample_hello_ok()), [](const auto& t) { return decode_hello_ok(t); }, true);
  expect_every_field_is_needed(encode(SyncBegin{SyncMode::partial, 7}),
                               [](const auto& t) { return decode_sync_begin(t); });
  expect_every_field_is_needed(encode(SyncEnd{7, {6, 5}}),
                               [](const auto& t) { return decode_sync_end(t); });
  expect_every_field_is_needed(encode(HelloRefused{"no", Epoch(1)}),
                               [](const auto& t) { return decode_hello_refused(t); });
  expect_every_field_is_needed(encode(EpochMessage{}),
                               [](const auto& t) { return decode_epoch_message(t); });
  expect_every_field_is_needed(encode(Bye{"x"}), [](const auto& t) { return decode_bye(t); });
}

TEST(ReplMessages, AnEngineOfProtocol1SaysNothingOfGenerations) {
  json hello = json::parse(encode(sample_hello()));
  json ok = json::parse(encode(sample_hello_ok()));
  const json fields = history_fields();  // items() refers to it
  for (const auto& [name, unused] : fields.items()) {
    hello.erase(name);
    ok.erase(name);
  }
  hello.erase("protocol");
  ok.erase("protocol");
  Hello expected = sample_hello();
  static_cast<ReplicaHistory&>(expected) = ReplicaHistory{};
  expected.protocol = protocol_before_generations;
  EXPECT_EQ(decode_hello(hello.dump()).value(), expected);
  HelloOk expected_ok = sample_hello_ok();
  static_cast<ReplicaHistory&>(expected_ok) = ReplicaHistory{};
  expected_ok.protocol = protocol_before_generations;
  EXPECT_EQ(decode_hello_ok(ok.dump()).value(), expected_ok);
  EXPECT_EQ(decode_sync_begin("").value(), (SyncBegin{SyncMode::full, 0}));
  EXPECT_EQ(decode_sync_end("").value(), SyncEnd{});
}

TEST(ReplMessages, GenerationsAreSixteenHexadecimalDigits) {
  json hello = json::parse(encode(sample_hello()));
  EXPECT_EQ(hello["generation"], "fedcba9876543210");
  EXPECT_EQ(hello["history"], json({"0000000000000002", "0000000000000001"}));
  hello["history"] = std::vector<std::string>(history_max + 1, "0000000000000001");
  EXPECT_FALSE(decode_hello(hello.dump()));
  hello["history"] = {1, 2};
  EXPECT_FALSE(decode_hello(hello.dump()));
  EXPECT_FALSE(decode_sync_begin(R"({"mode":"refuse","generation":"0000000000000001"})"));
  EXPECT_FALSE(decode_sync_begin(R"({"mode":"full","generation":1})"));
}

// ---- ranges ----------------------------------------------------------------------------------

TEST(Ranges, GoRoundUpToTheLargestFrame) {
  for (const std::size_t count : {std::size_t{1}, std::size_t{2}, ranges_max}) {
    std::vector<ByteRange> ranges;
    for (std::size_t i = 0; i < count; ++i)
      ranges.push_back({(std::uint64_t{1} << 40) + i * 65536, 1 + i});
    const auto payload = encode_ranges(ranges);
    EXPECT_EQ(payload.size(), count * 16);
    EXPECT_EQ(decode_ranges(payload, std::uint64_t{1} << 41).value(), ranges);
  }
}

TEST(Ranges, AreTheDocumentedBytes) {
  const ByteRange one[] = {{0x0102030405060708, 0x1112131415161718}};
  const auto payload = encode_ranges(one);
  const std::byte expected[] = {std::byte{1},    std::byte{2},    std::byte{3},    std::byte{4},
                                std::byte{5},    std::byte{6},    std::byte{7},    std::byte{8},
                                std::byte{0x11}, std::byte{0x12}, std::byte{0x13}, std::byte{0x14},
                                std::byte{0x15}, std::byte{0x16}, std::byte{0x17}, std::byte{0x18}};
  EXPECT_TRUE(std::ranges::equal(payload, expected));
}

TEST(Ranges, WhatIsNotInsideTheDiskIsRefused) {
  const std::uint64_t size = 1 << 20;
  const auto refused = [size](ByteRange second) {
    const ByteRange ranges[] = {{0, 512}, {size - 512, 512}};
    auto payload = encode_ranges(ranges);
    EXPECT_TRUE(decode_ranges(payload, size));
    store_be(payload.data() + 16, second.offset);
    store_be(payload.data() + 24, second.length);
    const auto result = decode_ranges(payload, size);
    return !result && result.error().message.find("range 1 ") != std::string::npos;
  };
  EXPECT_TRUE(refused({0, 0}));
  EXPECT_TRUE(refused({size, 1}));
  EXPECT_TRUE(refused({size - 512, 513}));
  EXPECT_TRUE(refused({UINT64_MAX, 2}));
  EXPECT_TRUE(refused({512, UINT64_MAX}));
}

TEST(Ranges, APayloadThatIsNoListIsRefused) {
  for (const std::size_t bytes :
       {std::size_t{0}, std::size_t{1}, std::size_t{15}, std::size_t{17}, (ranges_max + 1) * 16})
    EXPECT_FALSE(decode_ranges(std::vector<std::byte>(bytes, std::byte{1}), UINT64_MAX)) << bytes;
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
