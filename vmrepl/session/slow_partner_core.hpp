// The job of SlowPartnerCore: decide when a partner answers so slowly, for so long, that the owner
// does better without it, and when it may be tried again. Pure: events and time come as calls. No
// clock, I/O, log or throw.
//
// What it knows of time: the age of each request of the guest that the partner has not answered and
// the 99th percentile of the last one to two seconds, each beside the same of the own disk; the
// larger of age and percentile is a leg's *latency*.
//
// Invariants
//  L1. Bad is: the partner's latency is above `limit` and more than twice the own disk's. Good is:
//      it is at most half of `limit`. Between them nothing changes, so a partner at the edge
//      neither flaps nor is forgiven.
//  L2. Bad time is added up, good time takes away half of itself; at `patience` the partner is
//  slow.
//      So one hiccup is no reason, one that comes again and again is. It stays slow until half of
//      that is worked off. One call of judge() counts for at most a second: a time in which this
//      process itself stood still is not held against the partner.
//  L3. While a resync copies (not while it is held), requests of the guest wait behind copies on
//      their way: only a partner that answers nothing at all for `limit` is bad then.
//  L4. A partner that was left behind is not connected to before `backoff` is over, which doubles
//      each time up to backoff_max. Then it is on probation: the end of the resync, and with it the
//      in-sync set of both, waits until it was not bad for `probation`, and a second of bad time is
//      enough to leave it again. An hour without bad time in a session forgets all this.
//  L5. With `limit` zero nobody is ever slow.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/strong_types.hpp"
#include "vmrepl/session/latency_meter.hpp"

namespace havm {

// The defaults: a stalled partner holds the guest for at most 2 + 5 seconds and the time of a
// shrink. The shortest usual timeout of a guest's disk is 30 s (SCSI, IDE; virtio-blk has none),
// and ten times the round trip of a far link with a busy disk at its end stays below 2 s.
struct SlowPartnerLimits {
  std::chrono::milliseconds limit{2'000};  // zero: never slow
  std::chrono::milliseconds patience{5'000};
  std::chrono::milliseconds probation{10'000};
  std::chrono::milliseconds backoff{30'000};
  bool operator==(const SlowPartnerLimits&) const = default;
};

class SlowPartnerCore {
 public:
  static constexpr std::chrono::minutes backoff_max{30};
  static constexpr std::chrono::seconds judged_max{1};     // L2
  static constexpr std::chrono::seconds probation_bad{1};  // L4
  static constexpr std::chrono::hours forgotten_after{1};  // L4

  explicit SlowPartnerCore(const SlowPartnerLimits& limits) : limits_(limits) {}

  void session_opened(TimePoint now);
  // For whatever reason.
  void session_ended();
  // The session was, or is about to be, ended because the partner is slow.
  void left_behind(TimePoint now);

  // A request of the guest goes to the partner; sequences rise.
  void sent(Sequence sequence, TimePoint now) { partner_.begin(sequence.value, now); }
  // Any ack of the partner, also of what is not the guest's; not its grants, which need no disk.
  void answered(Sequence sequence, TimePoint now);
  // The same for the own disk; the result names it.
  std::uint64_t own_began(TimePoint now);
  void own_ended(std::uint64_t number, TimePoint now) { (void)own_.end(number, now); }
  void copying(bool is_copying) { copying_ = is_copying; }

  // To be called again and again while a session is open. True: is_slow() has changed.
  bool judge(TimePoint now);
  [[nodiscard]] bool is_slow() const { return slow_; }
  // Of the last time it was found slow; empty: never, or forgotten.
  [[nodiscard]] const std::string& reason() const { return reason_; }

  [[nodiscard]] bool may_connect(TimePoint now) const { return now >= not_before_; }
  [[nodiscard]] Duration backoff_left(TimePoint now) const;
  [[nodiscard]] bool may_end_resync(TimePoint now) const;
  // How often it was left behind since that was last forgotten.
  [[nodiscard]] unsigned times_left() const { return times_left_; }
  [[nodiscard]] Duration bad_time() const { return bad_; }
  [[nodiscard]] Duration partner_latency(TimePoint now) const;
  [[nodiscard]] Duration own_latency(TimePoint now) const { return own_.present(now); }
  [[nodiscard]] const SlowPartnerLimits& limits() const { return limits_; }

 private:
  [[nodiscard]] Duration allowed() const;
  void find_slow(TimePoint now);

  SlowPartnerLimits limits_;
  LatencyMeter partner_;
  LatencyMeter own_;
  std::uint64_t next_own_ = 1;
  bool open_ = false;
  bool copying_ = false;
  bool slow_ = false;
  TimePoint heard_at_{};
  TimePoint judged_at_{};
  TimePoint good_since_{};
  TimePoint not_before_{};
  Duration bad_{0};
  unsigned times_left_ = 0;
  std::string reason_;
};

}  // namespace havm
