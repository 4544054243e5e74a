// The job of the witness arbiter: havm-witness (docs/protocol/witness.md) as an Arbiter.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <memory>
#include <string>

#include "agent/failover/arbiter.hpp"
#include "agent/policy/cluster_config.hpp"

namespace havm {

std::unique_ptr<Arbiter> make_witness_arbiter(boost::asio::any_io_executor executor, std::string cluster,
                                              const WitnessEndpoint& endpoint);

}  // namespace havm
