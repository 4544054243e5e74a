// The job of these functions: the JSON objects of the local API (docs/protocol/api.md), computed
// when asked from what the daemon knows now; never a cached label (replication rule 15).
#pragma once

#include <nlohmann/json.hpp>

#include "hypervisor/hypervisor.hpp"

namespace havm {

class Havmd;
class VmUnit;

nlohmann::json vm_object(Havmd& daemon, const VmUnit& unit);
nlohmann::json unprotected_object(const DomainInfo& info);
nlohmann::json nodes_object(Havmd& daemon);
nlohmann::json version_object(Havmd& daemon, const std::string& hypervisor);

// The part of the report to the partner that is about one VM.
nlohmann::json report_entry(const VmUnit& unit);

}  // namespace havm
