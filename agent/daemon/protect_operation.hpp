// The job of these operations: put a VM under protection and take it out again, with everything
// checked before anything changes and everything taken back when a step fails.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <nlohmann/json.hpp>

#include "agent/daemon/operations.hpp"
#include "agent/policy/definition.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

class Havmd;

struct ProtectPlan {
  VmDefinition definition;
  std::string xml;  // on the NBD sockets
  bool was_running = false;
  bool autostart = false;
  std::vector<std::uint64_t>
      grow_to_bytes;               // for each disk, the size its file gets (qcow2); 0: as it is
  std::vector<std::string> steps;  // sentences for --dry-run
};

struct ProtectRequest {
  std::string vm;
  std::string peer;
  Policy policy;
  bool restart = false;
};

// Every check, nothing changed. Error.code: ENOENT unknown VM or node, EHOSTUNREACH something did
// not answer, anything else the present state does not allow it.
boost::asio::awaitable<Result<ProtectPlan>> plan_protect(Havmd& daemon, ProtectRequest request);
boost::asio::awaitable<Result<nlohmann::json>> protect(Havmd& daemon, ProtectPlan plan,
                                                       std::shared_ptr<Operation> operation);

struct UnprotectPlan {
  std::string vm;
  bool was_running = false;
  std::vector<std::string> steps;
};

boost::asio::awaitable<Result<UnprotectPlan>> plan_unprotect(Havmd& daemon, std::string vm,
                                                             bool restart);
boost::asio::awaitable<Result<nlohmann::json>> unprotect(Havmd& daemon, UnprotectPlan plan,
                                                         std::shared_ptr<Operation> operation);

}  // namespace havm
