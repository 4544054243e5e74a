// Storage lane of the node that the register names as owner.
#include <algorithm>

#include "agent/failover/failover_core.hpp"
#include "agent/failover/verdict.hpp"
#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

RegisterView alone_at(Epoch epoch) {
  return {epoch, Side::self, true, false};
}

Epoch next_epoch(const State& s) {
  const Epoch partner = s.partner ? s.partner->promised_epoch : Epoch();
  return std::max({s.reg->epoch, s.engine->epoch, s.engine->promised_epoch, partner}).next();
}

Action to_alone(const State& s) {
  return CompareAndSwap{*s.reg, alone_at(next_epoch(s))};
}

bool stream_up(const EngineView& e) {
  return e.session == SessionState::live || e.session == SessionState::synced;
}

// ---- giving the VM away
// ------------------------------------------------------------------------------

Verdict hand_over(State& s) {
  Handover& h = *s.handover;
  if (s.now - h.since > s.config.handover_timeout && s.engine->failed) {
    h.since = s.now;
    return wait("handing-over", "a disk of this replica failed: only " + s.config.partner +
                                    " holds every completed write; it is asked again");
  }
  // While the guest still runs, what it writes after the flush would be durable nowhere but on a
  // partner that the swap puts out of sync.
  const bool guest_is_gone = s.vm == VmState::off && !s.vm_pending;
  if (guest_is_gone && s.now - h.since > s.config.handover_timeout) {
    if (!s.engine->suspect && !h.flushed)
      return act(
          "shrinking", "flush",
          s.config.partner + " did not take over in time: make the own replica durable first",
          EngineFlush{});
    s.handover.reset();
    if (s.engine->suspect)
      return wait("suspect", s.config.partner + " did not take over in time: looking again");
    return act("shrinking", "handover-failed",
               s.config.partner +
                   " did not take over in time: raise the epoch, which voids the word given",
               to_alone(s));
  }
  if (!guest_is_gone && s.now - h.since > s.config.handover_timeout)
    return wait(
        "handing-over",
        "the VM does not stop: " + s.config.partner +
            " cannot take over while it may still write here; look at its QEMU process on " +
            s.config.self);
  if (!guest_is_gone)
    return wait("handing-over", "stopping the VM before " + s.config.partner + " takes over");
  if (!h.persisted)
    return act("handing-over", "persist-stopped",
               "the VM is off here: note durably that it does not run again at this epoch",
               PersistStopped{h.epoch});
  if (!h.asked || s.now - h.asked_at >= s.config.retry_delay)
    return act("handing-over", "ask-takeover",
               "tell " + s.config.partner + " that it may start the VM", AskTakeover{h.epoch});
  return wait("handing-over", "waiting for " + s.config.partner + " to take over");
}

// ---- the engine of the owner does not serve yet
// ------------------------------------------------------

// Rule 8: R={A,B} and this replica may have lost writes that were acknowledged.
Verdict suspect_start(State& s) {
  const bool grace = s.now - s.born < s.config.boot_grace;
  if (s.partner_alive && !s.partner && grace)
    return wait("suspect", "this host went down uncleanly; waiting to hear what " +
                               s.config.partner + " holds");
  if (s.partner_alive && s.partner && s.partner->uptodate && !s.partner->suspect) {
    s.handover = Handover{s.reg->epoch, s.now, false, {}, false, false};
    return wait("suspect", "this host went down uncleanly and " + s.config.partner +
                               " holds every completed write: it shall take over");
  }
  if (s.partner_alive && s.partner && s.partner->suspect)
    return act("shrinking", "suspect-shrink",
               "both hosts went down uncleanly: the last owner goes on with its own replica",
               to_alone(s));
  if (grace)
    return wait("suspect", "this host went down uncleanly; waiting for " + s.config.partner +
                               " for at most " + std::to_string(to_ms(s.config.boot_grace)) +
                               " ms");
  return act("shrinking", "grace-shrink",
             s.config.partner +
                 " did not come, or not tell what it holds, in time: going on with a replica whose "
                 "unflushed writes may be lost",
             to_alone(s));
}

Verdict begin_service(State& s) {
  const EngineView& e = *s.engine;
  if (e.state != ReplicaState::uptodate)
    return wait(
        "stuck",
        "the register names this node, but its replica is not up to date: a person must look");
  if (e.failed) return wait("stuck", "a disk of this replica failed: see dominfo");
  if (s.reg->both() && !s.flushed_for_shrink)
    return act("shrinking", "flush", "this replica may soon be the only one: make it durable first",
               EngineFlush{});
  if (s.reg->both())
    return e.suspect ? suspect_start(s)
                     : act("shrinking", "restart-shrink",
                           "the engine was restarted, so the partner may miss or exceed its last "
                           "writes: own the "
                           "VM alone, then resync",
                           to_alone(s));
  const bool mark_unsettled = e.grow_mark && s.reg->epoch <= e.epoch;
  if (mark_unsettled || e.promised_epoch > s.reg->epoch)
    return act("fencing", "fence-swap",
               "an older swap may still arrive: raise the epoch before anything runs", to_alone(s));
  return act("taking-over", "serve", "the register names this node alone: open the disks",
             EngineServe{s.reg->epoch});
}

