#include "vmrepl/session/hello_verdict.hpp"

#include "vmrepl/base/rules.hpp"

namespace havm {

std::optional<std::string> judge_hello(const HelloContext& self, const Record& record,
                                       Epoch promised, bool is_owner, const Hello& hello) {
  const std::string epoch = std::to_string(hello.epoch.value);
  if (hello.vm_id != self.vm_id || hello.vm != self.vm)
    return "this engine serves VM " + self.vm + " (" + self.vm_id + "), not " + hello.vm + " (" +
           hello.vm_id + "): check partner_addresses and the port";
  if (hello.node != self.partner)
    return "the partner of VM " + self.vm + " is node " + self.partner + ", not " + hello.node;
  // Before anything about roles: a lower epoch is over, whatever it says.
  if (hello.epoch < promised && holds(Rule::hello_below_promise))
    return "epoch " + epoch + " is over: epoch " + std::to_string(promised.value) +
           " has been promised";
  if (hello.epoch.value == 0) return std::string("epoch 0 was never owned");
  if (is_owner && hello.epoch <= record.epoch)
    return "this node is owner at epoch " + std::to_string(record.epoch.value) + " itself";
  if (is_owner)
    return "this node still holds the owner role of epoch " + std::to_string(record.epoch.value) +
           "; it must stand by first";
  // A partner that went away unnoticed may have lost unflushed writes: never re-attach, shrink
  // first.
  if (record.in_sync == InSync::both && hello.epoch == record.epoch && holds(Rule::never_reattach))
    return "epoch " + epoch + " was live with both replicas and its session is lost: the owner " +
           "must shrink to itself before it connects again";
  if (hello.disks != self.disks)
    return "the disks of VM " + self.vm + " differ in name, order or size between the nodes";
  if (hello.lease != self.lease)
    return "lease_ms differs: " + std::to_string(hello.lease.count()) + " at the owner, " +
           std::to_string(self.lease.count()) + " here; both nodes must be configured alike";
  return std::nullopt;
}

}  // namespace havm
