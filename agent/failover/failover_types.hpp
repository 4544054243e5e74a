// The job of these types: how the failover core sees the world (views of register, engine, VM and
// partner), what can happen to a VM (Event) and what the core may ask for (Action). Data only; what
// the core remembers is State in failover_state.hpp, the rules are in failover_core.hpp.
// Nodes appear as `self` and `partner`: the core is the same program on both.
#pragma once

#include <optional>
#include <string>
#include <variant>

#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/strong_types.hpp"

namespace havm {

enum class Side { self, partner };

// The register of the VM as this node sees it: docs/protocol/witness.md. The owner is always in
// sync.
struct RegisterView {
  Epoch epoch;
  Side owner = Side::self;
  bool self_in_sync = false;
  bool partner_in_sync = false;
  bool operator==(const RegisterView&) const = default;

  [[nodiscard]] bool owned() const { return owner == Side::self; }
  [[nodiscard]] bool both() const { return self_in_sync && partner_in_sync; }
};

enum class ReplicaState { uptodate, inconsistent, outdated };
enum class EngineRole { none, owner, secondary };
enum class RecordedSet { none, self, both };
enum class SessionState { none, connecting, syncing, synced, live, secondary };

// What the engine of this node last said of itself (docs/protocol/engine-control.md, status).
struct EngineView {
  EngineRole role = EngineRole::none;
  Epoch epoch;
  Epoch promised_epoch;
  ReplicaState state = ReplicaState::inconsistent;
  RecordedSet in_sync = RecordedSet::none;
  bool grow_mark = false;
  bool suspect = false;
  SessionState session = SessionState::none;
  bool failed = false;        // a disk of this replica failed
  bool partner_slow = false;  // it answers too slowly now, see vmrepl/session/slow_partner_core.hpp
  bool partner_left = false;  // for that, and it is not tried again yet
  std::string slow_reason;    // of either; empty: never
  TimePoint granted_at{};     // latest lease this engine may have granted to the partner
  bool operator==(const EngineView&) const = default;
};

enum class VmState { unknown, off, running, paused_by_error, paused };
enum class Desired { running, off };

// What the partner's agent says of this VM, bound to that agent's boot id and epoch.
struct PartnerReport {
  bool suspect = false;
  bool uptodate = false;
  Epoch promised_epoch;
  bool operator==(const PartnerReport&) const = default;
};

struct FailoverConfig {
  std::string self = "self";
  std::string partner = "partner";
  bool automatic = true;        // policy failover.mode
  bool freeze_alone = false;    // policy replication.on_peer_loss = freeze
  Duration lease{};             // T
  long drift_ppm = 10'000;      // bound of the difference between the clocks' rates
  Duration peer_timeout{};      // heartbeats silent this long: partner lost
  Duration boot_grace{};        // a suspect incumbent waits this long for its partner
  Duration register_poll{};     // the register is read again after this
  Duration handover_timeout{};  // a partner that was asked to take over and did not
  Duration retry_delay{};       // pace of repeated attempts
};

// ---- actions
// -------------------------------------------------------------------------------------- Two lanes;
// at most one action of each is under way. Every action is answered by one Completed event.
enum class Lane { storage, vm };

struct ReadRegister {};
struct CompareAndSwap {
  RegisterView expect;
  RegisterView to;
};
struct EnginePromise {
  Epoch epoch;
};
struct EngineServe {
  Epoch epoch;
};
struct EngineConnect {};
struct EngineLeaveSlowPartner {};  // ends the session; what was required of the partner is held
struct EngineFlush {};
struct EngineShrink {
  Epoch epoch;
};
struct EngineGrowPrepare {
  Epoch epoch;
};
struct EngineGrowCommit {
  Epoch epoch;
};
struct EngineStandBy {
  bool outdated = false;
};
struct RequireLease {
  Epoch epoch;
};  // the guard must hold a valid grant, else it fails
struct PersistStopped {
  Epoch epoch;
};  // durable: this node does not run the VM again at this epoch
struct AskTakeover {
  Epoch epoch;
};  // tell the partner: stopped here, bound to this epoch
struct StartVm {
  Epoch epoch;
  bool alone = true;
};
struct ResumeVm {};
struct PauseVm {};     // SIGSTOP confirmed by the guard, not taken back by renewals
struct KillVm {};      // SIGKILL by pidfd, confirmed
struct ShutdownVm {};  // asks the guest

using Action = std::variant<ReadRegister, CompareAndSwap, EnginePromise, EngineServe, EngineConnect,
                            EngineLeaveSlowPartner, EngineFlush, EngineShrink, EngineGrowPrepare,
                            EngineGrowCommit, EngineStandBy, RequireLease, PersistStopped,
                            AskTakeover, StartVm, ResumeVm, PauseVm, KillVm, ShutdownVm>;

Lane lane_of(const Action& action);
const char* name_of(const Action& action);

// ---- events
// ---------------------------------------------------------------------------------------
struct Tick {};
struct EngineChanged {
  std::optional<EngineView> view;
};  // nullopt: not running or not answering
struct VmChanged {
  VmState state = VmState::unknown;
};
// The VM ended by itself or by hand: only a `crash` is repaired by a restart.
struct VmEnded {
  bool crash = false;
};
struct PartnerHeard {};   // a heartbeat whose counter advanced
struct PartnerSilent {};  // all heartbeats silent for peer_timeout, by two live readings
struct PartnerReported {
  std::optional<PartnerReport> report;
};  // nullopt: the partner was rebooted
struct TakeoverAsked {
  Epoch epoch;
};  // proof: the partner stopped the VM, bound to this epoch
struct LeaseGranted {
  TimePoint sent;
};  // by the partner's engine or the arbiter; when it was requested
enum class Wish { start, shutdown, destroy, failover };
struct Requested {
  Wish wish;
};
struct DesiredChanged {
  Desired desired;
};  // the owner told us what the administrator wants

// The answer to the action of one lane.
struct Completed {
  Lane lane = Lane::storage;
  enum class Outcome {
    ok,
    failed,
    unknown
  } outcome = Outcome::ok;  // unknown: no answer to a CAS or read
  std::string error;
  std::optional<RegisterView>
      register_view;     // read, CAS: the present register (nullopt: it does not exist)
  bool applied = false;  // CAS
  std::optional<TimePoint>
      partner_granted_at;  // CAS, read: the arbiter's latest grant to the partner
};

using Event = std::variant<Tick, EngineChanged, VmChanged, VmEnded, PartnerHeard, PartnerSilent,
                           PartnerReported, TakeoverAsked, LeaseGranted, Requested, DesiredChanged,
                           Completed>;

}  // namespace havm
