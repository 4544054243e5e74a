// The job of WitnessClient: the requests of docs/protocol/witness.md, typed, for the agent.
// An Error means that no usable answer came. For a request that changes something its outcome is
// then unknown, and it may still arrive later: only a read that shows a greater epoch settles it.
// Exception: code EINVAL says that the witness refused the request as malformed, so nothing was
// changed. Leases have a connection of their own, so that no slow write delays them. One thread.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "agent/control/http.hpp"
#include "agent/witness/witness_codec.hpp"

namespace havm {

// Of cas, create and remove.
struct WitnessChange {
  bool applied = false;                // create: also when the same value was there already
  std::optional<WitnessView> present;  // as it is now; nullopt: there is no such register

  WitnessChange() = default;
};

struct WitnessLease {
  std::string vm;
  Epoch epoch;

  WitnessLease() = default;
  WitnessLease(std::string vm_, Epoch epoch_) : vm(std::move(vm_)), epoch(epoch_) {}
};

struct WitnessGrants {
  TimePoint sent{};                            // when they were requested: they count from here
  std::set<std::string> granted;               // VMs
  std::map<std::string, std::string> refused;  // VM → reason

  WitnessGrants() = default;
};

class WitnessClient {
 public:
  using Milliseconds = std::chrono::milliseconds;
  template <class T>
  using Answer = boost::asio::awaitable<Result<T>>;

  WitnessClient(boost::asio::any_io_executor executor, std::string cluster,
                const HttpEndpoint& endpoint);

  // nullopt: there is no such register.
  Answer<std::optional<WitnessView>> read(std::string vm, Milliseconds deadline);
  Answer<std::map<std::string, WitnessView>> list(Milliseconds deadline);
  Answer<WitnessChange> cas(std::string vm, Register expect, Register to, Milliseconds deadline);
  Answer<WitnessChange> create(std::string vm, Register value, Milliseconds deadline);
  Answer<WitnessChange> remove(std::string vm, Register expect, Milliseconds deadline);
  Answer<WitnessGrants> lease(std::string node, std::vector<WitnessLease> vms,
                              Milliseconds deadline);

 private:
  [[nodiscard]] std::string target(const std::string& vm) const;

  std::string cluster_;
  std::shared_ptr<HttpClient> registers_;
  std::shared_ptr<HttpClient> leases_;
};

}  // namespace havm
