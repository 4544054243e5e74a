#include "agent/policy/policy.hpp"

#include "agent/policy/duration_text.hpp"
#include "agent/policy/json_document.hpp"

namespace havm {
namespace {

using nlohmann::json;

// The word at object[section][key], or the default. Only for documents that passed the schema.
std::string word(const json& document, const char* section, const char* key, const char* fallback) {
  if (!document.contains(section)) return fallback;
  return document.at(section).value(key, std::string(fallback));
}

const char* text_of(FailoverMode mode) {
  return mode == FailoverMode::automatic ? "auto" : "manual";
}
const char* text_of(OnPeerLoss choice) {
  return choice == OnPeerLoss::go_on ? "continue" : "freeze";
}
const char* text_of(OnGuestShutdown choice) {
  return choice == OnGuestShutdown::stay_off ? "stay-off" : "restart";
}

// As the schema wants it: the largest unit that fits.
std::string period_text(std::chrono::milliseconds period) {
  const auto minutes = std::chrono::duration_cast<std::chrono::minutes>(period).count();
  if (minutes % (24 * 60) == 0) return std::to_string(minutes / (24 * 60)) + "d";
  if (minutes % 60 == 0) return std::to_string(minutes / 60) + "h";
  return std::to_string(minutes) + "min";
}

std::string text_of_slow_partner(std::chrono::milliseconds limit) {
  return limit.count() == 0 ? "off" : duration_text(limit);
}

bool read_slow_partner(const json& document, Policy& policy, Findings& findings) {
  const std::string text = word(document, "replication", "slow_partner",
                                text_of_slow_partner(policy.slow_partner).c_str());
  policy.slow_partner = std::chrono::milliseconds(0);
  if (text == "off") return true;
  const auto limit = parse_duration(text);
  if (limit && *limit >= Policy::slow_partner_min && *limit <= Policy::slow_partner_max) {
    policy.slow_partner = *limit;
    return true;
  }
  findings.add("/replication/slow_partner",
               "is not \"off\" and not in " + duration_text(Policy::slow_partner_min) + ".." +
                   duration_text(Policy::slow_partner_max) + "; found \"" + text + "\"");
  return false;
}

}  // namespace

std::optional<Policy> policy_from_json(const json& document, Findings& findings) {
  Findings found;
  check_schema(document, policy_schema, found);
  found.sort();
  findings.add_below("", found);
  if (!found.empty()) return std::nullopt;

  Policy policy;
  if (word(document, "failover", "mode", "auto") == "manual")
    policy.failover_mode = FailoverMode::manual;
  if (word(document, "replication", "on_peer_loss", "continue") == "freeze")
    policy.on_peer_loss = OnPeerLoss::freeze;
  if (word(document, "guest", "on_guest_shutdown", "stay-off") == "restart")
    policy.on_guest_shutdown = OnGuestShutdown::restart;
  if (!read_slow_partner(document, policy, findings)) return std::nullopt;
  if (document.contains("preferred_node") && document.at("preferred_node").is_string())
    policy.preferred_node = document.at("preferred_node").get<std::string>();
  if (document.contains("verify"))
    policy.verify_every = parse_duration(word(document, "verify", "every", ""));
  return policy;
}

std::optional<Policy> parse_policy(const std::string& text, Findings& findings) {
  Findings syntax;
  const json document = parse_document(text, syntax);
  findings.add_below("", syntax);
  if (document.is_null() && !syntax.empty()) return std::nullopt;
  auto policy = policy_from_json(document, findings);
  return syntax.empty() ? policy : std::nullopt;
}

json policy_to_json(const Policy& policy) {
  json document;
  document["version"] = Policy::version;
  document["failover"]["mode"] = text_of(policy.failover_mode);
  document["replication"]["on_peer_loss"] = text_of(policy.on_peer_loss);
  document["replication"]["slow_partner"] = text_of_slow_partner(policy.slow_partner);
  document["guest"]["on_guest_shutdown"] = text_of(policy.on_guest_shutdown);
  document["preferred_node"] = policy.preferred_node ? json(*policy.preferred_node) : json(nullptr);
  if (policy.verify_every) document["verify"]["every"] = period_text(*policy.verify_every);
  return document;
}

}  // namespace havm
