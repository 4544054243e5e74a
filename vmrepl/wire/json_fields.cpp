#include "vmrepl/wire/json_fields.hpp"

#include <utility>

namespace havm {
namespace {

constexpr std::size_t id_digits = 16;
constexpr std::string_view digits = "0123456789abcdef";

}  // namespace

JsonFields::JsonFields(const nlohmann::json& object, std::string what)
    : object_(object), what_(std::move(what)) {
  if (!object_.is_object()) problem_ = what_ + " is not a JSON object";
}

const nlohmann::json* JsonFields::find(const char* name) {
  if (!object_.is_object()) return nullptr;
  const auto it = object_.find(name);
  if (it != object_.end()) return &*it;
  reject(name, "is missing");
  return nullptr;
}

std::string JsonFields::text(const char* name) {
  const nlohmann::json* value = find(name);
  if (value == nullptr) return {};
  if (value->is_string()) return value->get<std::string>();
  reject(name, "is not a string");
  return {};
}

std::string JsonFields::text_not_empty(const char* name) {
  std::string value = text(name);
  if (value.empty()) reject(name, "is empty");
  return value;
}

std::uint64_t JsonFields::number(const char* name) {
  const nlohmann::json* value = find(name);
  if (value == nullptr) return 0;
  if (value->is_number_unsigned()) return value->get<std::uint64_t>();
  reject(name, "is not a whole number from 0");
  return 0;
}

bool JsonFields::flag(const char* name) {
  const nlohmann::json* value = find(name);
  if (value == nullptr) return false;
  if (value->is_boolean()) return value->get<bool>();
  reject(name, "is not true or false");
  return false;
}

const nlohmann::json& JsonFields::array(const char* name, std::size_t entries_max) {
  static const nlohmann::json nothing = nlohmann::json::array();
  const nlohmann::json* value = find(name);
  if (value == nullptr) return nothing;
  if (!value->is_array()) {
    reject(name, "is not an array");
    return nothing;
  }
  if (value->size() > entries_max) {
    reject(name, "has too many entries");
    return nothing;
  }
  return *value;
}

std::optional<std::uint64_t> JsonFields::optional_number(const char* name) {
  if (!object_.is_object()) return std::nullopt;
  const auto it = object_.find(name);
  if (it == object_.end() || it->is_null()) return std::nullopt;
  return number(name);
}

bool JsonFields::has(const char* name) const {
  return object_.is_object() && object_.contains(name);
}

bool JsonFields::optional_flag(const char* name, bool otherwise) {
  return has(name) ? flag(name) : otherwise;
}

std::uint64_t JsonFields::id(const char* name) {
  const nlohmann::json* value = find(name);
  if (value == nullptr) return 0;
  std::optional<std::uint64_t> id;
  if (value->is_string()) id = parse_id(value->get_ref<const std::string&>());
  if (!id) reject(name, "is not a string of 16 hexadecimal digits");
  return id.value_or(0);
}

std::optional<std::uint64_t> JsonFields::optional_id(const char* name) {
  if (!has(name)) return std::nullopt;
  return id(name);
}

std::vector<std::uint64_t> JsonFields::ids(const char* name, std::size_t entries_max) {
  std::vector<std::uint64_t> ids;
  for (const nlohmann::json& entry : array(name, entries_max)) {
    std::optional<std::uint64_t> id;
    if (entry.is_string()) id = parse_id(entry.get_ref<const std::string&>());
    if (!id) {
      reject(name, "is not a list of strings of 16 hexadecimal digits");
      return {};
    }
    ids.push_back(*id);
  }
  return ids;
}

void JsonFields::reject(const char* name, const char* how) {
  if (problem_.empty()) problem_ = what_ + ": field '" + name + "' " + how;
}

Result<void> JsonFields::outcome() const {
  if (!problem_.empty()) return Error(problem_, EINVAL);
  return success();
}

Result<nlohmann::json> parse_json_object(std::string_view text, const std::string& what) {
  nlohmann::json value = nlohmann::json::parse(text, nullptr, false);
  if (value.is_discarded()) return Error(what + " is not valid JSON", EINVAL);
  if (!value.is_object()) return Error(what + " is not a JSON object", EINVAL);
  return value;
}

std::string id_text(std::uint64_t id) {
  std::string text(id_digits, '0');
  for (auto digit = text.rbegin(); id != 0; ++digit, id >>= 4U)
    *digit = digits[id & 15U];
  return text;
}

nlohmann::json id_texts(const std::vector<std::uint64_t>& ids) {
  nlohmann::json texts = nlohmann::json::array();
  for (const std::uint64_t id : ids)
    texts.push_back(id_text(id));
  return texts;
}

std::optional<std::uint64_t> parse_id(std::string_view text) {
  if (text.size() != id_digits) return std::nullopt;
  std::uint64_t id = 0;
  for (const char c : text) {
    const std::size_t digit = digits.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    id = (id << 4U) | digit;
  }
  return id;
}

std::string dump_json(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace havm
