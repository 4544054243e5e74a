// The job of VmDefinition: everything a node must remember about one protected VM beside its
// replica: /var/lib/havm/vms/<vm>/vm.json, written by havmd, the same on both nodes (the higher
// generation wins). The codec is strict (conf/schema/vm-1.json): a file that was damaged or edited
// wrongly is refused.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "agent/policy/findings.hpp"
#include "agent/policy/policy.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

struct DiskDefinition {
  std::string target;  // libvirt's, "vda"
  std::string format;  // of the file: "raw" or "qcow2"
  std::string path;    // absolute, the same on both nodes
  std::uint64_t size_bytes = 0;
  bool operator==(const DiskDefinition&) const = default;
};

enum class DesiredState { off, running };

struct VmDefinition {
  static constexpr int version = 1;
  std::string vm;
  std::string uuid;
  std::array<std::string, 2> nodes;
  std::uint64_t generation = 1;  // rises with each change
  std::uint16_t replication_port = 0;
  std::vector<DiskDefinition> disks;
  DesiredState desired = DesiredState::off;
  Policy policy;
  std::string original_xml;  // libvirt's definition before the VM was protected
  bool operator==(const VmDefinition&) const = default;
};

nlohmann::json definition_to_json(const VmDefinition& definition);

// Every mistake becomes a finding; nullopt when there is one.
std::optional<VmDefinition> definition_from_json(const nlohmann::json& document,
                                                 Findings& findings);
std::optional<VmDefinition> parse_definition(const std::string& text, Findings& findings);

// Reads vm.json; the Error names the file and tells every finding.
Result<VmDefinition> load_definition(const std::string& path);
// Replaces it so that a crash leaves the old or the new one.
Result<void> save_definition(const std::string& path, const VmDefinition& definition);

}  // namespace havm
