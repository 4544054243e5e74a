// The job of Arbiter: what decides between two nodes that cannot hear each other. A durable,
// linearizable compare-and-swap register for each VM, and leases for the owner it names. The one
// place to add an arbiter.
//
// Guarantees every implementation must give
//  AR-1  compare_and_swap is atomic and durable before it answers.
//  AR-2  A lease is granted only to the owner named by the register, at the epoch it names.
//  AR-3  grant_ages says, for each node, when it was last granted a lease for this VM, never too
//  early: what the
//        arbiter does not remember counts as granted at its start.
// All calls end within `deadline`; no answer is Error (its outcome is unknown). One thread.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/awaitable.hpp>

#include "agent/witness/witness_types.hpp"
#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/result.hpp"
#include "vmrepl/base/strong_types.hpp"

namespace havm {

struct ArbiterAnswer {
  std::optional<Register> value;  // nullopt: there is no such register
  bool applied = false;           // compare_and_swap, create, remove
  std::map<std::string, Duration> grant_ages;
};

struct LeaseRequest {
  std::string vm;
  Epoch epoch;
};

class Arbiter {
 public:
  using Deadline = std::chrono::milliseconds;
  virtual ~Arbiter() = default;

  virtual boost::asio::awaitable<Result<ArbiterAnswer>> read(std::string vm, Deadline deadline) = 0;
  virtual boost::asio::awaitable<Result<ArbiterAnswer>> compare_and_swap(std::string vm,
                                                                         Register expect,
                                                                         Register to,
                                                                         Deadline deadline) = 0;
  virtual boost::asio::awaitable<Result<ArbiterAnswer>> create(std::string vm, Register value,
                                                               Deadline deadline) = 0;
  virtual boost::asio::awaitable<Result<ArbiterAnswer>> remove(std::string vm, Register expect,
                                                               Deadline deadline) = 0;
  // Names of the VMs for which a lease was granted to `node`.
  virtual boost::asio::awaitable<Result<std::vector<std::string>>> lease(
      std::string node, std::vector<LeaseRequest> vms, Deadline deadline) = 0;
};

}  // namespace havm
