// The job of witness_core: the decisions of the witness, without its store, its clock and its
// network. Guarantees:
//  W1  a swap is applied only to exactly the expected value, and only upwards in epochs;
//  W2  a lease is granted only to the owner that the register names, at exactly its epoch;
//  W3  an age of a grant is never larger than the time since that grant (a reader waits by it).
// Pure: time arrives as an argument. One thread.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "agent/witness/witness_types.hpp"
#include "vmrepl/base/clock.hpp"

namespace havm {

enum class CreateDecision { Create, AlreadyEqual, Conflict };

CreateDecision decide_create(const std::optional<Register>& present, const Register& wanted);
bool cas_applicable(const Register& present, const Register& expect, const Register& to);
// Why `node` gets no lease at `epoch`; nothing when it is granted.
std::optional<std::string> lease_refusal(const std::optional<Register>& present,
                                         const std::string& node, Epoch epoch);

// The last grant to each node for each VM since the start; in memory only.
class GrantLedger {
 public:
  void record(const RegisterKey& key, const std::string& node, TimePoint received);
  [[nodiscard]] std::optional<Duration> age(const RegisterKey& key, const std::string& node,
                                            TimePoint now) const;
  // Every node that got a grant for this VM since the start.
  [[nodiscard]] std::map<std::string, Duration> ages(const RegisterKey& key, TimePoint now) const;

 private:
  std::map<RegisterKey, std::map<std::string, TimePoint>> grants_;
};

}  // namespace havm
