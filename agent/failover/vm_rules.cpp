// VM lane: what is done to the guest. FO-1, FO-6 and FO-7 live here.
#include <algorithm>
#include <utility>

#include "agent/failover/failover_core.hpp"

namespace havm {
namespace {

constexpr int crash_restarts_max = 3;

// Only the test program havmd-broken-lease-wait is built without the wait: the verdict of the demo
// must fail on it.
#ifdef HAVM_BREAK_LEASE_WAIT
constexpr bool waits_for_foreign_leases = false;
#else
constexpr bool waits_for_foreign_leases = true;
#endif

Verdict none() {
  return {};
}

Verdict act(std::string kind, std::string reason, Action action) {
  return {"", {std::move(kind), std::move(reason), std::move(action)}};
}

bool exists(VmState vm) {
  return vm != VmState::off && vm != VmState::unknown;
}

bool lease_held(const State& s) {
  return s.lease_sent && s.now < *s.lease_sent + lease_use(s.config);
}

Verdict stop_foreign(const State& s) {
  if (!s.vm_paused_by_us)
    return act("pause",
               "the register names " + s.config.partner + ": this copy of the VM must not run",
               PauseVm{});
  return act("kill",
             "the register names " + s.config.partner + ": this copy of the VM can never go on",
             KillVm{});
}

// From the check that a lease is held until the mark is durable nothing is started without one.
bool grow_begins(const State& s) {
  const bool preparing =
      s.storage_pending && (std::holds_alternative<RequireLease>(*s.storage_pending) ||
                            std::holds_alternative<EngineGrowPrepare>(*s.storage_pending));
  return s.lease_required || preparing;
}

// FO-1: may vCPUs run here now?
bool may_run(const State& s) {
  if (!s.engine || s.engine->role != EngineRole::owner || s.engine->failed) return false;
  if (!s.reg || !s.reg->owned() || s.reg->epoch != s.engine->epoch) return false;
  if (s.unsettled || s.handover || s.promotion || grow_begins(s)) return false;
  if (s.stopped_epoch == s.engine->epoch) return false;
  if (!s.reg->both()) return !s.engine->grow_mark;
  return s.engine->session == SessionState::live && lease_held(s);
}

// Rule 9: the end of the last lease that somebody else may hold. At epoch 1 nobody else ever owned
// the VM.
TimePoint foreign_lease_end(const State& s) {
  if (s.engine->epoch == Epoch(1) || s.proven_epoch == s.engine->epoch) return TimePoint{};
  const TimePoint arbiter = s.arbiter_granted_partner_at.value_or(TimePoint{});
  return std::max(s.engine->granted_at, arbiter) + lease_wait(s.config);
}

Verdict start(State& s) {
  if (s.vm_crashed && s.crash_restarts > crash_restarts_max) return none();
  if (waits_for_foreign_leases && s.now < foreign_lease_end(s)) {
    s.lease_waited = true;
    return none();
  }
  if (!std::exchange(s.lease_waited, false))
    return act("start-vm", "this node owns the VM and it shall run: start it",
               StartVm{s.engine->epoch, !s.reg->both()});
  return act("lease-wait-over", "no lease of the old owner can be valid any more: start the VM",
             StartVm{s.engine->epoch, !s.reg->both()});
}

}  // namespace

Verdict decide_vm(State& s) {
  const bool foreign = s.reg && !s.reg->owned();
  if (foreign && exists(s.vm)) return stop_foreign(s);
  if (s.handover && exists(s.vm))
    return act("kill", "the VM is handed over to " + s.config.partner + ": stop it here first",
               KillVm{});
  if (s.wish == Wish::destroy && exists(s.vm))
    return act("kill", "the administrator asked for it", KillVm{});
  if (s.wish == Wish::shutdown && exists(s.vm))
    return act("shutdown", "the administrator asked for it", ShutdownVm{});
  if (s.wish && s.vm == VmState::off) s.wish.reset();
  if (s.vm == VmState::off && s.desired == Desired::running && may_run(s)) return start(s);
  if (s.vm == VmState::paused_by_error && may_run(s))
    return act("resume", "its disk is served again: let the VM go on", ResumeVm{});
  return none();
}

}  // namespace havm
