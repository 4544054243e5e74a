// Events change the knowledge. Nothing is decided here.
#include <utility>

#include "agent/failover/failover_core.hpp"
#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

using Notes = std::vector<Decision>;

void note(Notes& notes, std::string kind, std::string reason) {
  notes.push_back({std::move(kind), std::move(reason), std::nullopt});
}

// ---- the register
// -----------------------------------------------------------------------------------

void promotion_ended(State& s, Notes& notes) {
  const Promotion won = *s.promotion;
  s.promotion.reset();
  s.takeover_proof.reset();
  s.takeover_wanted = false;
  if (won.proven) s.proven_epoch = won.epoch;
  note(notes, "cas-won", "the register now names this node: " + describe(s, *s.reg));
}

void learn_register(State& s, const RegisterView& view, Notes& notes) {
  s.reg_missing = false;
  if (s.reg && view.epoch < s.reg->epoch) {
    s.want_read = true;
    s.read_retry_at = s.now + s.config.register_poll;
    if (std::exchange(s.refused_epoch, view.epoch) == view.epoch) return;
    note(notes, "register-went-back",
         "the arbiter shows " + describe(s, view) + " but this node has seen " +
             describe(s, *s.reg) +
             ": it is not believed; was the arbiter restored from an old copy?");
    return;
  }
  const bool changed = !s.reg || !(*s.reg == view);
  s.reg = view;
  s.reg_read_at = s.now;
  if (s.unsettled && view.epoch > s.unsettled->expect.epoch) s.unsettled.reset();
  if (!changed) return;
  if (s.promotion && view.epoch > s.promotion->from.epoch) {
    if (view.owned() && view.epoch == s.promotion->epoch) return promotion_ended(s, notes);
    s.promotion.reset();
    note(notes, "promotion-lost", "somebody else was first: " + describe(s, view));
  }
  if (s.takeover_proof && *s.takeover_proof < view.epoch) s.takeover_proof.reset();
  if (s.handover && view.epoch > s.handover->epoch) {
    note(notes, "handed-over", "the hand-over ended with " + describe(s, view));
    s.handover.reset();
  }
  note(notes, "register", "the register says " + describe(s, view));
}

void register_answer(State& s, const Completed& done, Notes& notes) {
  if (done.outcome != Completed::Outcome::ok) {
    s.want_read = true;
    s.read_retry_at = s.now + s.config.retry_delay;
    return;
  }
  s.arbiter_granted_partner_at = done.partner_granted_at;
  if (done.register_view) return learn_register(s, *done.register_view, notes);
  s.reg_missing = true;
  s.storage_retry_at = s.now + s.config.retry_delay;
  s.reg_read_at = s.now;
}

void swap_answer(State& s, const CompareAndSwap& cas, const Completed& done, Notes& notes) {
  register_answer(s, done, notes);
  if (done.outcome != Completed::Outcome::ok || !done.applied) return;
  if (cas.to.both()) note(notes, "grown", "both replicas are in sync: " + describe(s, cas.to));
  if (cas.expect.both() && cas.to.owned() && cas.expect.owned() && !cas.to.both())
    note(notes, "shrunk", "this node goes on alone: " + describe(s, cas.to));
}

// ---- answers to actions
// -----------------------------------------------------------------------------

void promise_answer(State& s, const Completed& done, Notes& notes) {
  if (!s.promotion) return;
  if (done.outcome != Completed::Outcome::ok) {
    note(notes, "promise-failed", "the engine refused to promise: " + done.error);
    s.promotion.reset();
    s.storage_retry_at = s.now + s.config.retry_delay;
    return;
  }
  s.promotion->promised = true;
  note(notes, "promise",
       "the engine rejects older owners and grants no lease below epoch " +
           std::to_string(s.promotion->epoch.value));
}

