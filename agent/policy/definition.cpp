#include "agent/policy/definition.hpp"

#include <cerrno>
#include <set>

#include "agent/policy/json_document.hpp"
#include "agent/policy/names.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using nlohmann::json;

VmDefinition read_definition(const json& document, Policy policy) {
  VmDefinition definition;
  definition.vm = document.at("vm").get<std::string>();
  definition.uuid = document.at("uuid").get<std::string>();
  definition.nodes = {document.at("nodes").at(0).get<std::string>(),
                      document.at("nodes").at(1).get<std::string>()};
  definition.generation = document.at("generation").get<std::uint64_t>();
  definition.replication_port = document.at("replication_port").get<std::uint16_t>();
  for (const json& entry : document.at("disks")) {
    DiskDefinition disk;
    disk.target = entry.at("target").get<std::string>();
    disk.format = entry.at("format").get<std::string>();
    disk.path = entry.at("path").get<std::string>();
    disk.size_bytes = entry.at("size").get<std::uint64_t>();
    definition.disks.push_back(std::move(disk));
  }
  definition.desired =
      document.at("desired") == "running" ? DesiredState::running : DesiredState::off;
  definition.policy = std::move(policy);
  definition.original_xml = document.at("original_xml").get<std::string>();
  return definition;
}

void check_definition(const VmDefinition& definition, Findings& findings) {
  if (const auto problem = vm_name_problem(definition.vm)) findings.add("/vm", *problem);
  if (definition.policy.preferred_node &&
      *definition.policy.preferred_node != definition.nodes[0] &&
      *definition.policy.preferred_node != definition.nodes[1])
    findings.add("/policy/preferred_node", "node " + shown(*definition.policy.preferred_node) +
                                               " holds no replica of this VM");
  std::set<std::string> targets;
  std::set<std::string> paths;
  for (std::size_t i = 0; i < definition.disks.size(); ++i) {
    const DiskDefinition& disk = definition.disks[i];
    const std::string pointer = "/disks/" + std::to_string(i);
    if (!targets.insert(disk.target).second)
      findings.add(pointer + "/target",
                   "another disk has the target " + shown(disk.target) + " too");
    if (!paths.insert(disk.path).second)
      findings.add(pointer + "/path", "another disk has the path " + shown(disk.path) + " too");
    // Not by the pattern of the schema: std::regex recurses over what such a pattern repeats.
    if (disk.path.find_first_of(std::string_view("\0\n\r", 3)) != std::string::npos)
      findings.add(pointer + "/path", "a path cannot contain a NUL character or a line break");
  }
}

}  // namespace

json definition_to_json(const VmDefinition& definition) {
  json document;
  document["version"] = VmDefinition::version;
  document["vm"] = definition.vm;
  document["uuid"] = definition.uuid;
  document["nodes"] = definition.nodes;
  document["generation"] = definition.generation;
  document["replication_port"] = definition.replication_port;
  document["disks"] = json::array();
  for (const DiskDefinition& disk : definition.disks) {
    json entry;
    entry["target"] = disk.target;
    entry["format"] = disk.format;
    entry["path"] = disk.path;
    entry["size"] = disk.size_bytes;
    document["disks"].push_back(std::move(entry));
  }
  document["desired"] = definition.desired == DesiredState::running ? "running" : "off";
  document["policy"] = policy_to_json(definition.policy);
  document["original_xml"] = definition.original_xml;
  return document;
}

std::optional<VmDefinition> definition_from_json(const json& document, Findings& findings) {
  Findings found;
  check_schema(document, vm_schema, found);
  std::optional<Policy> policy;
  if (document.is_object() && document.contains("policy") && document.at("policy").is_object()) {
    Findings below;
    policy = policy_from_json(document.at("policy"), below);
    found.add_below("/policy", below);
  }
  std::optional<VmDefinition> definition;
  if (found.empty() && policy) {
    definition = read_definition(document, *policy);
    check_definition(*definition, found);
  }
  found.sort();
  findings.add_below("", found);
  return found.empty() ? definition : std::nullopt;
}

std::optional<VmDefinition> parse_definition(const std::string& text, Findings& findings) {
  Findings syntax;
  const json document = parse_document(text, syntax);
  findings.add_below("", syntax);
  if (document.is_null() && !syntax.empty()) return std::nullopt;
  auto definition = definition_from_json(document, findings);
  return syntax.empty() ? definition : std::nullopt;
}

Result<VmDefinition> load_definition(const std::string& path) {
  BOOST_OUTCOME_TRY(const std::string text, read_file(path));
  Findings findings;
  auto definition = parse_definition(text, findings);
  if (!definition) return findings.to_error(path);
  return std::move(*definition);
}

Result<void> save_definition(const std::string& path, const VmDefinition& definition) {
  const json document = definition_to_json(definition);
  try {
    return replace_file(path, document.dump(2) + "\n");
  } catch (const json::type_error&) {
    return Error("cannot write " + path + ": the definition of VM " + shown(definition.vm) +
                     " contains text that is not UTF-8",
                 EILSEQ);
  }
}

}  // namespace havm
