#include "agent/policy/timing.hpp"

#include <algorithm>
#include <cmath>

#include "agent/policy/duration_text.hpp"

namespace havm {
namespace {

using std::chrono::milliseconds;

constexpr int slow_factor = 4;
constexpr milliseconds max_duration = std::chrono::minutes(10);

milliseconds fraction_of(milliseconds duration, double fraction) {
  return milliseconds(std::llround(static_cast<double>(duration.count()) * fraction));
}

struct Named {
  const char* key;
  milliseconds value;
};

// Whatever else is wrong is then a matter of proportion.
bool check_ranges(const Timing& t, const std::string& pointer, Findings& findings) {
  bool good = true;
  for (const Named& d :
       {Named{"heartbeat_interval", t.heartbeat_interval},
        Named{"session_keepalive", t.session_keepalive},
        Named{"session_timeout", t.session_timeout}, Named{"peer_timeout", t.peer_timeout},
        Named{"lease", t.lease}, Named{"boot_grace", t.boot_grace}}) {
    if (d.value >= milliseconds(10) && d.value <= max_duration) continue;
    good = false;
    findings.add(pointer_to(pointer, d.key), duration_text(d.value) +
                                                 " is out of range: expected " + "10ms to " +
                                                 duration_text(max_duration));
  }
  return good;
}

void check_patience(const Timing& t, const std::string& pointer, Findings& findings) {
  const auto check = [&](const Named& timeout, const Named& interval) {
    if (4 * interval.value <= timeout.value) return;
    findings.add(pointer_to(pointer, timeout.key),
                 "4 × " + std::string(interval.key) + " = 4 × " + duration_text(interval.value) +
                     " = " + duration_text(4 * interval.value) + " is more than " + timeout.key +
                     " = " + duration_text(timeout.value) +
                     ": a few late messages would look like a dead node; raise " + timeout.key +
                     " or lower " + interval.key);
  };
  check({"peer_timeout", t.peer_timeout}, {"heartbeat_interval", t.heartbeat_interval});
  check({"session_timeout", t.session_timeout}, {"session_keepalive", t.session_keepalive});
  if (t.peer_timeout > t.boot_grace)
    findings.add(pointer_to(pointer, "boot_grace"),
                 "boot_grace = " + duration_text(t.boot_grace) +
                     " is less than peer_timeout = " + duration_text(t.peer_timeout) +
                     ": a node that boots could not even hear its partner; raise boot_grace");
}

void check_lease(const Timing& t, const std::string& pointer, Findings& findings) {
  const milliseconds renewal = std::max(t.heartbeat_interval, t.session_keepalive);
  const milliseconds late = 2 * renewal + Timing::renewal_margin;
  if (late >= t.pause_after())
    findings.add(pointer_to(pointer, "lease"),
                 "a VM is paused 0.3 × lease = 0.3 × " + duration_text(t.lease) + " = " +
                     duration_text(t.pause_after()) +
                     " after its last grant, but a renewal may take 2 × " + duration_text(renewal) +
                     " + " + duration_text(Timing::renewal_margin) + " = " + duration_text(late) +
                     ": a healthy VM would be paused; raise lease or lower heartbeat_interval and "
                     "session_keepalive");
  const double slowest = 1.0 - static_cast<double>(t.drift_ppm) / 1e6;
  if (Timing::gone_fraction >= slowest)
    findings.add(pointer_to(pointer, "drift_ppm"),
                 "an old owner is gone by 0.6 × lease = " + duration_text(t.gone_after()) +
                     ", which is not before lease × (1 − drift) = " +
                     duration_text(fraction_of(t.lease, slowest)) + " with a drift of " +
                     std::to_string(t.drift_ppm) +
                     " ppm: the VM could run twice; lower drift_ppm below 400000");
}

}  // namespace

milliseconds Timing::pause_after() const {
  return fraction_of(lease, pause_fraction);
}
milliseconds Timing::kill_after() const {
  return fraction_of(lease, kill_fraction);
}
milliseconds Timing::gone_after() const {
  return fraction_of(lease, gone_fraction);
}

milliseconds Timing::successor_wait() const {
  const double factor = 1.0 + static_cast<double>(drift_ppm) / 1e6;
  return milliseconds(std::llround(std::ceil(static_cast<double>(lease.count()) * factor)));
}

std::optional<Timing> timing_profile(const std::string& name) {
  Timing timing;
  if (name == "default") return timing;
  if (name != "slow") return std::nullopt;
  for (milliseconds* d :
       {&timing.heartbeat_interval, &timing.session_keepalive, &timing.session_timeout,
        &timing.peer_timeout, &timing.lease, &timing.boot_grace})
    *d *= slow_factor;
  return timing;
}

void check_timing(const Timing& timing, const std::string& pointer, Findings& findings) {
  if (!check_ranges(timing, pointer, findings)) return;
  check_patience(timing, pointer, findings);
  check_lease(timing, pointer, findings);
}

}  // namespace havm
