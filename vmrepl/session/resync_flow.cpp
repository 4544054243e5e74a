#include "vmrepl/session/resync_flow.hpp"

#include <algorithm>
#include <utility>

namespace havm {

ResyncFlow::ResyncFlow(boost::asio::any_io_executor executor, std::optional<Duration> target,
                       std::function<void()> go_on)
    : target_(target), go_on_(std::move(go_on)), timer_(executor) {}

ResyncFlow::~ResyncFlow() = default;

void ResyncFlow::begin(std::uint64_t total_bytes) {
  const TimePoint now = BootClock::now();
  pace_.emplace(now, target_);
  meter_.begin(now, total_bytes);
  was_held_ = false;
  progress_ = ResyncProgress{};
  progress_.total_bytes = total_bytes;
  arm(look_interval);
}

void ResyncFlow::end() {
  if (!pace_) return;
  pace_.reset();
  meter_.end();
  timer_.cancel();
  show();
}

void ResyncFlow::show() {
  progress_.rate_bytes_per_s = meter_.rate_bytes_per_s();
  progress_.left = meter_.left();
  progress_.limit_bytes_per_s = pace_ ? pace_->limit() : std::nullopt;
}

// A timer that was set anew or cancelled does not call.
void ResyncFlow::arm(Duration wait) {
  timer_.expires_after(std::clamp<Duration>(wait, std::chrono::milliseconds(1), look_interval));
  timer_.async_wait([this](const boost::system::error_code& e) {
    if (e || !pace_) return;
    arm(look_interval);
    go_on_();
  });
}

void ResyncFlow::guest_write(TimePoint sent, std::uint64_t bytes) {
  const TimePoint now = BootClock::now();
  if (pace_) pace_->guest_write(now, now - sent, bytes);
}

void ResyncFlow::look(std::optional<TimePoint> oldest) {
  if (!pace_) return;
  const TimePoint now = BootClock::now();
  const bool held = holds_.held(now);
  meter_.look(now, progress_.done_bytes, !held);
  // What the guest feels while nothing is copied says nothing about the pace.
  if (held || was_held_)
    pace_->restart_window(now);
  else
    pace_->look(now, oldest ? std::optional<Duration>(now - *oldest) : std::nullopt);
  was_held_ = held;
  show();
}

bool ResyncFlow::may_start() {
  if (!pace_) return false;
  const TimePoint now = BootClock::now();
  if (holds_.held(now)) return false;
  if (pace_->may_start(now)) return true;
  arm(pace_->next_start() - now);
  return false;
}

void ResyncFlow::started(std::uint32_t length, bool hole) {
  if (pace_) pace_->started(hole ? ResyncPaceCore::hole_charge : length);
}

void ResyncFlow::copied(std::uint64_t done_bytes, std::uint32_t length, std::uint64_t sent) {
  progress_.done_bytes = done_bytes;
  progress_.sent_bytes += sent;
  if (pace_) pace_->copied(sent, sent == length);
}

void ResyncFlow::hold(HoldBy by, ResyncHold hold) {
  holds_.hold(by, std::move(hold));
}

void ResyncFlow::release(HoldBy by) {
  holds_.release(by);
  if (pace_) arm(Duration{0});
}

}  // namespace havm
