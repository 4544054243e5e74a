// The files that people and agents write: cluster file, policy, definition of a VM (agent/policy).
//
// Input: which of the three, a length that a fuzzer would not write out, the JSON text; '@' in it
// stands for that many letters.
#include <set>

#include "agent/policy/cluster_config.hpp"
#include "agent/policy/definition.hpp"
#include "agent/policy/json_document.hpp"
#include "agent/policy/names.hpp"
#include "agent/policy/policy.hpp"
#include "tests/fuzz/support/fuzz_target.hpp"

namespace havm::fuzz {
namespace {

using Json = nlohmann::json;

void check_findings(const Findings& findings, bool accepted) {
  FUZZ_CHECK(findings.empty() == accepted, "what is not accepted has a finding");
  FUZZ_CHECK(findings.list().size() <= Findings::max_findings, "findings are bounded");
  for (const Finding& finding : findings.list()) {
    FUZZ_CHECK(!finding.message.empty(), "a finding has a sentence");
    FUZZ_CHECK(finding.pointer.empty() || finding.pointer.front() == '/', "a pointer is one");
  }
  if (!accepted) FUZZ_CHECK(!findings.to_error("file").message.empty(), "an error has a text");
}

void check_cluster_file(const std::string& text) {
  Findings findings;
  const auto config = parse_cluster_config(text, findings);
  check_findings(findings, config.has_value());
  if (!config) return;
  FUZZ_CHECK(config->nodes.size() == 2, "two nodes");
  std::set<std::string> addresses;
  std::size_t links = 0;
  for (const auto& [name, node] : config->nodes) {
    FUZZ_CHECK(node.name == name && !node_name_problem(name), "a node has a name");
    FUZZ_CHECK(!node.links.empty() && node.links.size() <= 4, "1 to 4 links");
    FUZZ_CHECK(links == 0 || links == node.links.size(), "the same number of links");
    links = node.links.size();
    for (const std::string& link : node.links)
      FUZZ_CHECK(addresses.insert(link).second, "addresses differ");
    FUZZ_CHECK(&config->partner_of(name) != &node, "a partner is the other one");
  }
  const ClusterPorts& p = config->ports;
  FUZZ_CHECK(
      p.heartbeat != p.peer && p.replication.first <= p.replication.last && p.replication.first > 0,
      "ports are apart");
  Findings timing;
  check_timing(config->timing, "", timing);
  FUZZ_CHECK(timing.empty(), "the timing holds");
}

void check_policy(const std::string& text) {
  Findings findings;
  const auto policy = parse_policy(text, findings);
  check_findings(findings, policy.has_value());
  if (!policy) return;
  Findings none;
  const auto again = policy_from_json(policy_to_json(*policy), none);
  FUZZ_CHECK(again && *again == *policy, "decode(encode(x)) == x");
}

void check_definition(const std::string& text) {
  Findings findings;
  const auto definition = parse_definition(text, findings);
  check_findings(findings, definition.has_value());
  if (!definition) return;
  FUZZ_CHECK(!vm_name_problem(definition->vm), "a VM's name can be used");
  FUZZ_CHECK(definition->nodes[0] != definition->nodes[1], "two nodes");
  FUZZ_CHECK(!definition->disks.empty() && definition->replication_port > 0, "a VM has a disk");
  for (const DiskDefinition& disk : definition->disks)
    FUZZ_CHECK(disk.size_bytes >= 512 && disk.path.front() == '/', "a disk is a file");
  Findings none;
  const std::string written = definition_to_json(*definition).dump(2);
  const auto again = parse_definition(written, none);
  FUZZ_CHECK(again && *again == *definition, "decode(encode(x)) == x");
}

std::string expanded(std::string_view text, std::size_t length) {
  std::string all;
  for (const char c : text) {
    if (c != '@')
      all.push_back(c);
    else if (all.size() + length <= std::size_t{1} << 20)
      all.append(length, 'x');
  }
  return all;
}

VmDefinition sample_definition() {
  VmDefinition definition;
  definition.vm = "web1";
  definition.uuid = "6695eb01-f6a4-8304-79aa-97f2502e193f";
  definition.nodes = {"a", "b"};
  definition.generation = 3;
  definition.replication_port = 7610;
  definition.disks = {{"vda", "qcow2", "/images/web1.qcow2", 1'073'741'824},
                      {"sdb", "raw", "/images/web1-b.raw", 9'223'372'036'854'775'807}};
  definition.desired = DesiredState::running;
  definition.policy.on_peer_loss = OnPeerLoss::freeze;
  definition.policy.preferred_node = "b";
  definition.original_xml = "<domain/>";
  return definition;
}

}  // namespace

void one_input(Bytes input) {
  Input in(input);
  const std::size_t kind = in.below(3);
  const std::size_t length = in.number(2);
  const std::string text = expanded(text_of(in.rest()), length);
  if (kind == 0)
    check_cluster_file(text);
  else if (kind == 1)
    check_policy(text);
  else
    check_definition(text);
}

std::vector<std::string> seeds() {
  const auto seed = [](std::size_t kind, const std::string& text) {
    return packed(kind, 1) + packed(60'000, 2) + text;
  };
  VmDefinition endless = sample_definition();
  endless.disks[0].path = "/@";
  const std::string cluster = R"({"version":1,"cluster":"example","nodes":{
"a":{"links":["192.0.2.1","2001:db8::1"]},"b":{"links":["192.0.2.2","2001:db8::2"]}},
"witness":{"address":"203.0.113.9","port":7600},"timing":{"profile":"slow","lease":"24s"},
"ports":{"heartbeat":7601,"peer":7602,"replication":{"first":7610,"last":7999}}})";
  const std::string least = R"({"version":1,"cluster":"c","nodes":{"a":{"links":["192.0.2.1"]},)"
                            R"("b":{"links":["192.0.2.2"]}},"witness":null})";
  const std::string odd = R"({"version":2,"cluster":7,"nodes":{"A/~":{"links":[1,"::","x"]},"":[]},
"nods":{},"nods":1,"][":{"<root>":0},"timing":{"lease":"1ms","drift_ppm":999999}})";
  return {
      seed(0, cluster),
      seed(0, least),
      seed(0, odd),
      seed(0, std::string(40, '[') + std::string(40, ']')),
      seed(1, policy_to_json(Policy{}).dump()),
      seed(1, R"({"version":1,"failover":{"mode":"manual"},"replication":{"on_peer_loss":3}})"),
      seed(2, definition_to_json(sample_definition()).dump()),
      seed(2, R"({"version":1,"vm":"a b","nodes":["a","a"],"disks":[{"target":"vda"}],"x][":1})")};
}

}  // namespace havm::fuzz
