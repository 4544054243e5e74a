#include "agent/cli/command_context.hpp"

#include <cctype>
#include <cmath>
#include <cstdlib>

#include "agent/cli/json_fields.hpp"

namespace havm {
namespace {

using nlohmann::json;

bool looks_like_uuid(const std::string& text) {
  if (text.size() != 36) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-' : std::isxdigit(static_cast<unsigned char>(text[i])) == 0)
      return false;
  }
  return true;
}

std::string lower(std::string text) {
  for (char& c : text)
    c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace

std::string CommandContext::get(const std::string& option) const {
  const auto found = options_.find(option);
  return found == options_.end() ? "" : found->second;
}

Result<std::optional<std::chrono::milliseconds>> CommandContext::timeout() const {
  constexpr double max_seconds = 1e7;
  if (!has("timeout")) return std::optional<std::chrono::milliseconds>();
  const std::string text = get("timeout");
  char* end = nullptr;
  const double seconds = std::strtod(text.c_str(), &end);
  const bool number = !text.empty() && *end == '\0' && std::isfinite(seconds);
  if (!number || seconds <= 0 || seconds > max_seconds)
    return Error("Numeric value '" + text + "' for <timeout> option is malformed or out of range");
  return std::optional(std::chrono::milliseconds(std::llround(seconds * 1000)));
}

Result<std::string> CommandContext::domain() {
  const std::string given = get("domain");
  if (given.empty()) return Error("failed to get domain ''");
  if (!looks_like_uuid(given)) return given;
  BOOST_OUTCOME_TRY(const ApiAnswer answer, api_.get({"vms"}));
  for (const json& vm : list_at(answer.body, "vms"))
    if (lower(text_at(vm, "uuid")) == lower(given)) return text_at(vm, "vm");
  return given;  // a domain can be called like this; havmd says so if not
}

Result<json> CommandContext::get_vm(const std::string& vm) {
  BOOST_OUTCOME_TRY(ApiAnswer answer, api_.get({"vms", vm}));
  return std::move(answer.body);
}

void CommandContext::print_json(const json& value) {
  terminal_.print(value.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

}  // namespace havm
