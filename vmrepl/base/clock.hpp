// The job of BootClock: the one clock of leases and heartbeats. CLOCK_BOOTTIME goes on during
// suspend, never jumps, and is the same in every process of a host (a grant's send time can be
// handed from the engine to the guard). Wall time is for people only. `_core` files take time from
// events and never call now(); they use the duration and time point types here.
#pragma once

#include <chrono>

namespace havm {

struct BootClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  static constexpr bool is_steady = true;

  static time_point now();
};

using TimePoint = BootClock::time_point;
using Duration = BootClock::duration;

// Nanoseconds since boot, for messages between processes of one host.
constexpr long long to_ns(TimePoint t) {
  return t.time_since_epoch().count();
}
constexpr TimePoint from_ns(long long ns) {
  return TimePoint(Duration(ns));
}
// Milliseconds, rounded down.
constexpr long long to_ms(Duration d) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
}

}  // namespace havm