void storage_answer(State& s, const Completed& done, Notes& notes) {
  HAVM_ASSERT(s.storage_pending.has_value(), "an answer belongs to an action");
  const Action action = *s.storage_pending;
  s.storage_pending.reset();
  const bool ok = done.outcome == Completed::Outcome::ok;
  if (std::holds_alternative<ReadRegister>(action)) return register_answer(s, done, notes);
  if (const auto* cas = std::get_if<CompareAndSwap>(&action))
    return swap_answer(s, *cas, done, notes);
  if (std::holds_alternative<EnginePromise>(action)) return promise_answer(s, done, notes);
  if (!ok) {
    s.storage_retry_at = s.now + s.config.retry_delay;
    note(notes, "failed", std::string(name_of(action)) + ": " + done.error);
    return;
  }
  if (std::holds_alternative<EngineFlush>(action)) {
    s.flushed_for_shrink = true;
    if (s.handover) s.handover->flushed = true;
  }
  if (std::holds_alternative<RequireLease>(action)) s.lease_required = true;
  if (std::holds_alternative<EngineShrink>(action)) s.flushed_for_shrink = false;
  if (std::holds_alternative<EngineConnect>(action))
    s.storage_retry_at = s.now + s.config.retry_delay;
  if (std::holds_alternative<EngineGrowPrepare>(action)) s.lease_required = false;
  if (const auto* stopped = std::get_if<PersistStopped>(&action)) {
    s.stopped_epoch = stopped->epoch;
    if (s.handover) s.handover->persisted = true;
  }
  if (std::holds_alternative<AskTakeover>(action) && s.handover) {
    s.handover->asked = true;
    s.handover->asked_at = s.now;
  }
}

void start_answer(State& s, const Completed& done, Notes& notes) {
  if (done.outcome == Completed::Outcome::ok) {
    s.vm = VmState::running;
    s.vm_crashed = false;
    note(notes, "vm-started", "the VM runs on " + s.config.self);
    return;
  }
  note(notes, "failed", "the VM could not be started on " + s.config.self + ": " + done.error);
}

void vm_answer(State& s, const Completed& done, Notes& notes) {
  HAVM_ASSERT(s.vm_pending.has_value(), "an answer belongs to an action");
  const Action action = *s.vm_pending;
  s.vm_pending.reset();
  const bool ok = done.outcome == Completed::Outcome::ok;
  s.vm_retry_at = s.now + (ok && !std::holds_alternative<ResumeVm>(action) ? Duration::zero()
                                                                           : s.config.retry_delay);
  if (std::holds_alternative<StartVm>(action)) return start_answer(s, done, notes);
  if (!ok) return note(notes, "failed", std::string(name_of(action)) + ": " + done.error);
  if (std::holds_alternative<ShutdownVm>(action)) s.wish.reset();
  if (std::holds_alternative<PauseVm>(action)) {
    s.vm_paused_by_us = true;
    note(notes, "paused", "every vCPU of the VM on " + s.config.self + " is stopped");
  }
  if (std::holds_alternative<KillVm>(action)) {
    s.vm = VmState::off;
    s.vm_paused_by_us = false;
    s.wish.reset();
    note(notes, "stopped", "the VM on " + s.config.self + " has ended");
  }
}

// ---- one overload per event
// -------------------------------------------------------------------------

void on(State&, const Tick&, Notes&) {}

void on(State& s, const EngineChanged& e, Notes& notes) {
  const bool was_live = s.engine && s.engine->session == SessionState::live;
  const bool is_live = e.view && e.view->session == SessionState::live;
  if (was_live && !is_live) {
    s.want_read = true;
    note(notes, "session-lost", "the replication session ended while both replicas were in sync");
  }
  if (e.view && e.view->partner_slow && !(s.engine && s.engine->partner_slow)) {
    s.partner_slow_at = s.now;
    note(notes, "partner-slow", s.config.partner + ": " + e.view->slow_reason);
  }
  const bool was_synced = s.engine && s.engine->session == SessionState::synced;
  const bool is_synced = e.view && e.view->session == SessionState::synced;
  if (is_synced && !was_synced)
    note(notes, "synced", "the partner's replica is complete and durable");
  if (!is_synced) s.lease_required = false;
  if (is_live || is_synced) s.flushed_for_shrink = false;
  const bool restarted = s.engine && s.engine->role == EngineRole::owner &&
                         (!e.view || e.view->role != EngineRole::owner);
  if (restarted) s.flushed_for_shrink = false;
  s.engine = e.view;
}

