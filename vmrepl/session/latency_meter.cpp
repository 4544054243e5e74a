#include "vmrepl/session/latency_meter.hpp"

#include <algorithm>
#include <bit>

namespace havm {
namespace {

std::size_t bucket_of(Duration d, std::size_t buckets) {
  const auto us = static_cast<std::uint64_t>(
      std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::microseconds>(d).count()));
  if (us < 4) return static_cast<std::size_t>(us);
  const auto octave = static_cast<std::size_t>(std::bit_width(us)) - 1;
  const auto quarter = static_cast<std::size_t>((us >> (octave - 2)) & 3U);
  return std::min(buckets - 1, (octave - 1) * 4 + quarter);
}

// Everything in the bucket is below.
Duration end_of(std::size_t bucket) {
  if (bucket < 4) return std::chrono::microseconds(bucket + 1);
  const std::size_t octave = bucket / 4 + 1;
  return std::chrono::microseconds((bucket % 4 + 5) << (octave - 2));
}

}  // namespace

std::int64_t LatencyMeter::slot_number(TimePoint t) {
  return t.time_since_epoch() / slot;
}

bool LatencyMeter::end(std::uint64_t key, TimePoint now) {
  const auto it = open_.find(key);
  if (it == open_.end()) return false;
  const Duration took = now - it->second;
  open_.erase(it);
  const std::int64_t number = slot_number(now);
  Slot& s = slots_[static_cast<std::size_t>(number & 1)];
  if (s.number != number) {
    s = Slot{};
    s.number = number;
  }
  ++s.count;
  ++s.histogram[bucket_of(took, buckets)];
  s.longest = std::max(s.longest, took);
  return true;
}

void LatencyMeter::clear() {
  open_.clear();
  slots_ = {};
}

Duration LatencyMeter::oldest(TimePoint now) const {
  return open_.empty() ? Duration{0} : now - open_.begin()->second;
}

Duration LatencyMeter::percentile_99(TimePoint now) const {
  const std::int64_t number = slot_number(now);
  std::array<const Slot*, 2> recent{};
  std::uint64_t count = 0;
  Duration longest{0};
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].number < number - 1 || slots_[i].count == 0) continue;
    recent[i] = &slots_[i];
    count += slots_[i].count;
    longest = std::max(longest, slots_[i].longest);
  }
  // So many may be longer than the answer.
  std::uint64_t left = count / 100;
  for (std::size_t bucket = buckets; bucket > 0; --bucket) {
    std::uint64_t here = 0;
    for (const Slot* s : recent)
      if (s != nullptr) here += s->histogram[bucket - 1];
    if (here > left) return bucket == buckets ? longest : std::min(longest, end_of(bucket - 1));
    left -= here;
  }
  return Duration{0};
}

Duration LatencyMeter::present(TimePoint now) const {
  return std::max(oldest(now), percentile_99(now));
}

}  // namespace havm
