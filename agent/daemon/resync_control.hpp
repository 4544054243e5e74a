// The job of these functions: pause and resume the resyncs of one VM on behalf of a person, asked
// here or at the partner: checked, carried out by the owner's engine, kept in the history. What
// pausing means is in docs/protocol/engine-control.md. The daemon's executor.
#pragma once

#include <string>

#include <boost/asio/awaitable.hpp>
#include <nlohmann/json.hpp>

#include "agent/control/http.hpp"

namespace havm {

class Havmd;

// POST /v1/vms/{vm}/resync-pause and …/resync-resume. The VM is protected and its register known.
// The owner is asked through its havmd when it is the partner.
boost::asio::awaitable<HttpResponse> resync_request(Havmd& daemon, std::string vm, std::string verb,
                                                    nlohmann::json body);
// POST /v1/peer/vms/{vm}/resync: the partner passes a request on.
boost::asio::awaitable<HttpResponse> resync_from_partner(Havmd& daemon, std::string vm,
                                                         nlohmann::json body);

}  // namespace havm
