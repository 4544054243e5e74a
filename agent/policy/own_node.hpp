// The job of own_node: which node of the cluster file this host is. Reads the host name. Any
// thread.
#pragma once

#include <string>

#include "agent/policy/cluster_config.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

// `wanted`, or when that is empty the host name up to its first dot. Refused when the cluster has
// no such node.
Result<std::string> own_node(const ClusterConfig& cluster, const std::string& wanted);

}  // namespace havm
