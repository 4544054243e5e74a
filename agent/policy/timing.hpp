// The job of Timing: every interval on which detection and leases depend, and the inequality that
// makes G3 hold: an old owner's vCPUs have stopped before a successor may start
// (docs/protocol/witness.md, guard.md).
//
// With T = lease and ρ = drift, counted from the request of the last grant:
//   renewed every heartbeat/keepalive → paused at 0.3 T → killed at 0.45 T → gone by 0.6 T (guard)
//   successor starts T(1+ρ) after the grant was given, by its own clock
// Invariants (check_timing)
//   TI-1  2 × max(heartbeat, keepalive) + margin < 0.3 T    a late renewal does not pause a healthy
//   VM TI-2  0.6 T < T(1−ρ)                                    gone before the lease ends on any
//   clock TI-3  4 × heartbeat ≤ peer_timeout, 4 × keepalive ≤ session_timeout   a few lost messages
//   are no failure TI-4  peer_timeout ≤ boot_grace                         a partner that boots is
//   given the time to be heard
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "agent/policy/findings.hpp"

namespace havm {

struct Timing {
  std::chrono::milliseconds heartbeat_interval{250};
  std::chrono::milliseconds session_keepalive{250};
  std::chrono::milliseconds session_timeout{2000};
  std::chrono::milliseconds peer_timeout{2000};  // heartbeats silent this long: partner lost
  std::chrono::milliseconds lease{6000};         // T
  std::chrono::milliseconds boot_grace{
      30000};               // how long the last owner is waited for after a boot
  long drift_ppm = 10'000;  // ρ: bound of the difference between clock rates

  static constexpr double pause_fraction = 0.30;  // of T, in havm-guard
  static constexpr double kill_fraction = 0.45;
  static constexpr double gone_fraction = 0.60;
  static constexpr std::chrono::milliseconds renewal_margin{250};  // scheduling and one round trip

  bool operator==(const Timing&) const = default;

  [[nodiscard]] std::chrono::milliseconds pause_after() const;     // 0.3 T
  [[nodiscard]] std::chrono::milliseconds kill_after() const;      // 0.45 T
  [[nodiscard]] std::chrono::milliseconds gone_after() const;      // 0.6 T
  [[nodiscard]] std::chrono::milliseconds successor_wait() const;  // T(1+ρ), rounded up
};

// "default" or "slow" (everything four times as long, for loaded machines).
std::optional<Timing> timing_profile(const std::string& name);

// A finding below `pointer` for each broken inequality, with the numbers.
void check_timing(const Timing& timing, const std::string& pointer, Findings& findings);

}  // namespace havm
