// The job of State: everything the failover core knows about one VM on one node, and of Decision:
// what it decides and why. Data only; the rules are in failover_core.hpp, the events that change
// the knowledge in failover_types.hpp.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/failover/failover_types.hpp"

namespace havm {

// ---- decisions
// ------------------------------------------------------------------------------------ One
// decision: what is done and why, one sentence. `kind` is a word for programs ("cas-won", …).
struct Decision {
  std::string kind;
  std::string reason;
  std::optional<Action> action;
};

struct Promotion {
  Epoch epoch;        // promised, then swapped
  RegisterView from;  // what the swap expects
  bool promised = false;
  bool proven = false;  // the old owner said "stopped" at from.epoch
};

struct Handover {
  Epoch epoch;
  TimePoint since{};
  bool persisted = false;
  TimePoint asked_at{};
  bool asked = false;
  bool flushed = false;  // the own replica is durable, should the partner not take over
};

struct State {
  FailoverConfig config;
  TimePoint now{};
  TimePoint born{};  // when this agent took up the VM

  std::optional<RegisterView> reg;  // last successful read or CAS answer
  TimePoint reg_read_at{};
  bool reg_missing = false;
  bool want_read = true;
  std::optional<Epoch> refused_epoch;  // shown by the arbiter, older than what this node has seen
  std::optional<TimePoint> arbiter_granted_partner_at;

  std::optional<EngineView> engine;
  VmState vm = VmState::unknown;
  Desired desired = Desired::off;

  bool partner_alive = false;
  bool partner_seen = false;    // heard at least once since this agent started
  bool partner_silent = false;  // silent long enough to be lost
  TimePoint partner_silent_at{};
  TimePoint partner_slow_at{};  // since when, while engine->partner_slow
  std::optional<PartnerReport> partner;

  std::optional<TimePoint> lease_sent;  // newest grant held, counted from its request
  std::optional<CompareAndSwap> unsettled;
  std::optional<Promotion> promotion;
  std::optional<Epoch> proven_epoch;  // owned since a proof of stop: no lease wait at this epoch
  bool lease_waited = false;
  std::optional<Handover> handover;
  std::optional<Epoch> stopped_epoch;  // durable: said "stopped" at this epoch
  std::optional<Epoch> takeover_proof;
  bool takeover_wanted = false;  // a person asked this node to take over
  bool flushed_for_shrink = false;
  bool lease_required = false;  // the guard confirmed a lease for the grow that is being prepared
  std::optional<Wish> wish;     // shutdown or destroy, not yet carried out
  bool vm_paused_by_us = false;
  bool vm_crashed = false;
  int crash_restarts = 0;

  std::optional<Action> storage_pending;
  std::optional<Action> vm_pending;
  TimePoint storage_retry_at{};
  TimePoint read_retry_at{};
  TimePoint vm_retry_at{};
  std::string phase = "starting";
  std::string reason = "this node has just taken up the VM";
};

// What step() returns: the decisions in the order in which they must be executed.
struct StepResult {
  std::vector<Decision> decisions;
};

}  // namespace havm
