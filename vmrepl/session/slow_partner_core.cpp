#include "vmrepl/session/slow_partner_core.hpp"

#include <algorithm>

namespace havm {
namespace {

std::string ms_text(Duration d) {
  return std::to_string(to_ms(d)) + " ms";
}

}  // namespace

void SlowPartnerCore::session_opened(TimePoint now) {
  partner_.clear();
  open_ = true;
  copying_ = slow_ = false;
  bad_ = Duration{0};
  heard_at_ = judged_at_ = good_since_ = now;
}

void SlowPartnerCore::session_ended() {
  partner_.clear();
  open_ = copying_ = slow_ = false;
  bad_ = Duration{0};
}

void SlowPartnerCore::left_behind(TimePoint now) {
  Duration pause = limits_.backoff;
  for (unsigned i = 0; i < times_left_ && pause < backoff_max; ++i)
    pause *= 2;
  not_before_ = now + std::min<Duration>(pause, backoff_max);
  ++times_left_;
}

void SlowPartnerCore::answered(Sequence sequence, TimePoint now) {
  heard_at_ = now;
  (void)partner_.end(sequence.value, now);
}

std::uint64_t SlowPartnerCore::own_began(TimePoint now) {
  own_.begin(next_own_, now);
  return next_own_++;
}

Duration SlowPartnerCore::partner_latency(TimePoint now) const {
  const Duration latency = partner_.present(now);
  return copying_ ? std::min(latency, now - heard_at_) : latency;
}

Duration SlowPartnerCore::allowed() const {
  const Duration patience = limits_.patience;
  return times_left_ == 0 ? patience : std::min<Duration>(patience, probation_bad);
}

bool SlowPartnerCore::judge(TimePoint now) {
  if (!open_ || limits_.limit == Duration{0}) return false;
  const Duration passed = std::min<Duration>(now - judged_at_, judged_max);
  judged_at_ = now;
  const Duration partner = partner_latency(now);
  const Duration limit = limits_.limit;
  const bool bad = partner > limit && partner > 2 * own_.present(now);
  const bool good = partner <= limit / 2;
  if (bad) {
    bad_ = std::min(allowed(), bad_ + passed);
    good_since_ = now;
  } else if (good) {
    bad_ = std::max(Duration{0}, bad_ - passed / 2);
  }
  if (now - good_since_ >= forgotten_after) {
    times_left_ = 0;
    reason_.clear();
  }
  const bool was = slow_;
  if (!slow_ && bad && bad_ >= allowed()) find_slow(now);
  if (slow_ && bad_ < allowed() / 2) slow_ = false;
  return slow_ != was;
}

void SlowPartnerCore::find_slow(TimePoint now) {
  slow_ = true;
  reason_ = "slow partner: its answers take up to " + ms_text(partner_latency(now)) +
            " (oldest without an answer " + ms_text(partner_.oldest(now)) + ", 99 % within " +
            ms_text(partner_.percentile_99(now)) + ", own disk " + ms_text(own_.present(now)) +
            "), for " + ms_text(bad_) + " above the limit of " + ms_text(limits_.limit);
}

Duration SlowPartnerCore::backoff_left(TimePoint now) const {
  return std::max(Duration{0}, not_before_ - now);
}

bool SlowPartnerCore::may_end_resync(TimePoint now) const {
  return times_left_ == 0 || now - good_since_ >= limits_.probation;
}

}  // namespace havm
