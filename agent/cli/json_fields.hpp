// The job of these functions: read fields of havmd's answers, where any may be null or missing
// (unknown, or an older havmd), without complaint. Pure.
#pragma once

#include <optional>
#include <string>

#include <nlohmann/json.hpp>

namespace havm {

// The member, or null.
const nlohmann::json& field(const nlohmann::json& object, const char* key);
// The text of a member; "-" when it is null or missing; a number as text.
std::string text_at(const nlohmann::json& object, const char* key);
bool true_at(const nlohmann::json& object, const char* key);
std::optional<double> number_at(const nlohmann::json& object, const char* key);
// The list, or an empty one.
const nlohmann::json& list_at(const nlohmann::json& object, const char* key);
// "a, b"; "-" for none.
std::string joined_at(const nlohmann::json& object, const char* key);

}  // namespace havm
