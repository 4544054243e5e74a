// The job of the witness arbiter: havm-witness (docs/protocol/witness.md) as an Arbiter.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>

#include "agent/failover/arbiter.hpp"
#include "agent/policy/cluster_config.hpp"

namespace havm {

// `nodes`: every node that may hold a lease.
std::unique_ptr<Arbiter> make_witness_arbiter(boost::asio::any_io_executor executor,
                                              std::string cluster, const WitnessEndpoint& endpoint,
                                              std::vector<std::string> nodes);

}  // namespace havm
