#include "vmrepl/resync/latency_window_core.hpp"

#include <algorithm>
#include <bit>

namespace havm {

namespace {
constexpr std::int64_t longest_us = 3600LL * 1'000'000;
}  // namespace

// In units of 1/8 µs the three bits below the highest one name the step.
std::size_t LatencyWindow::bucket_of(Duration latency) {
  using std::chrono::microseconds;
  const auto us = std::chrono::duration_cast<microseconds>(latency).count();
  const auto value = static_cast<std::uint64_t>(std::clamp<std::int64_t>(us, 1, longest_us));
  const std::uint64_t eighths = value * steps;
  const auto doubling = static_cast<std::size_t>(std::bit_width(value) - 1);
  return doubling * steps + static_cast<std::size_t>((eighths >> doubling) - steps);
}

Duration LatencyWindow::end_of(std::size_t bucket) {
  const std::size_t doubling = bucket / steps;
  const std::uint64_t eighths = (bucket % steps + steps + 1) << doubling;
  return std::chrono::nanoseconds(static_cast<std::int64_t>(eighths * (1000 / steps)));
}

void LatencyWindow::add(Duration latency) {
  ++counts_[bucket_of(latency)];
  ++count_;
}

void LatencyWindow::clear() {
  counts_.fill(0);
  count_ = 0;
}

Duration LatencyWindow::quantile(unsigned percent) const {
  if (count_ == 0) return Duration{0};
  const std::uint64_t wanted = std::max<std::uint64_t>(1, (count_ * percent + 99) / 100);
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < buckets; ++i) {
    seen += counts_[i];
    if (seen >= wanted) return end_of(i);
  }
  return end_of(buckets - 1);
}

}  // namespace havm
