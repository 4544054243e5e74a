// Storage lane of the node that the register does not name as owner.
#include <algorithm>

#include "agent/failover/failover_core.hpp"
#include "agent/failover/verdict.hpp"
#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

// Rule 6: this node was owner and is no longer.
Verdict step_down(State& s) {
  if (s.vm != VmState::off)
    return wait("deposed",
                "the register names " + s.config.partner + ": stopping the VM on this node");
  return act(
      "deposed", "stand-by",
      "the register names " + s.config.partner + ": close the disks, this replica is outdated",
      EngineStandBy{true});
}

// Empty when this node could promote itself now, else why not.
std::string obstacle(const State& s) {
  const EngineView& e = *s.engine;
  if (!s.reg->self_in_sync) return "this replica does not hold every completed write";
  if (e.state != ReplicaState::uptodate) return "this replica is not up to date";
  if (e.suspect) return "this host went down uncleanly: its replica may miss completed writes";
  if (e.failed) return "a disk of this replica failed";
  return {};
}

// Why this node should take the VM over; empty: it should not.
std::string motive(const State& s) {
  if (s.takeover_proof == s.reg->epoch)
    return s.config.partner + " stopped the VM at this epoch and asks for it";
  if (!s.partner_silent || s.engine->session == SessionState::secondary) return {};
  if (s.takeover_wanted)
    return "the administrator asks for it and " + s.config.partner + " is lost";
  if (s.config.automatic && s.desired == Desired::running) return s.config.partner + " is lost";
  return {};
}

bool owner_seen_by_arbiter(const State& s) {
  return s.arbiter_granted_partner_at &&
         s.now - *s.arbiter_granted_partner_at < s.config.peer_timeout;
}

Verdict go_on_promoting(State& s) {
  Promotion& p = *s.promotion;
  if (s.partner_alive && !p.proven) {
    s.promotion.reset();
    return wait("standby", s.config.partner + " is heard again: the incumbent keeps the VM");
  }
  if (!p.promised)
    return act("promoting", "promise",
               "reject the old owner and grant it no more leases before touching the register",
               EnginePromise{p.epoch});
  return act("promoting", "promote-swap", "take the VM over in the register",
             CompareAndSwap{p.from, {p.epoch, Side::self, true, false}});
}

Verdict consider_promotion(State& s) {
  const std::string why = motive(s);
  if (why.empty()) {
    if (s.partner_silent && !s.config.automatic)
      return wait("standby",
                  s.config.partner + " is lost; the policy leaves the failover to a person");
    return wait("standby", s.config.partner + " owns the VM");
  }
  if (const std::string why_not = obstacle(s); !why_not.empty())
    return wait("standby", "not taking over although " + why + ": " + why_not);
  const bool proven = s.takeover_proof == s.reg->epoch;
  if (!proven && s.reg_read_at < s.partner_silent_at) {
    s.want_read = true;
    return wait("standby", "reading the register before anything is decided");
  }
  if (!proven && owner_seen_by_arbiter(s)) {
    s.want_read = true;
    s.storage_retry_at = s.now + s.config.retry_delay;
    return wait("standby",
                s.config.partner +
                    " is silent here but renews its lease at the arbiter: the incumbent wins");
  }
  const EngineView& e = *s.engine;
  const Epoch epoch = std::max({s.reg->epoch, e.epoch, e.promised_epoch}).next();
  s.promotion = Promotion{epoch, *s.reg, false, proven};
  return act("promoting", "promise", "taking over because " + why + ": first reject the old owner",
             EnginePromise{epoch});
}

}  // namespace

Verdict decide_standby(State& s) {
  HAVM_ASSERT(s.reg && !s.reg->owned() && s.engine,
              "the standby's rules need the register and the engine");
  const EngineView& e = *s.engine;
  if (e.role == EngineRole::owner) {
    if (s.reg->epoch >= e.epoch) return step_down(s);
    s.want_read = true;
    return wait("unconfirmed", "the engine serves a later epoch than the register shows");
  }
  if (s.promotion) return go_on_promoting(s);
  const bool left_behind = !s.reg->self_in_sync && s.reg->epoch > e.promised_epoch;
  if (left_behind && e.state == ReplicaState::uptodate)
    return act("standby", "stand-by", s.config.partner + " went on alone: this replica is outdated",
               EngineStandBy{true});
  return consider_promotion(s);
}

}  // namespace havm
