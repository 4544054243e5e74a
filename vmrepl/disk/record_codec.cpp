#include "vmrepl/disk/record_codec.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "vmrepl/wire/big_endian.hpp"
#include "vmrepl/wire/crc32c.hpp"
#include "vmrepl/wire/json_fields.hpp"

namespace havm {
namespace {

using nlohmann::json;

constexpr std::size_t version_at = 8;
constexpr std::size_t length_at = 12;
constexpr std::size_t sequence_at = 16;
constexpr std::size_t crc_at = 24;
constexpr std::size_t payload_bytes_max = record_slot_bytes - record_slot_header_bytes;
constexpr std::size_t record_disks_max = 256;

json to_json(const std::optional<Epoch>& epoch) {
  return epoch ? json(epoch->value) : json();
}

std::optional<Epoch> epoch_of(const std::optional<std::uint64_t>& number) {
  if (!number) return std::nullopt;
  return Epoch(*number);
}

// Of the header before the CRC and of the payload after it: all that a slot says.
std::uint32_t crc_of(std::span<const std::byte> slot, std::size_t payload_length) {
  const std::uint32_t head = crc32c(slot.first(crc_at));
  return crc32c(slot.subspan(record_slot_header_bytes, payload_length), head);
}

void read_generations(JsonFields& fields, Record& record) {
  record.generation = fields.id("generation");
  record.generation_history = fields.ids("generation_history", generation_history_max);
  record.base_generation = fields.id("base_generation");
  record.generation_shared = fields.flag("generation_shared");
  record.owner_epoch = Epoch(fields.number("owner_epoch"));
  record.lack_epoch = Epoch(fields.number("lack_epoch"));
  record.damaged = fields.flag("damaged");
}

// Version 1 had generations as JSON numbers and knew nothing of the rest: unknown is the careful
// value, and leads to a full resync.
void read_generations_1(JsonFields& fields, Record& record) {
  record.generation = fields.number("generation");
  for (const json& entry : fields.array("generation_history", generation_history_max)) {
    if (!entry.is_number_unsigned())
      fields.reject("generation_history", "is not of whole numbers");
    else
      record.generation_history.push_back(entry.get<std::uint64_t>());
  }
  record.owner_epoch = record.epoch;
}

Result<void> check_invariants(const Record& record) {
  if (record.promised_epoch < record.epoch)
    return Error("record of VM " + record.vm + ": promised_epoch is lower than epoch", EINVAL);
  if (record.generation_history.size() > generation_history_max)
    return Error("record of VM " + record.vm + ": the generation history is too long", EINVAL);
  if (std::ranges::count(record.generation_history, std::uint64_t{0}) != 0)
    return Error("record of VM " + record.vm + ": generation 0 is in the history", EINVAL);
  if (record.base_generation != 0 && record.generation == 0)
    return Error("record of VM " + record.vm + ": base_generation without a generation", EINVAL);
  return success();
}

}  // namespace

const char* to_text(SlotFault fault) {
  switch (fault) {
    case SlotFault::short_slot:
      return "is cut short";
    case SlotFault::empty:
      return "was never written";
    case SlotFault::wrong_magic:
      return "is not a record";
    case SlotFault::wrong_crc:
      return "is torn or damaged";
    case SlotFault::newer_format:
      return "was written by a later version of havm";
    case SlotFault::wrong_contents:
      return "is intact but its contents are not a record";
  }
  return "has an unknown fault";
}

std::string record_to_json(const Record& record) {
  json disks = json::array();
  for (const DiskIdentity& disk : record.disks)
    disks.push_back({{"name", disk.name}, {"size", disk.size_bytes}});
  return dump_json({{"version", record_version},
                    {"vm", record.vm},
                    {"vm_id", record.vm_id},
                    {"node", record.node},
                    {"disks", std::move(disks)},
                    {"epoch", record.epoch.value},
                    {"promised_epoch", record.promised_epoch.value},
                    {"state", to_text(record.state)},
                    {"in_sync", to_text(record.in_sync)},
                    {"grow_mark", to_json(record.grow_mark)},
                    {"partner_outdated", record.partner_outdated},
                    {"generation", id_text(record.generation)},
                    {"generation_history", id_texts(record.generation_history)},
                    {"base_generation", id_text(record.base_generation)},
                    {"generation_shared", record.generation_shared},
                    {"owner_epoch", record.owner_epoch.value},
                    {"lack_epoch", record.lack_epoch.value},
                    {"damaged", record.damaged},
                    {"boot_id", record.boot_id},
                    {"clean", record.clean},
                    {"delegation", to_json(record.delegation)}});
}

Result<Record> record_from_json(std::string_view text) {
  BOOST_OUTCOME_TRY(const json object, parse_json_object(text, "record"));
  JsonFields fields(object, "record");
  const std::uint64_t version = fields.number("version");
  if (version == 0 || version > record_version) fields.reject("version", "is not known");
  Record record;
  record.vm = fields.text_not_empty("vm");
  record.vm_id = fields.text_not_empty("vm_id");
  record.node = fields.text_not_empty("node");
  for (const json& entry : fields.array("disks", record_disks_max)) {
    JsonFields disk(entry, "record: disk " + std::to_string(record.disks.size()));
    DiskIdentity identity{disk.text_not_empty("name"), disk.number("size")};
    BOOST_OUTCOME_TRY(disk.outcome());
    record.disks.push_back(std::move(identity));
  }
  record.epoch = Epoch(fields.number("epoch"));
  record.promised_epoch = Epoch(fields.number("promised_epoch"));
  record.state = fields.spelling("state", parse_replica_state, ReplicaState::inconsistent);
  record.in_sync = fields.spelling("in_sync", parse_in_sync, InSync::none);
  record.grow_mark = epoch_of(fields.optional_number("grow_mark"));
  record.partner_outdated = fields.flag("partner_outdated");
  if (version == 1)
    read_generations_1(fields, record);
  else
    read_generations(fields, record);
  record.boot_id = fields.text("boot_id");
  record.clean = fields.flag("clean");
  record.delegation = epoch_of(fields.optional_number("delegation"));
  BOOST_OUTCOME_TRY(fields.outcome());
  BOOST_OUTCOME_TRY(check_invariants(record));
  return record;
}

Result<std::vector<std::byte>> encode_slot(const Record& record, std::uint64_t slot_sequence) {
  const std::string payload = record_to_json(record);
  if (payload.size() > payload_bytes_max)
    return Error("the record of VM " + record.vm + " does not fit into " +
                     std::to_string(payload_bytes_max) + " bytes: it has too many disks",
                 E2BIG);
  // What could not be read again must not be written.
  BOOST_OUTCOME_TRY(record_from_json(payload));
  std::vector<std::byte> slot(record_slot_bytes);
  store_be(slot.data(), record_magic);
  store_be(slot.data() + version_at, record_version);
  store_be(slot.data() + length_at, static_cast<std::uint32_t>(payload.size()));
  store_be(slot.data() + sequence_at, slot_sequence);
  std::memcpy(slot.data() + record_slot_header_bytes, payload.data(), payload.size());
  store_be(slot.data() + crc_at, crc_of(slot, payload.size()));
  return slot;
}

std::variant<DecodedSlot, SlotFault> decode_slot(std::span<const std::byte> slot) {
  if (slot.size() < record_slot_bytes) return SlotFault::short_slot;
  slot = slot.first(record_slot_bytes);
  if (std::ranges::all_of(slot, [](std::byte b) { return b == std::byte{0}; }))
    return SlotFault::empty;
  if (load_be<std::uint64_t>(slot.data()) != record_magic) return SlotFault::wrong_magic;
  const auto length = load_be<std::uint32_t>(slot.data() + length_at);
  if (length > payload_bytes_max) return SlotFault::wrong_crc;
  if (load_be<std::uint32_t>(slot.data() + crc_at) != crc_of(slot, length))
    return SlotFault::wrong_crc;
  const auto version = load_be<std::uint32_t>(slot.data() + version_at);
  if (version > record_version) return SlotFault::newer_format;
  if (version == 0) return SlotFault::wrong_contents;
  const std::span<const std::byte> payload = slot.subspan(record_slot_header_bytes, length);
  Result<Record> record =
      record_from_json({reinterpret_cast<const char*>(payload.data()), payload.size()});
  if (!record) return SlotFault::wrong_contents;
  return DecodedSlot{load_be<std::uint64_t>(slot.data() + sequence_at), std::move(record).value()};
}

Result<ChosenSlot> choose_slot(std::span<const std::byte> file) {
  std::optional<ChosenSlot> best;
  std::string faults;
  bool damaged = false;
  for (unsigned i = 0; i < record_slots; ++i) {
    auto decoded = decode_slot(file.subspan(i * record_slot_bytes, record_slot_bytes));
    if (const auto* fault = std::get_if<SlotFault>(&decoded)) {
      faults += (faults.empty() ? "slot " : ", slot ") + std::to_string(i) + " " + to_text(*fault);
      // An intact slot that cannot be understood may be the newest truth: never pass over it.
      if (*fault == SlotFault::newer_format || *fault == SlotFault::wrong_contents)
        return Error("cannot be used: " + faults, EINVAL);
      damaged = true;
      continue;
    }
    auto& slot = std::get<DecodedSlot>(decoded);
    if (!best || slot.slot_sequence > best->decoded.slot_sequence)
      best = ChosenSlot{std::move(slot), i, false};
  }
  if (!best)
    return Error("cannot be used: " + faults +
                     "; restore the file or make this replica anew from its partner",
                 EILSEQ);
  best->other_damaged = damaged;
  return std::move(*best);
}

}  // namespace havm
