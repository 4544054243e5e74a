// The job of Policy: what the administrator wants havm to do with one VM when something happens,
// read from JSON (conf/policy.example.json, conf/schema/policy-1.json). A missing key means its
// default here. Data and text; any thread.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "agent/policy/findings.hpp"

namespace havm {

enum class FailoverMode { automatic, manual };
enum class OnPeerLoss { go_on, freeze };  // "continue": one replica is enough to go on
enum class OnGuestShutdown { stay_off, restart };

struct Policy {
  static constexpr int version = 1;
  FailoverMode failover_mode = FailoverMode::automatic;
  OnPeerLoss on_peer_loss = OnPeerLoss::go_on;
  OnGuestShutdown on_guest_shutdown = OnGuestShutdown::stay_off;
  std::optional<std::string> preferred_node;
  std::optional<std::chrono::milliseconds> verify_every;  // nothing: only when asked
  // A partner whose answers take longer, for a while, is left; zero: it is waited for ("off").
  static constexpr std::chrono::milliseconds slow_partner_min{50};
  static constexpr std::chrono::milliseconds slow_partner_max{20'000};
  std::chrono::milliseconds slow_partner{2'000};
  bool operator==(const Policy&) const = default;
};

// Every mistake becomes a finding; nullopt when there is one.
std::optional<Policy> parse_policy(const std::string& text, Findings& findings);
std::optional<Policy> policy_from_json(const nlohmann::json& document, Findings& findings);

// With every key, also those that have their default; but "verify" only where it is set, so that an
// agent of before it can read the rest.
nlohmann::json policy_to_json(const Policy& policy);

}  // namespace havm
