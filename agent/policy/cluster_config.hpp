// The job of ClusterConfig: what every node of a cluster must agree on, read from one JSON file
// (/etc/havm/cluster.json, the same on both nodes; conf/cluster.example.json,
// conf/schema/cluster-1.json). Guarantees of a ClusterConfig returned here: exactly two nodes with
// the same number (1–4) of links; all addresses valid, in canonical text and unique; both ends of a
// link of one family; ports disjoint; the timing inequality (timing.hpp) holds. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/policy/findings.hpp"
#include "agent/policy/timing.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

struct NodeConfig {
  std::string name;
  std::vector<std::string> links;  // IP addresses; index i of both nodes is one link
  bool operator==(const NodeConfig&) const = default;
};

struct WitnessEndpoint {
  std::string address;
  std::uint16_t port = 7600;
  bool operator==(const WitnessEndpoint&) const = default;
};

struct PortRange {
  std::uint16_t first = 0;
  std::uint16_t last = 0;  // included
  bool operator==(const PortRange&) const = default;
};

struct ClusterPorts {
  std::uint16_t heartbeat = 7601;     // UDP
  std::uint16_t peer = 7602;          // TCP, havmd to havmd
  PortRange replication{7610, 7999};  // TCP, one port for each protected VM
  bool operator==(const ClusterPorts&) const = default;
};

// How the engines of a VM talk to each other.
enum class Transport {
  tls,
  plain,  // neither encrypted nor authenticated: for measurements
};

struct ClusterConfig {
  std::string name;
  std::map<std::string, NodeConfig> nodes;
  std::optional<WitnessEndpoint> witness;  // none: failover only by hand
  Timing timing;
  ClusterPorts ports;
  Transport transport = Transport::tls;
  std::size_t resyncs_at_once = 1;  // on a node, of all VMs
  // Of the guests' writes during a resync; none: about what it is without one.
  std::optional<std::chrono::milliseconds> guest_p99;
  bool operator==(const ClusterConfig&) const = default;

  // Null when there is no such node.
  [[nodiscard]] const NodeConfig* find_node(const std::string& node) const;
  // The other node of the two. `node` must be one of them.
  [[nodiscard]] const NodeConfig& partner_of(const std::string& node) const;
};

// Every mistake becomes a finding; nullopt when there is one.
std::optional<ClusterConfig> parse_cluster_config(const std::string& text, Findings& findings);

// Reads the file; the Error names it and tells every finding.
Result<ClusterConfig> load_cluster_config(const std::string& path);

}  // namespace havm
