// The job of GuardLink: keep havm-guard running and talk to it (docs/protocol/guard.md). The guard
// outlives havmd. Commands are local and short (sub-millisecond; `stop` and `kill` until confirmed,
// at most their deadline). One thread.
#pragma once

#include <memory>
#include <string>

#include <boost/asio/awaitable.hpp>

#include "agent/daemon/node_context.hpp"
#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/result.hpp"
#include "vmrepl/base/strong_types.hpp"

namespace havm {

class GuardClient;

class GuardLink {
 public:
  GuardLink(std::string program, std::string socket, std::string log, Duration lease);
  ~GuardLink();

  // Starts the guard when none answers; true: it was started now and knows no VM.
  Result<bool> ensure();
  // Error codes: ENOENT the guard does not know the VM, ENOTCONN there is no guard.
  Result<std::string> command(const std::string& text);

  Result<void> watch(const std::string& vm, int pid, Epoch epoch, TimePoint lease_sent);
  // ENOENT: the guard does not know the VM (any more).
  Result<void> renew(const std::string& vm, Epoch epoch, TimePoint sent);
  Result<void> alone(const std::string& vm, Epoch epoch);
  // Fails when no valid grant is held, or (code ENOENT) when the guard does not know the VM.
  Result<void> require_lease(const std::string& vm, Epoch epoch);
  Result<void> stop(const std::string& vm);
  Result<void> kill(const std::string& vm);
  Result<void> forget(const std::string& vm);

 private:
  std::string program_;
  std::string socket_;
  std::string log_;
  Duration lease_;
  std::unique_ptr<GuardClient> client_;
};

}  // namespace havm
