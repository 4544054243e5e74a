#include "vmrepl/wire/repl_messages.hpp"

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

std::string encode(const Hello& message) {
  json disks = json::array();
  for (const DiskIdentity& disk : message.disks)
    disks.push_back({{"name", disk.name}, {"size", disk.size_bytes}});
  return dump_json({{"vm", message.vm},
                    {"vm_id", message.vm_id},
                    {"node", message.node},
                    {"boot_id", message.boot_id},
                    {"epoch", message.epoch.value},
                    {"session", message.session.value},
                    {"lease_ms", message.lease.count()},
                    {"disks", std::move(disks)},
                    {"engine_version", message.engine_version}});
}

std::string encode(const HelloOk& message) {
  return dump_json({{"node", message.node},
                    {"boot_id", message.boot_id},
                    {"state", to_text(message.state)},
                    {"promised_epoch", message.promised_epoch.value},
                    {"record_epoch", message.record_epoch.value},
                    {"suspect", message.suspect}});
}

std::string encode(const HelloRefused& message) {
  return dump_json(
      {{"reason", shortened(message.reason)}, {"promised_epoch", message.promised_epoch.value}});
}

std::string encode(const EpochMessage& message) {
  return dump_json({{"in_sync", to_text(message.in_sync)}});
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

Result<Bye> decode_bye(std::string_view text) {
  BOOST_OUTCOME_TRY(const json object, parse_json_object(text, "bye"));
  JsonFields fields(object, "bye");
  Bye message;
  message.reason = shortened(fields.text("reason"));
  BOOST_OUTCOME_TRY(fields.outcome());
  return message;
}

}  // namespace havm
