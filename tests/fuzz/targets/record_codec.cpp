// A slot of the durable record (docs/protocol/on-disk.md).
//
// Input: a mode, then the header's free fields and a JSON payload for which a slot with right
// checksum is made; or, by the mode, the slot itself.
#include "vmrepl/disk/record_codec.hpp"

#include <algorithm>

#include "tests/fuzz/support/fuzz_target.hpp"
#include "vmrepl/wire/big_endian.hpp"
#include "vmrepl/wire/crc32c.hpp"

namespace havm::fuzz {
namespace {

constexpr std::size_t version_at = 8;
constexpr std::size_t length_at = 12;
constexpr std::size_t sequence_at = 16;
constexpr std::size_t crc_at = 24;

std::vector<std::byte> slot_around(std::uint32_t version, std::uint64_t sequence, Bytes payload) {
  payload = payload.first(std::min(payload.size(), record_slot_bytes - record_slot_header_bytes));
  std::vector<std::byte> slot(record_slot_bytes);
  store_be(slot.data(), std::uint64_t{0x4841564d52454331});
  store_be(slot.data() + version_at, version);
  store_be(slot.data() + length_at, static_cast<std::uint32_t>(payload.size()));
  store_be(slot.data() + sequence_at, sequence);
  std::ranges::copy(payload, slot.begin() + record_slot_header_bytes);
  const std::uint32_t head = crc32c(Bytes(slot).first(crc_at));
  store_be(slot.data() + crc_at, crc32c(payload, head));
  return slot;
}

void check_record(const Record& record) {
  FUZZ_CHECK(record.promised_epoch >= record.epoch, "a promise is never below the epoch");
  FUZZ_CHECK(record.generation_history.size() <= generation_history_max, "the history is bounded");
  FUZZ_CHECK(!record.vm.empty() && !record.vm_id.empty() && !record.node.empty(),
             "a record says whose it is");
  const std::string json = record_to_json(record);
  const auto again = record_from_json(json);
  FUZZ_CHECK(again.has_value() && again.value() == record, "decode(encode(x)) == x");
  FUZZ_CHECK(record_to_json(again.value()) == json, "one meaning has one form");
}

void check_slot(const DecodedSlot& decoded, std::size_t bit) {
  check_record(decoded.record);
  const auto slot = encode_slot(decoded.record, decoded.slot_sequence);
  // The record was read from a slot: only nulls that its JSON left out may make it too long.
  if (!slot) {
    FUZZ_CHECK(slot.error().code == E2BIG, "what was read can be written");
    return;
  }
  FUZZ_CHECK(slot.value().size() == record_slot_bytes, "a slot has its size");
  const auto again = decode_slot(slot.value());
  const auto* both = std::get_if<DecodedSlot>(&again);
  FUZZ_CHECK(both != nullptr && both->slot_sequence == decoded.slot_sequence &&
                 both->record == decoded.record,
             "decode(encode(slot)) == slot");
  // One flipped bit in what the CRC covers is noticed.
  std::vector<std::byte> damaged = slot.value();
  const std::size_t covered = record_slot_header_bytes + record_to_json(decoded.record).size();
  const std::size_t byte = bit / 8 % covered;
  if (byte >= crc_at + 4 && byte < record_slot_header_bytes) return;
  damaged[byte] ^= std::byte{1} << static_cast<int>(bit % 8);
  FUZZ_CHECK(std::holds_alternative<SlotFault>(decode_slot(damaged)), "a damaged slot is refused");
}

}  // namespace

void one_input(Bytes input) {
  Input in(input);
  const bool raw = in.byte() == 0xff;
  const std::size_t bit = in.number(2);
  const std::uint32_t version = in.byte();
  const std::uint64_t sequence = in.number(8);
  const Bytes rest = in.rest();
  if (const auto record = record_from_json(text_of(rest))) check_record(record.value());
  std::vector<std::byte> slot;
  if (raw)
    slot.assign(rest.begin(), rest.end());
  else
    slot = slot_around(version, sequence, rest);
  const auto decoded = decode_slot(slot);
  if (const auto* fault = std::get_if<SlotFault>(&decoded)) {
    FUZZ_CHECK(to_text(*fault)[0] != '\0', "a fault has a text");
    FUZZ_CHECK(raw || *fault == SlotFault::wrong_contents || *fault == SlotFault::newer_format,
               "an intact slot is not called damaged");
    FUZZ_CHECK(slot.size() >= record_slot_bytes || *fault == SlotFault::short_slot,
               "less than a slot is called short");
    return;
  }
  check_slot(std::get<DecodedSlot>(decoded), bit);
}

std::vector<std::string> seeds() {
  Record full;
  full.vm = "web1";
  full.vm_id = "f1b2c3d4-0000-4000-8000-000000000001";
  full.node = "a";
  full.disks = {{"vda", 1U << 20}, {"vdb", 512}};
  full.epoch = Epoch(4);
  full.promised_epoch = Epoch(5);
  full.state = ReplicaState::uptodate;
  full.in_sync = InSync::both;
  full.grow_mark = Epoch(5);
  full.partner_outdated = true;
  full.generation = 0x123456789abcdef0;
  full.generation_history = {3, 2, 1};
  full.boot_id = "11111111-2222-3333-4444-555555555555";
  full.clean = true;
  full.delegation = Epoch(4);
  Record fresh;
  fresh.vm = fresh.vm_id = fresh.node = "x";
  const auto seed = [](std::uint8_t version, const std::string& json) {
    return packed(0, 1) + packed(1234, 2) + packed(version, 1) + packed(9, 8) + json;
  };
  return {seed(1, record_to_json(full)), seed(1, record_to_json(fresh)),
          seed(2, record_to_json(fresh)), seed(0, record_to_json(fresh)),
          packed(0xff, 1) + packed(0, 11) + "short"};
}

}  // namespace havm::fuzz
