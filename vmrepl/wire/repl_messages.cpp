#include "vmrepl/wire/repl_messages.hpp"

#include "vmrepl/base/assert.hpp"
#include "vmrepl/wire/big_endian.hpp"
#include "vmrepl/wire/json_fields.hpp"

namespace havm {
namespace {

using nlohmann::json;

// A lease longer than this is a mistake, not a wish; it also keeps later arithmetic far from
// overflow.
constexpr std::chrono::milliseconds lease_max = std::chrono::hours(1);

std::chrono::milliseconds lease_of(JsonFields& fields) {
  const std::uint64_t ms = fields.number("lease_ms");
  if (ms <= static_cast<std::uint64_t>(lease_max.count()))
    return std::chrono::milliseconds(static_cast<std::int64_t>(ms));
  fields.reject("lease_ms", "is longer than an hour");
  return {};
}

constexpr std::size_t range_bytes = 16;

json history_to_json(const ReplicaHistory& from) {
  return {{"generation", id_text(from.generation)},
          {"base_generation", id_text(from.base_generation)},
          {"history", id_texts(from.history)},
          {"generation_shared", from.generation_shared},
          {"owner_epoch", from.owner_epoch.value},
          {"lack_epoch", from.lack_epoch.value},
          {"damaged", from.damaged},
          {"dirty_known", from.dirty_known}};
}

void read_history(JsonFields& fields, ReplicaHistory& into) {
  into.generation = fields.optional_id("generation").value_or(into.generation);
  into.base_generation = fields.optional_id("base_generation").value_or(into.base_generation);
  if (fields.has("history")) into.history = fields.ids("history", history_max);
  into.generation_shared = fields.optional_flag("generation_shared", into.generation_shared);
  into.owner_epoch = Epoch(fields.optional_number("owner_epoch").value_or(0));
  into.lack_epoch = Epoch(fields.optional_number("lack_epoch").value_or(0));
  into.damaged = fields.optional_flag("damaged", into.damaged);
  into.dirty_known = fields.optional_flag("dirty_known", into.dirty_known);
}

std::uint64_t protocol_of(JsonFields& fields) {
  return fields.optional_number("protocol").value_or(protocol_before_generations);
}

std::optional<SyncMode> parse_sync_mode(std::string_view text) {
  for (const auto mode : {SyncMode::partial, SyncMode::full})
    if (text == to_text(mode)) return mode;
  return std::nullopt;
}

std::string shortened(std::string reason) {
  if (reason.size() <= reason_bytes_max) return reason;
  const std::string ellipsis = "…";
  std::size_t end = reason_bytes_max - ellipsis.size();
  // Not in the middle of a character.
  while (end > 0 && (static_cast<unsigned char>(reason[end]) & 0xC0U) == 0x80U)
    --end;
  reason.resize(end);
  return reason + ellipsis;
}

}  // namespace

const char* to_text(SyncMode mode) {
  switch (mode) {
    case SyncMode::partial:
      return "partial";
    case SyncMode::full:
      return "full";
    case SyncMode::refuse:
      return "refuse";
  }
  return "unknown";
}

std::string encode(const Hello& message) {
  json disks = json::array();
  for (const DiskIdentity& disk : message.disks)
    disks.push_back({{"name", disk.name}, {"size", disk.size_bytes}});
  json object = history_to_json(message);
  object.update({{"vm", message.vm},
                 {"vm_id", message.vm_id},
                 {"node", message.node},
                 {"boot_id", message.boot_id},
                 {"epoch", message.epoch.value},
                 {"session", message.session.value},
                 {"lease_ms", message.lease.count()},
                 {"disks", std::move(disks)},
                 {"engine_version", message.engine_version},
                 {"protocol", message.protocol}});
  return dump_json(object);
}

std::string encode(const HelloOk& message) {
  json object = history_to_json(message);
  object.update({{"node", message.node},
                 {"boot_id", message.boot_id},
                 {"state", to_text(message.state)},
                 {"promised_epoch", message.promised_epoch.value},
                 {"record_epoch", message.record_epoch.value},
                 {"suspect", message.suspect},
                 {"protocol", message.protocol}});
  return dump_json(object);
}

std::string encode(const HelloRefused& message) {
  return dump_json(
      {{"reason", shortened(message.reason)}, {"promised_epoch", message.promised_epoch.value}});
}

std::string encode(const EpochMessage& message) {
  return dump_json({{"in_sync", to_text(message.in_sync)}});
}

std::string encode(const SyncBegin& message) {
  HAVM_ASSERT(message.mode != SyncMode::refuse, "a refused resync does not begin");
  return dump_json({{"mode", to_text(message.mode)}, {"generation", id_text(message.generation)}});
}

std::string encode(const SyncEnd& message) {
  return dump_json(
      {{"generation", id_text(message.generation)}, {"history", id_texts(message.history)}});
}

std::string encode(const Bye& message) {
  return dump_json({{"reason", shortened(message.reason)}});
}

Result<Hello> decode_hello(std::string_view text) {
  BOOST_OUTCOME_TRY(const json object, parse_json_object(text, "hello"));
  JsonFields fields(object, "hello");
  Hello message;
  message.vm = fields.text_not_empty("vm");
  message.vm_id = fields.text_not_empty("vm_id");
  message.node = fields.text_not_empty("node");
  message.boot_id = fields.text_not_empty("boot_id");
  message.epoch = Epoch(fields.number("epoch"));
  message.session = SessionId(fields.number("session"));
  message.lease = lease_of(fields);
  for (const json& entry : fields.array("disks", hello_disks_max)) {
    JsonFields disk(entry, "hello: disk " + std::to_string(message.disks.size()));
    DiskIdentity identity{disk.text_not_empty("name"), disk.number("size")};
    BOOST_OUTCOME_TRY(disk.outcome());
    message.disks.push_back(std::move(identity));
  }
  message.engine_version = fields.text("engine_version");
  message.protocol = protocol_of(fields);
  read_history(fields, message);
  BOOST_OUTCOME_TRY(fields.outcome());
  return message;
}

Result<HelloOk> decode_hello_ok(std::string_view text) {
  BOOST_OUTCOME_TRY(const json object, parse_json_object(text, "hello_ok"));
  JsonFields fields(object, "hello_ok");
  HelloOk message;
  message.node = fields.text_not_empty("node");
  message.boot_id = fields.text_not_empty("boot_id");
  message.state = fields.spelling("state", parse_replica_state, ReplicaState::inconsistent);
  message.promised_epoch = Epoch(fields.number("promised_epoch"));
  message.record_epoch = Epoch(fields.number("record_epoch"));
  message.suspect = fields.flag("suspect");
  message.protocol = protocol_of(fields);
  read_history(fields, message);
  BOOST_OUTCOME_TRY(fields.outcome());
  return message;
}

Result<HelloRefused> decode_hello_refused(std::string_view text) {
  BOOST_OUTCOME_TRY(const json object, parse_json_object(text, "hello_refused"));
  JsonFields fields(object, "hello_refused");
  HelloRefused message;
  message.reason = shortened(fields.text("reason"));
  message.promised_epoch = Epoch(fields.number("promised_epoch"));
  BOOST_OUTCOME_TRY(fields.outcome());
  return message;
}

Result<EpochMessage> decode_epoch_message(std::string_view text) {
  BOOST_OUTCOME_TRY(const json object, parse_json_object(text, "epoch"));
  JsonFields fields(object, "epoch");
  EpochMessage message;
  message.in_sync = fields.spelling("in_sync", parse_in_sync, InSync::none);
  BOOST_OUTCOME_TRY(fields.outcome());
  return message;
}

Result<SyncBegin> decode_sync_begin(std::string_view text) {
  if (text.empty()) return SyncBegin{};
  BOOST_OUTCOME_TRY(const json object, parse_json_object(text, "sync_begin"));
  JsonFields fields(object, "sync_begin");
  SyncBegin message;
  message.mode = fields.spelling("mode", parse_sync_mode, SyncMode::full);
  message.generation = fields.id("generation");
  BOOST_OUTCOME_TRY(fields.outcome());
  return message;
}

Result<SyncEnd> decode_sync_end(std::string_view text) {
  if (text.empty()) return SyncEnd{};
  BOOST_OUTCOME_TRY(const json object, parse_json_object(text, "sync_end"));
  JsonFields fields(object, "sync_end");
  SyncEnd message;
  message.generation = fields.id("generation");
  message.history = fields.ids("history", history_max);
  BOOST_OUTCOME_TRY(fields.outcome());
  return message;
}

std::vector<std::byte> encode_ranges(std::span<const ByteRange> ranges) {
  HAVM_ASSERT(!ranges.empty() && ranges.size() <= ranges_max, "a frame of ranges has a bound");
  std::vector<std::byte> payload(ranges.size() * range_bytes);
  std::byte* at = payload.data();
  for (const ByteRange& range : ranges) {
    HAVM_ASSERT(range.length != 0, "an empty range says nothing");
    store_be(at, range.offset);
    store_be(at + 8, range.length);
    at += range_bytes;
  }
  return payload;
}

Result<std::vector<ByteRange>> decode_ranges(std::span<const std::byte> payload,
                                             std::uint64_t disk_size_bytes) {
  const std::size_t count = payload.size() / range_bytes;
  if (count == 0 || count > ranges_max || payload.size() % range_bytes != 0)
    return Error("sync_dirty: a payload of " + std::to_string(payload.size()) +
                     " bytes is not a list of ranges",
                 EINVAL);
  std::vector<ByteRange> ranges;
  ranges.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const ByteRange range{load_be<std::uint64_t>(payload.data() + i * range_bytes),
                          load_be<std::uint64_t>(payload.data() + i * range_bytes + 8)};
    const bool inside = range.length != 0 && range.offset <= disk_size_bytes &&
                        range.length <= disk_size_bytes - range.offset;
    if (!inside)
      return Error("sync_dirty: range " + std::to_string(i) + " (" + std::to_string(range.length) +
                       " bytes at " + std::to_string(range.offset) +
                       ") is empty or beyond the end of the disk",
                   EINVAL);
    ranges.push_back(range);
  }
  return ranges;
}

Result<Bye> decode_bye(std::string_view text) {
  BOOST_OUTCOME_TRY(const json object, parse_json_object(text, "bye"));
  JsonFields fields(object, "bye");
  Bye message;
  message.reason = shortened(fields.text("reason"));
  BOOST_OUTCOME_TRY(fields.outcome());
  return message;
}

}  // namespace havm
