#include "agent/policy/cluster_config.hpp"

#include "agent/policy/cluster_checks.hpp"
#include "agent/policy/duration_text.hpp"
#include "agent/policy/json_document.hpp"
#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using nlohmann::json;

// The readers take what has the right type and leave the rest at its default: what has the wrong
// type is already a finding of the schema, and the cross-checks still see everything else.

const json& member(const json& object, const char* key) {
  static const json absent;
  if (!object.is_object()) return absent;
  const auto found = object.find(key);
  return found == object.end() ? absent : *found;
}

void read_text(const json& object, const char* key, std::string& into) {
  const json& value = member(object, key);
  if (value.is_string()) into = value.get<std::string>();
}

void read_port(const json& object, const char* key, std::uint16_t& into) {
  const json& value = member(object, key);
  if (!value.is_number_unsigned()) return;
  const auto number = value.get<std::uint64_t>();
  if (number >= 1 && number <= 65535) into = static_cast<std::uint16_t>(number);
}

void read_duration(const json& object, const char* key, std::chrono::milliseconds& into) {
  const json& value = member(object, key);
  if (!value.is_string()) return;
  if (const auto duration = parse_duration(value.get<std::string>())) into = *duration;
}

Timing read_timing(const json& object) {
  std::string profile = "default";
  read_text(object, "profile", profile);
  Timing timing = timing_profile(profile).value_or(Timing{});
  read_duration(object, "heartbeat_interval", timing.heartbeat_interval);
  read_duration(object, "session_keepalive", timing.session_keepalive);
  read_duration(object, "session_timeout", timing.session_timeout);
  read_duration(object, "peer_timeout", timing.peer_timeout);
  read_duration(object, "lease", timing.lease);
  read_duration(object, "boot_grace", timing.boot_grace);
  const json& drift = member(object, "drift_ppm");
  if (drift.is_number_unsigned() && drift.get<std::uint64_t>() <= 1'000'000)
    timing.drift_ppm = drift.get<long>();
  return timing;
}

std::map<std::string, NodeConfig> read_nodes(const json& object) {
  std::map<std::string, NodeConfig> nodes;
  if (!object.is_object()) return nodes;
  for (const auto& entry : object.items()) {
    NodeConfig node;
    node.name = entry.key();
    const json& links = member(entry.value(), "links");
    if (links.is_array())
      for (const json& link :
           links)  // what is no text stays as a gap, so that indexes keep their meaning
        node.links.push_back(link.is_string() ? link.get<std::string>() : std::string());
    nodes.emplace(node.name, std::move(node));
  }
  return nodes;
}

ClusterConfig read_config(const json& document) {
  ClusterConfig config;
  read_text(document, "cluster", config.name);
  config.nodes = read_nodes(member(document, "nodes"));
  const json& witness = member(document, "witness");
  if (witness.is_object()) {
    WitnessEndpoint endpoint;
    read_text(witness, "address", endpoint.address);
    read_port(witness, "port", endpoint.port);
    config.witness = std::move(endpoint);
  }
  config.timing = read_timing(member(document, "timing"));
  const json& ports = member(document, "ports");
  read_port(ports, "heartbeat", config.ports.heartbeat);
  read_port(ports, "peer", config.ports.peer);
  read_port(member(ports, "replication"), "first", config.ports.replication.first);
  read_port(member(ports, "replication"), "last", config.ports.replication.last);
  std::string transport;
  read_text(member(document, "security"), "transport", transport);
  if (transport == "plain") config.transport = Transport::plain;
  const json& resyncs = member(member(document, "replication"), "resyncs_at_once");
  if (resyncs.is_number_unsigned() && resyncs.get<std::uint64_t>() >= 1 &&
      resyncs.get<std::uint64_t>() <= 64)
    config.resyncs_at_once = resyncs.get<std::size_t>();
  const json& p99 = member(member(document, "replication"), "guest_p99");
  if (p99.is_string()) config.guest_p99 = parse_duration(p99.get<std::string>());
  return config;
}

}  // namespace

const NodeConfig* ClusterConfig::find_node(const std::string& node) const {
  const auto found = nodes.find(node);
  return found == nodes.end() ? nullptr : &found->second;
}

const NodeConfig& ClusterConfig::partner_of(const std::string& node) const {
  HAVM_ASSERT(nodes.size() == 2 && nodes.contains(node), "partner_of is asked for a known node");
  return nodes.begin()->first == node ? nodes.rbegin()->second : nodes.begin()->second;
}

std::optional<ClusterConfig> parse_cluster_config(const std::string& text, Findings& findings) {
  Findings found;
  const json document = parse_document(text, found);
  std::optional<ClusterConfig> config;
  if (!document.is_null() || found.empty()) {  // "null" is a document too
    check_schema(document, cluster_schema, found);
    config = read_config(document);
    check_cluster(*config, found);
  }
  found.sort();
  findings.add_below("", found);
  return found.empty() ? config : std::nullopt;
}

Result<ClusterConfig> load_cluster_config(const std::string& path) {
  BOOST_OUTCOME_TRY(const std::string text, read_file(path));
  Findings findings;
  auto config = parse_cluster_config(text, findings);
  if (!config) return findings.to_error(path);
  return std::move(*config);
}

}  // namespace havm
