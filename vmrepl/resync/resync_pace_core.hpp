// The job of ResyncPaceCore: say how fast a resync may copy, so that the guest hardly notices it
// and it still ends. Pure: times come with the events.
//
// The guest's p99 write latency comes first. It is compared, window by window, with a target: one
// that was configured, or what the same guest had while hardly anything was copied (the *base*,
// measured at the floor when the guest becomes busy, and again every base_valid). Above the target
// the limit is halved; below it the limit rises, by doubling until the first excess, then by a
// twentieth of the link for each window that was held back by it.
//
// Guarantees
//  1. While no guest write came or is waiting for idle_after there is no limit.
//  2. The limit is never below the floor: floor_percent of the measured link, at least floor_min.
//     The link is the highest throughput of a window, and falls only by windows that no limit held
//     back: slowing down cannot lower the floor.
//  3. Over any time t at most limit x t + one burst is handed out.
//  4. A write that does not come back counts with its present age: silence is no good latency.
// A floor that is too low is no courtesy: at 250 KiB/s 100 GiB are without a second copy for five
// days. floor_min is 4 MiB/s: these 100 GiB take seven hours, and it is one copy of
// ResyncCore::data_bytes_max each 125 ms, 4 ms of a 1 Gbit/s link. Where a link cannot even do
// that, the window of copies in flight is the limit. Bytes, and bytes per second. One thread.
#pragma once

#include <cstdint>
#include <optional>

#include "vmrepl/base/clock.hpp"
#include "vmrepl/resync/latency_window_core.hpp"

namespace havm {

class ResyncPaceCore {
 public:
  static constexpr std::uint64_t floor_min = 4ULL << 20;
  static constexpr unsigned floor_percent = 10;
  // A window ends after this when it has enough writes, else with what it has after window_max.
  static constexpr std::chrono::milliseconds window_min{250};
  static constexpr std::chrono::milliseconds window_max{1000};
  static constexpr std::uint64_t window_writes = 100;
  static constexpr std::chrono::milliseconds idle_after{1000};
  static constexpr std::chrono::seconds base_valid{60};
  // With fewer writes than window_writes the highest latency is the p99; from this many on one of
  // them may be a stray.
  static constexpr std::uint64_t few_writes = 10;
  // Without a configured target: at most twice the base, and this much above it at least, since a
  // fast disk's p99 is mostly noise.
  static constexpr std::chrono::milliseconds slack{2};
  // What may be handed out at once after a pause: what one turn of the timer lasts for.
  static constexpr std::chrono::milliseconds burst{20};
  static constexpr std::uint64_t burst_min = 512ULL << 10;
  // A hole costs no transfer, but a request to the partner's file system.
  static constexpr std::uint64_t hole_charge = 64ULL << 10;

  enum class Phase { idle, measuring, rising, steering };

  explicit ResyncPaceCore(TimePoint now, std::optional<Duration> target = std::nullopt);

  // A guest write (or zero) was completed.
  void guest_write(TimePoint now, Duration latency, std::uint64_t bytes);
  // A copy is on the partner; `bytes` went over the link (0: a hole). Not `whole`: the rest of it
  // was equal there, or a hole.
  void copied(std::uint64_t bytes, bool whole = true);
  // Call it at least every window_min. `oldest`: age of the oldest guest write that was not yet
  // answered.
  void look(TimePoint now, std::optional<Duration> oldest);
  // Nothing was copied until now by somebody's will: that is no measurement.
  void restart_window(TimePoint now);

  // May the next copy be started? Then tell it with its charge: its length, or hole_charge. One of
  // which only what differs is sent is charged in full: both disks are read for it.
  bool may_start(TimePoint now);
  void started(std::uint64_t charge);
  // When may_start() said no: from when on it says yes, if nothing else changes.
  [[nodiscard]] TimePoint next_start() const;

  [[nodiscard]] Phase phase() const { return phase_; }
  [[nodiscard]] std::optional<std::uint64_t> limit() const { return limit_; }
  [[nodiscard]] std::uint64_t floor() const;
  [[nodiscard]] std::uint64_t link() const { return link_; }
  // What p99 may be at most; nothing when that is not known yet.
  [[nodiscard]] std::optional<Duration> target() const;

 private:
  void refill(TimePoint now);
  void guest_came(TimePoint now);
  void measure_link(TimePoint now);
  [[nodiscard]] Duration window_p99() const;
  void judge(TimePoint now, Duration p99);
  void set_limit(std::uint64_t limit);
  void measure_base(TimePoint now);

  std::optional<Duration> configured_;
  Phase phase_ = Phase::idle;
  std::optional<std::uint64_t> limit_;
  std::uint64_t link_ = 0;
  std::optional<Duration> base_;
  TimePoint base_at_;

  LatencyWindow writes_;
  TimePoint window_at_;
  std::uint64_t window_bytes_ = 0;
  bool held_back_ = false;
  bool saw_hole_ = false;  // or what was equal there
  bool settling_ = false;  // writes of this window may have waited behind copies of the one before
  TimePoint last_write_;

  double credit_ = 0;
  TimePoint credit_at_;
};

}  // namespace havm
