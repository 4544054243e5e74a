// The job of the failover core: decide, for one VM on one node, what to do next, and say why. It is
// a pure function of what it was told; the daemon, the simulator and the scenario files run it
// unchanged. Read docs/protocol/failover.md beside it: the rule numbers in reasons and comments are
// that page's.
//
// How it works: every event changes the knowledge in State (on_event.cpp); then each of two lanes
// that has nothing under way asks its rules for the next action: `storage` (engine, register;
// owner_rules.cpp, standby_rules.cpp) and `vm` (hypervisor, guard; vm_rules.cpp). The rules look
// only at State, so after a crash of the agent the same knowledge leads to the same action.
//
// Invariants
//  FO-1  The VM is started only on the owner named by the register at the engine's epoch, after the
//  lease wait, and
//        with both nodes in sync only under a grant (rules 9, 10).
//  FO-2  A swap is settled only by a register whose epoch is greater than the one it expected (rule
//  5). FO-3  Promotion: engine promise first, swap after, service last (rule 4); never from a
//  register that does not
//        name this node in sync, never with a suspect or incomplete replica.
//  FO-4  Alone only after flush and swap; the engine is told `shrink` only then (rule 3).
//  FO-5  A grow is swapped only with the mark durable, the stream live and a lease held (rule 7).
//  FO-6  A node that said "stopped" at an epoch never starts the VM at that epoch.
//  FO-7  A VM found running while the register names the partner is paused, then killed (rule 6).
#pragma once

#include "agent/failover/failover_state.hpp"
#include "agent/failover/verdict.hpp"

namespace havm {

State make_state(FailoverConfig config, TimePoint now);

// Takes one event at time `now` (never earlier than before) and returns the decisions, in order.
StepResult step(State& state, TimePoint now, const Event& event);

// T(1+ρ): how long after a grant was given its holder may still act on it.
Duration lease_wait(const FailoverConfig& config);

// 0.3 T: how long after its request a grant lets vCPUs run.
Duration lease_use(const FailoverConfig& config);

// The rules, one function per lane and role; each returns at most one decision.
Verdict decide_owner(State& state);    // storage lane, the register names this node
Verdict decide_standby(State& state);  // storage lane, the register names the partner
Verdict decide_vm(State& state);       // vm lane

// Applies an event to the knowledge; notes what a person should read.
void apply_event(State& state, const Event& event, std::vector<Decision>& notes);

// "epoch 4, owner a, in-sync {a,b}"
std::string describe(const State& state, const RegisterView& view);

}  // namespace havm