// ---- the engine serves
// -------------------------------------------------------------------------------

Verdict become_alone(State& s) {
  if (s.engine->failed)
    return wait("held", "a disk of this replica failed and " + s.config.partner +
                            " is lost: I/O is held until it returns or a person helps");
  if (s.config.freeze_alone && !s.partner_alive)
    return wait("held",
                "the partner is lost and the policy says freeze: I/O is held until it returns");
  const std::string why =
      s.engine->partner_left ? "the slow partner was left" : "the partner is lost";
  if (!s.flushed_for_shrink)
    return act("shrinking", "flush", why + ": make the own replica durable before being alone",
               EngineFlush{});
  return act("shrinking", "shrink-swap", why + ": take it out of the in-sync set", to_alone(s));
}

// The stream is up, but the guest waits too long for it. Leaving the partner holds all I/O until
// the arbiter has taken it out, so the arbiter must have answered since it is slow.
Verdict slow_partner(State& s) {
  const std::string why = s.config.partner + " is too slow (" + s.engine->slow_reason + ")";
  if (s.config.freeze_alone)
    return wait("protected", why + ", but the policy says that writes wait for it");
  if (s.reg_read_at <= s.partner_slow_at) {
    s.want_read = true;
    return wait("protected", why + "; it is left when the arbiter answers");
  }
  return act("shrinking", "leave-slow-partner", why + ": go on without it",
             EngineLeaveSlowPartner{});
}

Verdict grow(State& s) {
  const EngineView& e = *s.engine;
  if (e.grow_mark && !stream_up(e))
    return act("fencing", "fence-swap", "the stream ended while the grow was being prepared",
               to_alone(s));
  if (s.vm_pending) return wait("growing", "waiting until the VM has been started or stopped");
  if (!s.lease_required)
    return act("growing", "require-lease",
               "with both in sync the VM needs a lease: make sure that one is held",
               RequireLease{e.epoch});
  if (e.grow_mark)
    return act("growing", "grow-swap", "mark durable, stream live, lease held: add the partner",
               CompareAndSwap{*s.reg, {next_epoch(s), Side::self, true, true}});
  return act("growing", "grow-prepare", "note durably that the in-sync set may become both",
             EngineGrowPrepare{e.epoch});
}

Verdict serve_alone(State& s) {
  const EngineView& e = *s.engine;
  if (e.grow_mark || e.session == SessionState::synced) return grow(s);
  if (e.session == SessionState::syncing)
    return wait("resyncing", "copying to " + s.config.partner);
  if (!s.partner_alive)
    return wait("alone", s.config.partner + " is not there; this node owns the VM alone");
  if (s.partner && s.partner->promised_epoch > s.reg->epoch)
    return act("alone", "raise-epoch",
               s.config.partner + " has promised a later epoch: raise it before connecting",
               to_alone(s));
  if (e.session == SessionState::connecting && e.partner_left)
    return wait("alone", "degraded: " + s.config.partner + " was left because it is too slow (" +
                             e.slow_reason + "); it is tried again later");
  if (e.session == SessionState::none)
    return act("alone", "connect", s.config.partner + " is there: bring its replica in sync",
               EngineConnect{});
  return wait("alone", "connecting to the engine of " + s.config.partner);
}

Verdict serve(State& s) {
  const EngineView& e = *s.engine;
  if (e.epoch > s.reg->epoch) {
    s.want_read = true;
    return wait("unconfirmed", "the engine has seen a later epoch than the register shows");
  }
  if (s.reg->both()) {
    if (!stream_up(e)) return become_alone(s);
    if (e.epoch < s.reg->epoch)
      return act("growing", "grow-commit", "the register names both: tell the engines",
                 EngineGrowCommit{s.reg->epoch});
    if (e.failed && s.partner_alive && !s.handover) {
      s.handover = Handover{s.reg->epoch, s.now, false, {}, false, false};
      return wait("handing-over",
                  "a disk of this replica failed: " + s.config.partner + " shall take over");
    }
    if (s.stopped_epoch == s.reg->epoch) {
      s.handover = Handover{s.reg->epoch, s.now, true, {}, false, false};
      return wait(
          "handing-over",
          "this node said that the VM is stopped at this epoch: take the hand-over up again");
    }
    if (e.partner_slow) return slow_partner(s);
    return wait("protected", "both replicas hold every completed write");
  }
  if (e.epoch < s.reg->epoch)
    return act("shrinking", "engine-shrink",
               "the register names this node alone: complete the held I/O",
               EngineShrink{s.reg->epoch});
  if (e.failed)
    return wait("held",
                "a disk of this replica failed and no other one holds every completed "
                "write: I/O is held; see dominfo");
  return serve_alone(s);
}

}  // namespace

Verdict decide_owner(State& s) {
  HAVM_ASSERT(s.reg && s.reg->owned() && s.engine,
              "the owner's rules need the register and the engine");
  if (s.handover) return hand_over(s);
  return s.engine->role == EngineRole::owner ? serve(s) : begin_service(s);
}

}  // namespace havm