void on(State& s, const VmChanged& e, Notes&) {
  s.vm = e.state;
  if (e.state == VmState::off || e.state == VmState::unknown) s.vm_paused_by_us = false;
}

void on(State& s, const VmEnded& e, Notes& notes) {
  s.vm = VmState::off;
  s.vm_paused_by_us = false;
  const bool ours = s.handover || s.wish || s.desired == Desired::off || !s.reg || !s.reg->owned();
  if (ours) return;
  if (e.crash) {
    s.vm_crashed = true;
    ++s.crash_restarts;
    note(notes, "vm-crashed", "the VM's QEMU process ended unexpectedly");
    return;
  }
  s.desired = Desired::off;
  note(notes, "stay-off",
       "the VM was shut down from inside or by hand: it stays off until it is started");
}

void on(State& s, const PartnerHeard&, Notes& notes) {
  if (!s.partner_alive && s.partner_seen)
    note(notes, "partner-back", s.config.partner + " is heard again");
  s.partner_alive = true;
  s.partner_seen = true;
  s.partner_silent = false;
}

void on(State& s, const PartnerSilent&, Notes& notes) {
  s.partner_alive = false;
  s.partner.reset();
  if (s.partner_silent) return;
  s.partner_silent = true;
  s.partner_silent_at = s.now;
  s.want_read = true;
  note(notes, "partner-lost",
       "no heartbeat of " + s.config.partner + " on any link for " +
           std::to_string(to_ms(s.config.peer_timeout)) + " ms");
}

void on(State& s, const PartnerReported& e, Notes&) {
  s.partner = e.report;
}

void on(State& s, const TakeoverAsked& e, Notes& notes) {
  if (s.takeover_proof == e.epoch || (s.reg && s.reg->epoch > e.epoch)) return;
  s.takeover_proof = e.epoch;
  s.want_read = true;
  note(notes, "takeover-asked",
       s.config.partner + " stopped the VM at epoch " + std::to_string(e.epoch.value) +
           " and asks this node to take over");
}

void on(State& s, const LeaseGranted& e, Notes&) {
  if (!s.lease_sent || *s.lease_sent < e.sent) s.lease_sent = e.sent;
}

void on(State& s, const Requested& e, Notes& notes) {
  switch (e.wish) {
    case Wish::start:
      s.desired = Desired::running;
      s.crash_restarts = 0;
      s.vm_crashed = false;
      s.wish.reset();
      return note(notes, "wish", "the administrator wants the VM to run");
    case Wish::shutdown:
    case Wish::destroy:
      s.desired = Desired::off;
      s.wish = e.wish;
      return note(notes, "wish", "the administrator wants the VM to stop");
    case Wish::failover:
      if (s.reg && s.reg->owned()) {
        if (!s.reg->both() || !s.engine || s.engine->session != SessionState::live ||
            !s.partner_alive)
          return note(notes, "refused",
                      s.config.partner + " is not in sync or not there: it cannot take over");
        s.handover = Handover{s.reg->epoch, s.now, false, {}, false, false};
        return note(notes, "wish", "the administrator asks for a failover to " + s.config.partner);
      }
      s.takeover_wanted = true;
      s.want_read = true;
      return note(notes, "wish", "the administrator asks this node to take the VM over");
  }
}

void on(State& s, const DesiredChanged& e, Notes&) {
  if (s.reg && s.reg->owned()) return;  // the owner decides what is wanted
  s.desired = e.desired;
}

void on(State& s, const Completed& e, Notes& notes) {
  if (e.lane == Lane::storage) return storage_answer(s, e, notes);
  vm_answer(s, e, notes);
}

}  // namespace

void apply_event(State& state, const Event& event, std::vector<Decision>& notes) {
  std::visit([&](const auto& e) { on(state, e, notes); }, event);
}

}  // namespace havm
