// The job of guard_core: decide when one VM's QEMU must be paused, killed or may run again, from
// the grants, commands and observations told to it (docs/protocol/guard.md). Pure: time arrives in
// events. Guarantees, T being the lease:
//  1. A VM that needs a lease is told to pause at the first event later than 0.3 T after the
//  sending of
//     its newest grant, and to die when the pause is not confirmed 0.15 T later (0.45 T after the
//     grant).
//  2. A pause ends only by a grant sent after it, or by `alone`; never while under `stop`.
//  3. A VM known to be alone is never paused but by `stop`.
//  4. What is bound to an epoch lower than the watched one changes nothing.
#pragma once

#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/strong_types.hpp"

namespace havm {

struct GuardTimes {
  Duration lease;  // T
  [[nodiscard]] Duration pause_after() const { return lease * 3 / 10; }
  [[nodiscard]] Duration kill_after() const { return lease * 45 / 100; }
  [[nodiscard]] Duration confirm_within() const { return lease * 15 / 100; }
  [[nodiscard]] Duration gap_limit() const { return lease / 4; }  // of the guard's own loop
};

enum class GuardPhase {
  Running,
  Stopping,  // SIGSTOP sent, not every thread seen stopped
  Paused,
  Killing,  // SIGKILL sent, the process is not gone
  Gone,
};

struct GuardVm {
  Epoch epoch;
  bool needs_lease = true;
  bool held = false;     // under `stop`
  bool alarmed = false;  // a confirmation is overdue and that was said
  GuardPhase phase = GuardPhase::Running;
  TimePoint last_sent{};  // when the newest grant was requested; zero: never
  TimePoint paused_at{};  // when the last SIGSTOP was decided
  TimePoint killed_at{};
};

enum class GuardEventKind {
  Watch,
  Renew,
  Alone,
  Lease,
  Stop,
  Kill,
  Continue,  // commands
  Tick,
  Gap,  // time passed; the loop itself had a gap
  SeenRunning,
  SeenStopped,
  SeenGone,  // the process was looked at
};

struct GuardEvent {
  GuardEventKind kind = GuardEventKind::Tick;
  TimePoint now{};
  Epoch epoch;       // of commands that carry one
  TimePoint sent{};  // Watch, Renew
};

enum class GuardAction { None, Pause, Resume, Kill, Alarm };
// Now: `reply` is the answer. Else it is given when the pause or the end of the process was seen.
enum class GuardAnswer { Now, WhenPaused, WhenGone };

struct GuardDecision {
  GuardVm vm;  // the next state
  GuardAction action = GuardAction::None;
  GuardAnswer answer = GuardAnswer::Now;
  const char* reply = "ok";  // to commands: "ok…" or "error…"
  const char* reason = "";   // one sentence, when there is an action
};

GuardDecision guard_step(const GuardVm& vm, const GuardEvent& event, const GuardTimes& times);

// The next time at which a Tick has something to decide; TimePoint::max() when none.
TimePoint guard_deadline(const GuardVm& vm, const GuardTimes& times);

}  // namespace havm
