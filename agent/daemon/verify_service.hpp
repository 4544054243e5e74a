// The job of these functions: verifies of protected VMs on this node: asked for by a person
// (POST /v1/vms/V/verify), or due by policy. The engine does the work and goes on without the
// daemon. One thread: the daemon's executor.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <nlohmann/json.hpp>

#include "agent/control/http.hpp"

namespace havm {

class Havmd;
class VmUnit;

// `unit`: a protected VM whose register is known.
boost::asio::awaitable<HttpResponse> serve_verify(Havmd& daemon, VmUnit& unit, nlohmann::json body);

// Starts what is due, for as long as the daemon lives.
boost::asio::awaitable<void> verify_loop(Havmd& daemon);

// The part of the vm object.
nlohmann::json verify_object(const VmUnit& unit);

}  // namespace havm
