// record_codec: all fields go round; damage of any bit is noticed or harmless; no field may be
// absent.
#include "vmrepl/disk/record_codec.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/unit/vmrepl/disk/record_sample.hpp"
#include "vmrepl/wire/big_endian.hpp"

namespace havm {
namespace {

using nlohmann::json;

std::vector<std::byte> slot_of(const Record& record, std::uint64_t sequence) {
  auto slot = encode_slot(record, sequence);
  EXPECT_TRUE(slot) << slot.error().message;
  return std::move(slot).value();
}

SlotFault fault_of(std::span<const std::byte> slot) {
  const auto decoded = decode_slot(slot);
  const auto* fault = std::get_if<SlotFault>(&decoded);
  EXPECT_NE(fault, nullptr) << "accepted what must be refused";
  return fault != nullptr ? *fault : SlotFault{};
}

TEST(RecordCodec, AllFieldsGoRound) {
  for (const Record& record : {Record(sample_record()), Record(sample_record(9, 0))}) {
    const auto decoded = decode_slot(slot_of(record, 77));
    ASSERT_TRUE(std::holds_alternative<DecodedSlot>(decoded));
    EXPECT_EQ(std::get<DecodedSlot>(decoded).record, record);
    EXPECT_EQ(std::get<DecodedSlot>(decoded).slot_sequence, 77U);
  }
  Record fresh;
  fresh.vm = fresh.vm_id = fresh.node = "x";
  EXPECT_EQ(record_from_json(record_to_json(fresh)).value(), fresh);
}

TEST(RecordCodec, TheLayoutIsTheDocumentedOne) {
  const auto slot = slot_of(sample_record(), 5);
  ASSERT_EQ(slot.size(), 8192U);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(slot.data()), 8), "HAVMREC1");
  EXPECT_EQ(load_be<std::uint32_t>(slot.data() + 8), 2U);
  const auto length = load_be<std::uint32_t>(slot.data() + 12);
  EXPECT_EQ(load_be<std::uint64_t>(slot.data() + 16), 5U);
  const std::string payload(reinterpret_cast<const char*>(slot.data()) + 64, length);
  EXPECT_EQ(json::parse(payload)["grow_mark"], 5);
  EXPECT_EQ(json::parse(payload)["generation"], "123456789abcdef0");
  EXPECT_EQ(json::parse(payload)["generation_history"][0], "0000000000000003");
  EXPECT_EQ(payload, record_to_json(sample_record()));
}

TEST(RecordCodec, EveryFlippedBitIsNoticedOrHarmless) {
  const Record record = sample_record();
  const auto good = slot_of(record, 3);
  const std::size_t used = 64 + load_be<std::uint32_t>(good.data() + 12);
  for (std::size_t bit = 0; bit < 8 * good.size(); bit += bit < 8 * used ? 1 : 61) {
    auto bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    const auto decoded = decode_slot(bad);
    const std::size_t at = bit / 8;
    const bool covered = at < 28 || (at >= 64 && at < used);
    ASSERT_EQ(std::holds_alternative<SlotFault>(decoded), covered) << "byte " << at;
    if (!covered) {
      ASSERT_EQ(std::get<DecodedSlot>(decoded).record, record);
    }
  }
}

TEST(RecordCodec, EveryKindOfFaultIsTold) {
  const auto good = slot_of(sample_record(), 1);
  EXPECT_EQ(fault_of(std::span(good).first(8191)), SlotFault::short_slot);
  EXPECT_EQ(fault_of(std::vector<std::byte>(8192)), SlotFault::empty);
  auto bad = good;
  bad[0] = std::byte{'X'};
  EXPECT_EQ(fault_of(bad), SlotFault::wrong_magic);
  bad = good;
  store_be(bad.data() + 12, std::uint32_t{0xffffffff});
  EXPECT_EQ(fault_of(bad), SlotFault::wrong_crc);
  EXPECT_EQ(fault_of(forged_slot(record_to_json(sample_record()), 3)), SlotFault::newer_format);
  EXPECT_EQ(fault_of(forged_slot(record_to_json(sample_record()), 0)), SlotFault::wrong_contents);
  EXPECT_EQ(fault_of(forged_slot("{}")), SlotFault::wrong_contents);
  EXPECT_EQ(fault_of(forged_slot("")), SlotFault::wrong_contents);
}

