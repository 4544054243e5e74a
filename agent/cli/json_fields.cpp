#include "agent/cli/json_fields.hpp"

namespace havm {

using nlohmann::json;

const json& field(const json& object, const char* key) {
  static const json absent;
  if (!object.is_object()) return absent;
  const auto found = object.find(key);
  return found == object.end() ? absent : *found;
}

std::string text_at(const json& object, const char* key) {
  const json& value = field(object, key);
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number()) return value.dump();
  return "-";
}

bool true_at(const json& object, const char* key) {
  const json& value = field(object, key);
  return value.is_boolean() && value.get<bool>();
}

std::optional<double> number_at(const json& object, const char* key) {
  const json& value = field(object, key);
  if (!value.is_number()) return std::nullopt;
  return value.get<double>();
}

const json& list_at(const json& object, const char* key) {
  static const json empty = json::array();
  const json& value = field(object, key);
  return value.is_array() ? value : empty;
}

std::string joined_at(const json& object, const char* key) {
  std::string out;
  for (const json& item : list_at(object, key)) {
    if (!item.is_string()) continue;
    out += (out.empty() ? "" : ", ") + item.get<std::string>();
  }
  return out.empty() ? "-" : out;
}

}  // namespace havm
