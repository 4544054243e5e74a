#include "vmrepl/resync/resync_pace_core.hpp"

#include <algorithm>

namespace havm {
namespace {

double seconds(Duration d) {
  return std::chrono::duration<double>(d).count();
}

}  // namespace

ResyncPaceCore::ResyncPaceCore(TimePoint now, std::optional<Duration> target)
    : configured_(target), base_at_(now), window_at_(now), last_write_(now), credit_at_(now) {}

std::uint64_t ResyncPaceCore::floor() const {
  return std::max(floor_min, link_ / 100 * floor_percent);
}

std::optional<Duration> ResyncPaceCore::target() const {
  if (configured_) return configured_;
  if (!base_) return std::nullopt;
  return std::max(*base_ * 2, *base_ + Duration(slack));
}

void ResyncPaceCore::set_limit(std::uint64_t limit) {
  limit_ = std::max(limit, floor());
}

// ---- what happens
// -------------------------------------------------------------------------------------

void ResyncPaceCore::guest_write(TimePoint now, Duration latency, std::uint64_t bytes) {
  guest_came(now);
  last_write_ = now;
  writes_.add(latency);
  window_bytes_ += bytes;
}

void ResyncPaceCore::copied(std::uint64_t bytes, bool whole) {
  window_bytes_ += bytes;
  if (bytes == 0 || !whole) saw_hole_ = true;
}

void ResyncPaceCore::restart_window(TimePoint now) {
  writes_.clear();
  window_at_ = now;
  window_bytes_ = 0;
  held_back_ = saw_hole_ = false;
}

// The first write after a time without any.
void ResyncPaceCore::guest_came(TimePoint now) {
  if (phase_ != Phase::idle) return;
  credit_ = 0;
  credit_at_ = now;
  const bool known = configured_ || (base_ && now - base_at_ < base_valid);
  if (!known) return measure_base(now);
  phase_ = Phase::steering;
  set_limit(link_ / 2);
  settling_ = true;
}

void ResyncPaceCore::measure_base(TimePoint now) {
  phase_ = Phase::measuring;
  set_limit(0);
  settling_ = true;
  restart_window(now);
}

void ResyncPaceCore::look(TimePoint now, std::optional<Duration> oldest) {
  refill(now);
  if (oldest && phase_ == Phase::idle && *oldest >= window_min) guest_came(now);
  const Duration age = now - window_at_;
  if (age < window_min) return;
  if (phase_ != Phase::idle && age < window_max && writes_.count() < window_writes) return;
  measure_link(now);
  const Duration p99 = std::max(window_p99(), oldest.value_or(Duration{0}));
  const bool has_writes = writes_.count() != 0 || (oldest && *oldest >= window_min);
  if (phase_ != Phase::idle) {
    if (has_writes)
      judge(now, p99);
    else if (now - last_write_ >= idle_after && !oldest) {
      phase_ = Phase::idle;
      limit_.reset();
    }
  }
  restart_window(now);
}

// A window with holes moves few bytes however good the link is.
void ResyncPaceCore::measure_link(TimePoint now) {
  const double passed = seconds(now - window_at_);
  const auto rate = static_cast<std::uint64_t>(static_cast<double>(window_bytes_) / passed);
  if (rate > link_)
    link_ = rate;
  else if (!held_back_ && !saw_hole_ && window_bytes_ != 0)
    link_ = (link_ * 3 + rate) / 4;
  if (limit_) set_limit(*limit_);
}

Duration ResyncPaceCore::window_p99() const {
  const std::uint64_t n = writes_.count();
  if (n < few_writes || n >= window_writes) return writes_.quantile(99);
  return writes_.quantile(static_cast<unsigned>((n - 1) * 100 / n));  // the second highest
}

void ResyncPaceCore::judge(TimePoint now, Duration p99) {
  if (settling_) {
    settling_ = false;
    return;
  }
  if (phase_ == Phase::measuring) {
    if (writes_.count() == 0) return;  // one that hangs is no measure of the others
    base_ = window_p99();
    base_at_ = now;
    phase_ = Phase::rising;
    return;
  }
  if (!configured_ && now - base_at_ >= base_valid) return measure_base(now);
  if (p99 > target().value_or(p99)) {
    set_limit(limit_.value_or(link_) / 2);
    phase_ = Phase::steering;
    settling_ = true;
    return;
  }
  if (!held_back_ || !limit_) return;
  if (phase_ == Phase::rising)
    set_limit(*limit_ * 2);
  else
    set_limit(*limit_ + std::max<std::uint64_t>(1ULL << 20, link_ / 20));
}

// ---- handing out
// --------------------------------------------------------------------------------------

void ResyncPaceCore::refill(TimePoint now) {
  const double passed = seconds(std::max(now - credit_at_, Duration{0}));
  credit_at_ = now;
  if (!limit_) return;
  const auto rate = static_cast<double>(*limit_);
  const double most = std::max(static_cast<double>(burst_min), rate * seconds(burst));
  credit_ = std::min(credit_ + rate * passed, most);
}

bool ResyncPaceCore::may_start(TimePoint now) {
  refill(now);
  if (!limit_ || credit_ > 0) return true;
  held_back_ = true;
  return false;
}

void ResyncPaceCore::started(std::uint64_t charge) {
  if (limit_) credit_ -= static_cast<double>(charge);
}

TimePoint ResyncPaceCore::next_start() const {
  if (!limit_ || credit_ > 0) return credit_at_;
  const std::chrono::duration<double> wait((1 - credit_) / static_cast<double>(*limit_));
  return credit_at_ + std::chrono::duration_cast<Duration>(wait) + std::chrono::nanoseconds(1);
}

}  // namespace havm
