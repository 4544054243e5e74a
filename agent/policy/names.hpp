// The job of these functions: decide which names of VMs and nodes havm accepts, and say why not.
// Pure.
#pragma once

#include <optional>
#include <string>

namespace havm {

inline constexpr std::size_t max_vm_name_bytes = 60;
inline constexpr std::size_t max_node_name_bytes = 63;

// The reason why havm cannot protect a VM of this name, or nullopt. A name becomes a folder
// (/run/havm/vms/<vm>/), part of the path of unix sockets (at most 107 bytes) and a word in the
// guard's line protocol.
std::optional<std::string> vm_name_problem(const std::string& name);

// The same for nodes: [a-z0-9][a-z0-9-]*, at most 63 bytes.
std::optional<std::string> node_name_problem(const std::string& name);

}  // namespace havm
