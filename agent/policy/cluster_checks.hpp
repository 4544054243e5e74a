// The job of check_cluster: what a schema cannot say about a cluster configuration, because it
// concerns several places at once. Rewrites valid addresses to their canonical text. Any thread.
#pragma once

#include "agent/policy/cluster_config.hpp"

namespace havm {

void check_cluster(ClusterConfig& config, Findings& findings);

}  // namespace havm
