#include "agent/witness/witness_codec.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace havm {
namespace {

constexpr std::uint64_t time_ms_max = std::uint64_t{1}
                                      << 40;  // as nanoseconds it fits into Duration

}  // namespace

Duration WitnessView::grant_age(const std::string& node) const {
  const auto found = grant_ages.find(node);
  return found != grant_ages.end() && found->second ? *found->second : uptime;
}

nlohmann::json to_json(const Register& value) {
  nlohmann::json json = nlohmann::json::object();
  json["epoch"] = value.epoch.value;
  json["owner"] = value.owner;
  json["in_sync"] = value.in_sync;
  return json;
}

nlohmann::json to_json(const WitnessView& view) {
  nlohmann::json json = nlohmann::json::object();
  json["register"] = to_json(view.value);
  json["grant_ages_ms"] = nlohmann::json::object();
  for (const auto& [node, age] : view.grant_ages)
    json["grant_ages_ms"][node] = age ? nlohmann::json(to_ms(*age)) : nlohmann::json();
  json["uptime_ms"] = to_ms(view.uptime);
  return json;
}

Result<void> require_keys(const nlohmann::json& json, std::initializer_list<const char*> keys) {
  if (!json.is_object()) return Error("a JSON object is expected", EINVAL);
  for (const char* key : keys)
    if (!json.contains(key)) return Error(std::string("'") + key + "' is missing", EINVAL);
  for (const auto& member : json.items()) {
    const auto same = [&member](const char* known) { return member.key() == known; };
    if (std::none_of(keys.begin(), keys.end(), same))
      return Error("unknown key '" + member.key() + "'", EINVAL);
  }
  return success();
}

Result<Register> register_from_json(const nlohmann::json& json) {
  BOOST_OUTCOME_TRY(require_keys(json, {"epoch", "owner", "in_sync"}));
  if (!json["epoch"].is_number_unsigned()) return Error("epoch must be a whole number", EINVAL);
  if (!json["owner"].is_string()) return Error("owner must be a string", EINVAL);
  if (!json["in_sync"].is_array()) return Error("in_sync must be a list", EINVAL);
  Register value;
  value.epoch = Epoch(json["epoch"].get<std::uint64_t>());
  value.owner = json["owner"].get<std::string>();
  for (const nlohmann::json& node : json["in_sync"]) {
    if (!node.is_string()) return Error("in_sync must be a list of strings", EINVAL);
    value.in_sync.push_back(node.get<std::string>());
  }
  if (const auto problem = register_problem(value)) return Error(*problem, EINVAL);
  return value;
}

Result<WitnessView> view_from_json(const nlohmann::json& json) {
  const bool complete = json.is_object() && json.contains("register") &&
                        json.contains("grant_ages_ms") && json["grant_ages_ms"].is_object() &&
                        json.contains("uptime_ms") && json["uptime_ms"].is_number_unsigned();
  if (!complete) return Error("the answer is not a view of a register", EBADMSG);
  const auto uptime_ms = json["uptime_ms"].get<std::uint64_t>();
  if (uptime_ms > time_ms_max) return Error("the uptime of the witness is absurd", EBADMSG);
  WitnessView view;
  BOOST_OUTCOME_TRY(view.value, register_from_json(json["register"]));
  view.uptime = std::chrono::milliseconds(uptime_ms);
  for (const auto& [node, age] : json["grant_ages_ms"].items()) {
    const bool valid = age.is_null() || (age.is_number_unsigned() && age <= time_ms_max);
    if (!valid) return Error("the age of a grant is not a number of milliseconds", EBADMSG);
    auto& slot = view.grant_ages[node];
    if (!age.is_null()) slot = std::chrono::milliseconds(age.get<std::int64_t>());
  }
  return view;
}

}  // namespace havm
