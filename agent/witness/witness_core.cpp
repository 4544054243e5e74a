#include "agent/witness/witness_core.hpp"

#include <algorithm>
#include <limits>

namespace havm {

std::optional<std::string> name_problem(const std::string& kind, const std::string& name) {
  if (name.empty()) return "the name of the " + kind + " is empty";
  if (name.size() > witness_name_bytes_max)
    return "the name of the " + kind + " is longer than " + std::to_string(witness_name_bytes_max) +
           " bytes";
  const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7f; };
  if (std::ranges::any_of(name, is_control))
    return "the name of the " + kind + " contains a control character";
  return std::nullopt;
}

std::optional<std::string> register_problem(const Register& value) {
  if (value.epoch.value == 0) return "epoch must be at least 1";
  if (value.epoch.value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    return "epoch is too large";
  if (auto problem = name_problem("owner", value.owner)) return problem;
  if (value.in_sync.empty() || value.in_sync.size() > 2) return "in_sync must name 1 or 2 nodes";
  for (const std::string& node : value.in_sync)
    if (auto problem = name_problem("node", node)) return problem;
  if (value.in_sync.size() == 2 && !(value.in_sync[0] < value.in_sync[1]))
    return "in_sync must be sorted and without repetition";
  if (std::ranges::find(value.in_sync, value.owner) == value.in_sync.end())
    return "the owner must be in in_sync";
  return std::nullopt;
}

CreateDecision decide_create(const std::optional<Register>& present, const Register& wanted) {
  if (!present) return CreateDecision::Create;
  return *present == wanted ? CreateDecision::AlreadyEqual : CreateDecision::Conflict;
}

bool cas_applicable(const Register& present, const Register& expect, const Register& to) {
  return present == expect && to.epoch > expect.epoch;
}

std::optional<std::string> lease_refusal(const std::optional<Register>& present,
                                         const std::string& node, Epoch epoch) {
  if (!present) return "there is no such register";
  if (present->owner != node) return "the owner is " + present->owner;
  if (present->epoch != epoch) return "the epoch is " + std::to_string(present->epoch.value);
  return std::nullopt;
}

void GrantLedger::record(const RegisterKey& key, const std::string& node, TimePoint received) {
  auto& last = grants_[key].try_emplace(node, received).first->second;
  last = std::max(last, received);
}

std::map<std::string, Duration> GrantLedger::ages(const RegisterKey& key, TimePoint now) const {
  std::map<std::string, Duration> result;
  const auto of_vm = grants_.find(key);
  if (of_vm == grants_.end()) return result;
  for (const auto& [node, received] : of_vm->second)
    result.emplace(node, std::max(Duration::zero(), now - received));
  return result;
}

std::optional<Duration> GrantLedger::age(const RegisterKey& key, const std::string& node,
                                         TimePoint now) const {
  const auto all = ages(key, now);
  const auto found = all.find(node);
  return found == all.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace havm
