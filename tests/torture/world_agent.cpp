// The part of World that is the agents: the storage lane of docs/protocol/failover.md, mirrored
// from agent/failover (owner_rules.cpp, standby_rules.cpp) with chance instead of time.
#include <algorithm>
#include <utility>

#include "tests/torture/world.hpp"

namespace havm::torture {
namespace {

Register alone(int node, Epoch epoch) {
  Register r{epoch, node, {false, false}};
  r.in_sync[static_cast<std::size_t>(node)] = true;
  return r;
}

bool stream_up(const SimEngine& e) {
  return e.session() == SessionState::live || e.session() == SessionState::synced;
}

}  // namespace

bool World::hears(int node) const {
  return network_up_ && at(1 - node).up;
}

Epoch World::next_epoch(int node) {
  const Record& own = at(node).engine->record().record();
  Epoch epoch = std::max({register_.epoch, own.epoch, own.promised_epoch});
  const bool heard_promise = !chance_.one_in(4);  // what was heard last may be older
  if (heard_promise && hears(node) && at(1 - node).engine)
    epoch = std::max(epoch, at(1 - node).engine->record().record().promised_epoch);
  return epoch.next();
}

bool World::swap(int node, const Register& expected, const Register& next, const char* kind) {
  if (register_ != expected) return false;
  if (verbose_)
    trace(node, std::string(kind) + ": the register becomes epoch " +
                    std::to_string(next.epoch.value) + ", owner " + (next.owner == 0 ? "a" : "b") +
                    (next.both() ? ", both" : ", alone"));
  const Register before = std::exchange(register_, next);
  if (before.owner != next.owner)
    ++outcome_.reach.promotions;
  else if (before.both() && !next.both())
    ++outcome_.reach.shrinks;
  else if (!before.both() && next.both())
    ++outcome_.reach.grows;
  judge_.swapped(before, next, hears(node) && at(1 - node).engine != nullptr);
  return true;
}

bool World::swap_to_alone(int node, const char* kind) {
  return swap(node, register_, alone(node, next_epoch(node)), kind);
}

void World::agent_turn(int node) {
  Node& n = at(node);
  if (!n.up) return;
  if (!n.engine) {
    if (healing_ || chance_.one_in(4)) start_engine(node);
    return;
  }
  if (n.engine->busy()) return;
  take_answer(node);
  if (!arbiter_up_) return turn_without_arbiter(node);
  if (register_.owner == node)
    owner_turn(node);
  else
    standby_turn(node);
  if (n.engine) vm_turn(node);
}

void World::take_answer(int node) {
  Node& n = at(node);
  const bool succeeded = n.engine->last_succeeded();
  switch (std::exchange(n.agent.asked, Asked::nothing)) {
    case Asked::flush:
      n.agent.flushed = succeeded;
      return;
    case Asked::flush_of_handover:
      if (n.agent.handover) n.agent.handover->flushed = succeeded;
      return;
    case Asked::promise:
      if (n.agent.promotion && !succeeded)
        n.agent.promotion.reset();
      else if (n.agent.promotion)
        n.agent.promotion->promised = true;
      return;
    case Asked::nothing:
      return;
  }
}

void World::ask_flush(int node, Asked what) {
  at(node).agent.asked = what;
  at(node).engine->flush();
}

// Decision 7.
void World::turn_without_arbiter(int node) {
  SimEngine& e = *at(node).engine;
  const Record& own = e.record().record();
  const bool knew_register = !chance_.one_in(4);
  if (knew_register || e.is_owner() || own.state != ReplicaState::uptodate ||
      own.in_sync != InSync::self || own.grow_mark || own.promised_epoch != own.epoch)
    return;
  trace(node, "serves by its own record");
  e.serve(own.epoch);
}

// ---- the owner -------------------------------------------------------------------------------

void World::owner_turn(int node) {
  Node& n = at(node);
  n.agent.promotion.reset();
  if (n.agent.handover && n.agent.handover->epoch != register_.epoch) n.agent.handover.reset();
  if (n.agent.handover) return hand_over(node);
  if (n.engine->is_owner())
    serve_turn(node);
  else
    begin_service(node);
}

void World::hand_over(int node) {
  Node& n = at(node);
  Handover& h = *n.agent.handover;
  const bool suspect = n.engine->record().suspect();
  if (vm_node_ == node) return kill_vm();
  if (chance_.one_in(12) || h.flushed) {  // the partner did not take over in time
    if (!suspect && !h.flushed) return ask_flush(node, Asked::flush_of_handover);
    n.agent.handover.reset();
    if (!suspect) swap_to_alone(node, "handover-failed");
    return;
  }
  n.stopped_epoch = h.epoch;
  if (hears(node)) at(1 - node).agent.takeover_proof = h.epoch;
}

void World::begin_service(int node) {
  Node& n = at(node);
  SimEngine& e = *n.engine;
  const Record& own = e.record().record();
  if (own.state != ReplicaState::uptodate)
    return violate("the register names a replica that is not up to date");
  if (register_.both() && !n.agent.flushed) return ask_flush(node, Asked::flush);
  if (register_.both()) {
    if (e.record().suspect()) return suspect_start(node);
    swap_to_alone(node, "restart-shrink");
    return;
  }
  const bool unsettled = own.grow_mark && register_.epoch <= own.epoch;
  if (unsettled || own.promised_epoch > register_.epoch) {
    swap_to_alone(node, "fence-swap");
    return;
  }
  trace(node, "serves");
  e.serve(register_.epoch);
}

void World::suspect_start(int node) {
  Node& n = at(node);
  const bool grace = !chance_.one_in(8);
  const SimEngine* partner = hears(node) ? at(1 - node).engine.get() : nullptr;
  if (partner != nullptr) {
    if (partner->record().suspect()) {
      swap_to_alone(node, "suspect-shrink");
      return;
    }
    if (partner->record().record().state == ReplicaState::uptodate) {
      n.agent.handover = Handover{register_.epoch, false};
      return;
    }
  }
  if (!grace) swap_to_alone(node, "grace-shrink");
}

void World::serve_turn(int node) {
  Node& n = at(node);
  SimEngine& e = *n.engine;
  if (stream_up(e)) n.agent.flushed = false;
  if (register_.both()) {
    if (!stream_up(e)) return become_alone(node);
    if (e.primary().epoch() < register_.epoch) {
      trace(node, "grow-commit");
      return e.grow_commit(register_.epoch);
    }
    if (n.stopped_epoch == register_.epoch) n.agent.handover = Handover{register_.epoch, false};
    return;
  }
  if (e.primary().epoch() < register_.epoch) {
    trace(node, "shrink");
    n.agent.flushed = false;
    return e.shrink(register_.epoch);
  }
  if (e.record().record().grow_mark || e.session() == SessionState::synced) return grow_turn(node);
  alone_turn(node);
}

void World::become_alone(int node) {
  if (!at(node).agent.flushed) return ask_flush(node, Asked::flush);
  swap_to_alone(node, "shrink-swap");
}

void World::grow_turn(int node) {
  SimEngine& e = *at(node).engine;
  if (e.record().record().grow_mark && !stream_up(e)) {
    swap_to_alone(node, "fence-swap");
    return;
  }
  if (!e.record().record().grow_mark) {
    if (!e.primary().can_grow()) return;
    trace(node, "grow-prepare");
    return e.grow_prepare();
  }
  Register both = register_;
  both.epoch = next_epoch(node);
  both.in_sync = {true, true};
  swap(node, register_, both, "grow-swap");
}

void World::alone_turn(int node) {
  SimEngine& e = *at(node).engine;
  if (e.session() == SessionState::syncing || !hears(node)) return;
  const SimEngine* partner = at(1 - node).engine.get();
  if (partner != nullptr && partner->record().record().promised_epoch > register_.epoch) {
    swap_to_alone(node, "raise-epoch");
    return;
  }
  if (e.session() == SessionState::none) e.connect();
}

// ---- the partner -----------------------------------------------------------------------------

void World::standby_turn(int node) {
  Node& n = at(node);
  SimEngine& e = *n.engine;
  n.agent.handover.reset();
  if (e.is_owner()) {
    if (vm_node_ == node) return kill_vm();
    trace(node, "is deposed and stands by");
    return e.stand_by();
  }
  if (n.agent.promotion) return go_on_promoting(node);
  const Record& own = e.record().record();
  const bool left_behind =
      !register_.in_sync[static_cast<std::size_t>(node)] && register_.epoch > own.promised_epoch;
  if (left_behind && own.state == ReplicaState::uptodate) return e.stand_by();
  consider_promotion(node);
}

void World::go_on_promoting(int node) {
  Node& n = at(node);
  const Promotion p = *n.agent.promotion;
  if ((hears(node) && !p.proven) || p.from != register_) {
    n.agent.promotion.reset();
    return;
  }
  if (!p.promised) {
    trace(node, "promises epoch " + std::to_string(p.epoch.value));
    n.agent.asked = Asked::promise;
    return n.engine->promise(p.epoch);
  }
  n.agent.promotion.reset();
  // Or the swap never arrives; a later promise is higher.
  if (!chance_.one_in(4)) swap(node, p.from, alone(node, p.epoch), "promote-swap");
}

void World::consider_promotion(int node) {
  Node& n = at(node);
  const SimEngine& e = *n.engine;
  const bool proven = n.agent.takeover_proof == register_.epoch;
  // The agent waits for the end of the session; the engines must not depend on that.
  const bool impatient = chance_.one_in(3);
  const bool owner_may_live = hears(node) || (e.secondary().has_session() && !impatient);
  if (!proven && (owner_may_live || !chance_.one_in(3))) return;
  const Record& own = e.record().record();
  if (!register_.in_sync[static_cast<std::size_t>(node)] || own.state != ReplicaState::uptodate ||
      e.record().suspect())
    return;
  const Epoch epoch = std::max({register_.epoch, own.epoch, own.promised_epoch}).next();
  n.agent.promotion = Promotion{register_, epoch, false, proven};
}

}  // namespace havm::torture
