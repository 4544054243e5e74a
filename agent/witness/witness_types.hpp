// The job of these types: what the witness keeps for each VM of each cluster, and what makes a
// value of it valid (docs/protocol/witness.md). Data only; any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "vmrepl/base/strong_types.hpp"

namespace havm {

constexpr std::size_t witness_name_bytes_max = 128;

// Who may run a VM and which replicas hold every completed write.
struct Register {
  Epoch epoch;
  std::string owner;
  std::vector<std::string> in_sync;  // 1 or 2 nodes, sorted, the owner among them

  Register() = default;
  Register(Epoch epoch_, std::string owner_, std::vector<std::string> in_sync_)
      : epoch(epoch_), owner(std::move(owner_)), in_sync(std::move(in_sync_)) {}
  bool operator==(const Register&) const = default;
};

// One VM of one cluster.
struct RegisterKey {
  std::string cluster;
  std::string vm;

  RegisterKey() = default;
  RegisterKey(std::string cluster_, std::string vm_)
      : cluster(std::move(cluster_)), vm(std::move(vm_)) {}
  auto operator<=>(const RegisterKey&) const = default;
};

// A sentence that says what is wrong, or nothing.
std::optional<std::string> register_problem(const Register& value);
std::optional<std::string> name_problem(const std::string& kind, const std::string& name);

}  // namespace havm
