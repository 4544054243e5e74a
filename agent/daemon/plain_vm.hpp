// The job of these functions: stop and start a VM that havm does not protect (yet, or any more),
// for protect and unprotect with --restart.
#pragma once

#include <memory>
#include <string>

#include <boost/asio/awaitable.hpp>

#include "agent/daemon/operations.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

class Havmd;

// Presses the power button; after `shutdown_patience` pulls the plug (as virsh destroy does) and
// says so in the step.
boost::asio::awaitable<Result<void>> stop_plain_vm(Havmd& daemon, std::string vm,
                                                   std::shared_ptr<Operation> operation);
boost::asio::awaitable<Result<void>> start_plain_vm(Havmd& daemon, std::string vm);

inline constexpr std::chrono::milliseconds shutdown_patience{20000};

}  // namespace havm
