#include "agent/liveness/heartbeat_codec.hpp"

#include <nlohmann/json.hpp>

namespace havm {
namespace {

using Json = nlohmann::json;

// Null when the field is missing or no text.
const std::string* text(const Json& object, const char* name) {
  const auto field = object.find(name);
  return field == object.end() ? nullptr : field->get_ptr<const std::string*>();
}

}  // namespace

std::string encode_heartbeat(const Heartbeat& heartbeat) {
  Json json;
  json["cluster"] = heartbeat.cluster;
  json["node"] = heartbeat.node;
  json["boot"] = heartbeat.boot_id;
  json["counter"] = heartbeat.counter;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::optional<Heartbeat> decode_heartbeat(std::string_view datagram) {
  if (datagram.size() > heartbeat_bytes_max) return std::nullopt;
  const Json json = Json::parse(datagram, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  const std::string* cluster = text(json, "cluster");
  const std::string* node = text(json, "node");
  const std::string* boot_id = text(json, "boot");
  const auto counter = json.find("counter");
  if (cluster == nullptr || node == nullptr || boot_id == nullptr || boot_id->empty() ||
      counter == json.end() || !counter->is_number_unsigned())
    return std::nullopt;
  return Heartbeat{*cluster, *node, *boot_id, counter->get<std::uint64_t>()};
}

}  // namespace havm
