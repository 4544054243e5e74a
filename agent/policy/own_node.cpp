#include "agent/policy/own_node.hpp"

#include <array>

#include <unistd.h>

namespace havm {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  const std::string full = name.data();
  return full.substr(0, full.find('.'));
}

}  // namespace

Result<std::string> own_node(const ClusterConfig& cluster, const std::string& wanted) {
  const std::string name = wanted.empty() ? host_name() : wanted;
  if (cluster.find_node(name) != nullptr) return name;
  return Error("this host is '" + name +
               "', but the cluster file has no such node: correct it, or say which one this is "
               "with --node NAME");
}

}  // namespace havm
