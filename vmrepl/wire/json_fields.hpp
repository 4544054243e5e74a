// The job of JsonFields: read the named fields of one JSON object strictly. Ask for each field; the
// first one that is missing or mistyped is remembered, and outcome() tells it by name, so that a
// decoder is a list of fields and one check at the end. Unknown fields are left alone. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "vmrepl/base/result.hpp"

namespace havm {

class JsonFields {
 public:
  // `what` names the object in errors, for instance "hello". The object outlives this.
  JsonFields(const nlohmann::json& object, std::string what);

  // Each returns a neutral value when the field is not as it should be.
  std::string text(const char* name);
  std::string text_not_empty(const char* name);
  std::uint64_t number(const char* name);  // an integer ≥ 0
  bool flag(const char* name);
  const nlohmann::json& array(const char* name, std::size_t entries_max);
  // Nothing when the field is absent or null.
  std::optional<std::uint64_t> optional_number(const char* name);
  // Absent: `otherwise`.
  bool optional_flag(const char* name, bool otherwise);
  // A 64-bit id in its text form (id_text); JSON numbers beyond 2^53 get lost in other programs.
  std::uint64_t id(const char* name);
  std::optional<std::uint64_t> optional_id(const char* name);  // nothing when absent
  std::vector<std::uint64_t> ids(const char* name, std::size_t entries_max);
  [[nodiscard]] bool has(const char* name) const;

  // One of the spellings that `parse` (std::optional<T>(std::string_view)) knows.
  template <class T>
  T spelling(const char* name, std::optional<T> (*parse)(std::string_view), T neutral) {
    const std::optional<T> value = parse(text(name));
    if (!value) reject(name, "has an unknown value");
    return value.value_or(neutral);
  }

  // Remembers that this field is wrong, unless another was before.
  void reject(const char* name, const char* how);

  [[nodiscard]] Result<void> outcome() const;

 private:
  const nlohmann::json* find(const char* name);

  const nlohmann::json& object_;
  std::string what_;
  std::string problem_;
};

// Parses one JSON object; the Error begins with `what`.
Result<nlohmann::json> parse_json_object(std::string_view text, const std::string& what);

// A 64-bit id as exactly 16 hexadecimal digits, lower case; and a list of them.
std::string id_text(std::uint64_t id);
nlohmann::json id_texts(const std::vector<std::uint64_t>& ids);
std::optional<std::uint64_t> parse_id(std::string_view text);

// One line; bytes that are not UTF-8 are replaced, never thrown about.
std::string dump_json(const nlohmann::json& value);

}  // namespace havm
