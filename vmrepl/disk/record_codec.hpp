// The job of record_codec: one slot of the record file, bytes ↔ Record (docs/protocol/on-disk.md).
// No I/O, clock or log.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "vmrepl/base/result.hpp"
#include "vmrepl/disk/record_types.hpp"

namespace havm {

constexpr std::uint64_t record_magic = 0x4841564d52454331;  // "HAVMREC1"
constexpr std::size_t record_slot_bytes = 8192;
constexpr std::size_t record_slots = 2;
constexpr std::size_t record_file_bytes = record_slot_bytes * record_slots;
constexpr std::size_t record_slot_header_bytes = 64;

// Why a slot holds no usable record.
enum class SlotFault : std::uint8_t {
  short_slot,      // fewer bytes than a slot
  empty,           // all zero: never written
  wrong_magic,     // not a slot, or damaged
  wrong_crc,       // torn or damaged
  newer_format,    // intact, but written by a later version of havm
  wrong_contents,  // intact, but not a record (a bug, or made by hand)
};
const char* to_text(SlotFault fault);

struct DecodedSlot {
  std::uint64_t slot_sequence = 0;
  Record record;
};

std::string record_to_json(const Record& record);
// Strict: the Error names the field that is missing, mistyped or impossible.
Result<Record> record_from_json(std::string_view json);

// Exactly record_slot_bytes. Fails when the record does not fit (E2BIG) or breaks its own
// invariants.
Result<std::vector<std::byte>> encode_slot(const Record& record, std::uint64_t slot_sequence);

std::variant<DecodedSlot, SlotFault> decode_slot(std::span<const std::byte> slot);

// Which slot of a record file counts: the newest intact one.
struct ChosenSlot {
  DecodedSlot decoded;
  unsigned slot = 0;
  bool other_damaged = false;
};
// Of record_file_bytes. The Error, to follow "the record PATH ", says why there is none.
Result<ChosenSlot> choose_slot(std::span<const std::byte> file);

}  // namespace havm
