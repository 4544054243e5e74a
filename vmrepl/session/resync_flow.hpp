// The job of ResyncFlow: tell PrimarySession when it may start the next copy of a resync (by its
// pace, and by who wants it to wait), wake it when that changes, and keep the progress that people
// see.
//
// Guarantees
//  1. While somebody holds it no copy is started. Guest writes are none of its business: they go on
//     to the partner, and what was not copied stays dirty.
//  2. `go_on` is called from the executor, soon after may_start() can say yes again, and at least
//     every look_interval during a resync, paused or not.
// It refers to the executor only. One thread: that of the engine.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>

#include "vmrepl/base/clock.hpp"
#include "vmrepl/resync/resync_holds_core.hpp"
#include "vmrepl/resync/resync_meter_core.hpp"
#include "vmrepl/resync/resync_pace_core.hpp"

namespace havm {

struct ResyncProgress {
  std::uint64_t total_bytes = 0;
  std::uint64_t done_bytes = 0;
  std::uint64_t sent_bytes = 0;              // of done_bytes: the others were equal, or zeroes
  std::uint64_t rate_bytes_per_s = 0;        // smoothed; 0 while it waits
  std::optional<std::chrono::seconds> left;  // nothing: cannot be told
  std::optional<std::uint64_t> limit_bytes_per_s;  // nothing: no limit
};

class ResyncFlow {
 public:
  static constexpr std::chrono::milliseconds look_interval{50};

  // `target`: of the guest's p99 write latency; none: compared with what it is without a resync.
  ResyncFlow(boost::asio::any_io_executor executor, std::optional<Duration> target,
             std::function<void()> go_on);
  ~ResyncFlow();
  ResyncFlow(const ResyncFlow&) = delete;
  ResyncFlow& operator=(const ResyncFlow&) = delete;

  void begin(std::uint64_t total_bytes);
  void end();  // over, or cut off
  [[nodiscard]] bool running() const { return pace_.has_value(); }

  // Only while it runs.
  void guest_write(TimePoint sent, std::uint64_t bytes);
  // `oldest`: when the oldest guest write without an answer was sent.
  void look(std::optional<TimePoint> oldest);
  [[nodiscard]] bool may_start();
  void started(std::uint32_t length, bool hole);
  // `sent`: of its `length`, what went over the link.
  void copied(std::uint64_t done_bytes, std::uint32_t length, std::uint64_t sent);

  // Whether it runs or not; they count for the next one too.
  void hold(HoldBy by, ResyncHold hold);
  void release(HoldBy by);
  [[nodiscard]] const ResyncHolds& holds() const { return holds_; }

  [[nodiscard]] const ResyncProgress& progress() const { return progress_; }

 private:
  void arm(Duration wait);
  void show();

  std::optional<Duration> target_;
  std::function<void()> go_on_;
  boost::asio::steady_timer timer_;
  std::optional<ResyncPaceCore> pace_;
  ResyncMeter meter_;
  ResyncHolds holds_;
  ResyncProgress progress_;
  bool was_held_ = false;
};

}  // namespace havm
