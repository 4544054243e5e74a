// The job of witness_codec: the JSON of docs/protocol/witness.md ↔ structs, for server and client.
// Unknown keys are refused: a misspelt one must not be taken for an absent one. Any thread.
#pragma once

#include <initializer_list>
#include <map>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "agent/witness/witness_types.hpp"
#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

// A register together with what is known of the leases of its VM, at the moment of the answer.
struct WitnessView {
  Register value;
  std::map<std::string, std::optional<Duration>> grant_ages;  // nullopt: none since the start
  Duration uptime{};                                          // of the witness

  WitnessView() = default;
  // How long ago the last grant to `node` was at most given, never too long ago.
  [[nodiscard]] Duration grant_age(const std::string& node) const;
};

nlohmann::json to_json(const Register& value);
nlohmann::json to_json(const WitnessView& view);
Result<Register> register_from_json(const nlohmann::json& json);
// Ignores keys beside those of a view.
Result<WitnessView> view_from_json(const nlohmann::json& json);

// Error unless `json` is an object with exactly these keys.
Result<void> require_keys(const nlohmann::json& json, std::initializer_list<const char*> keys);

}  // namespace havm