TEST(RecordCodec, EveryFieldIsNeededWithItsType) {
  const json object = json::parse(record_to_json(sample_record()));
  for (const auto& [name, value] : object.items()) {
    const bool optional = name == "grow_mark" || name == "delegation";
    json without = object;
    without.erase(name);
    EXPECT_EQ(record_from_json(without.dump()).has_value(), optional) << name;
    for (const json& wrong : {json(-1), json(1.5), json(json::object()), json(json::array({-1}))}) {
      json changed = object;
      changed[name] = wrong;
      const auto result = record_from_json(changed.dump());
      ASSERT_FALSE(result) << changed.dump();
      if (name != "disks") {
        EXPECT_NE(result.error().message.find("'" + name + "'"), std::string::npos)
            << result.error().message;
      }
    }
  }
}

// As an engine of format 1 wrote it: numbers, and none of the newer fields.
json version_1() {
  json object = json::parse(record_to_json(sample_record()));
  object["version"] = 1;
  object["generation"] = 0x123456789abcdef0;
  object["generation_history"] = {3, 2, 1};
  for (const char* name :
       {"base_generation", "generation_shared", "owner_epoch", "lack_epoch", "damaged"})
    object.erase(name);
  return object;
}

TEST(RecordCodec, Version1IsReadAndWhatItLacksIsUnknown) {
  Record expected = sample_record();
  expected.base_generation = 0;
  expected.generation_shared = true;
  expected.owner_epoch = expected.epoch;
  expected.lack_epoch = Epoch();
  expected.damaged = false;
  const auto decoded = decode_slot(forged_slot(version_1().dump(), 1));
  ASSERT_TRUE(std::holds_alternative<DecodedSlot>(decoded));
  EXPECT_EQ(std::get<DecodedSlot>(decoded).record, expected);
  EXPECT_EQ(json::parse(record_to_json(expected))["version"], 2);
}

TEST(RecordCodec, Version1IsReadAsStrictly) {
  for (const char* name : {"generation", "generation_history"}) {
    json changed = version_1();
    changed[name] = json::array({-1});
    EXPECT_FALSE(record_from_json(changed.dump())) << name;
    changed.erase(name);
    EXPECT_FALSE(record_from_json(changed.dump())) << name;
  }
  for (const auto& version : {json(0), json(3), json("1")}) {
    json changed = version_1();
    changed["version"] = version;
    EXPECT_FALSE(record_from_json(changed.dump())) << version;
  }
}

TEST(RecordCodec, AGenerationIsSixteenHexadecimalDigits) {
  json object = json::parse(record_to_json(sample_record()));
  for (const char* wrong : {"", "123456789abcdef", "0123456789abcdef0", "0123456789ABCDEF",
                            "0x23456789abcdef", " 123456789abcdef"}) {
    object["generation"] = wrong;
    EXPECT_FALSE(record_from_json(object.dump())) << wrong;
  }
  object["generation"] = "ffffffffffffffff";
  EXPECT_EQ(record_from_json(object.dump()).value().generation, UINT64_MAX);
}

TEST(RecordCodec, ARecordThatBreaksItsInvariantsIsNeverWritten) {
  Record record = sample_record();
  record.promised_epoch = Epoch(1);
  EXPECT_FALSE(encode_slot(record, 1));
  record = sample_record();
  record.generation_history.assign(generation_history_max + 1, 1);
  EXPECT_FALSE(encode_slot(record, 1));
  record = sample_record();
  record.generation_history = {3, 0};
  EXPECT_FALSE(encode_slot(record, 1));
  record = sample_record();
  record.generation = 0;
  EXPECT_FALSE(encode_slot(record, 1));
  record = sample_record();
  record.vm.clear();
  EXPECT_FALSE(encode_slot(record, 1));
}

TEST(RecordCodec, TooManyDisksAreRefused) {
  const auto slot = encode_slot(sample_record(1, 250), 1);
  ASSERT_FALSE(slot);
  EXPECT_EQ(slot.error().code, E2BIG);
  EXPECT_TRUE(encode_slot(sample_record(1, 150), 1));
}

}  // namespace
}  // namespace havm
