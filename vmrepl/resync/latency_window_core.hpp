// The job of LatencyWindow: the quantiles of latencies seen in one window of time, in constant
// memory and constant time per latency. Pure.
//
// Guarantee: quantile() is at least the true one and at most 1/8 above it, for latencies from 1 µs
// to 1 h; what lies outside counts as the nearest of these. One thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "vmrepl/base/clock.hpp"

namespace havm {

class LatencyWindow {
 public:
  void add(Duration latency);
  void clear();
  [[nodiscard]] std::uint64_t count() const { return count_; }
  // The latency that `percent` of all do not exceed; 0 when there is none.
  [[nodiscard]] Duration quantile(unsigned percent) const;

 private:
  // Eight steps for each doubling: 2^32 µs is more than an hour.
  static constexpr std::size_t steps = 8;
  static constexpr std::size_t buckets = 33 * steps;
  static std::size_t bucket_of(Duration latency);
  static Duration end_of(std::size_t bucket);

  std::array<std::uint32_t, buckets> counts_{};
  std::uint64_t count_ = 0;
};

}  // namespace havm
