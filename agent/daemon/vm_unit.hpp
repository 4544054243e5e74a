// The job of VmUnit: one protected VM on this node. It feeds the failover core with what happens to
// the VM (engine, register, hypervisor, partner, administrator) and carries out what the core
// decides: the shell around agent/failover.
//
// Guarantees
//  1. Decisions are executed in the order given, one action of each lane at a time; every action is
//  answered.
//  2. Every decision is logged and kept in the history with its reason before it is executed.
//  3. QEMU's vCPUs first run when the guard watches the process (started paused, watched, then
//  resumed).
// One thread (the daemon's executor). Destroying it stops all its tasks; the VM, its engine and the
// guard go on.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/awaitable.hpp>
#include <nlohmann/json.hpp>

#include "agent/daemon/node_context.hpp"
#include "agent/daemon/verify_record.hpp"
#include "agent/failover/failover_state.hpp"
#include "agent/policy/definition.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

// What only this node remembers of a VM: /var/lib/havm/vms/<vm>/node.json.
struct NodeNotes {
  std::optional<Epoch> stopped_epoch;  // said "stopped" at this epoch (FO-6)
  bool autostart = false;              // libvirt's autostart before the VM was protected
};
Result<NodeNotes> load_node_notes(const std::string& path);
Result<void> save_node_notes(const std::string& path, const NodeNotes& notes);

class VmUnit {
 public:
  VmUnit(NodeContext& node, VmDefinition definition, NodeNotes notes);
  ~VmUnit();
  VmUnit(const VmUnit&) = delete;
  VmUnit& operator=(const VmUnit&) = delete;

  void deliver(const Event& event);

  [[nodiscard]] const VmDefinition& definition() const;
  [[nodiscard]] const State& state() const;
  [[nodiscard]] const nlohmann::json& engine_status() const;  // null when it does not answer
  [[nodiscard]] const std::string& vm_words() const;  // virsh's state of the VM on this node

  [[nodiscard]] const std::string& title() const;  // libvirt's, empty when none

  // The partner sent a definition: taken over when its generation is higher.
  void adopt_definition(const VmDefinition& newer);
  // The epoch at which the arbiter should be asked for a lease, if one is needed.
  [[nodiscard]] std::optional<Epoch> wants_lease() const;
  void lease_granted(TimePoint sent);
  // havm-guard was started anew: it knows no VM.
  void guard_restarted();
  // libvirt told of a change: look at the VM now.
  void look_at_vm();
  [[nodiscard]] const VerifyRecord& verify_record() const;
  // The partner told its record, taken over when it is of a later run.
  void adopt_verify(const nlohmann::json& told);
  // A command that the failover core knows nothing of (docs/protocol/engine-control.md).
  boost::asio::awaitable<Result<nlohmann::json>> call_engine(std::string command,
                                                             nlohmann::json arguments,
                                                             std::chrono::milliseconds deadline);
  // Ends the engine in an orderly way (unprotect).
  boost::asio::awaitable<Result<void>> quit_engine();

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace havm
