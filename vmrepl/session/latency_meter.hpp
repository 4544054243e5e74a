// The job of LatencyMeter: how long requests of one kind take: the age of the oldest one that is
// not finished, and the 99th percentile of those that finished lately. Pure: time comes with the
// events and does not go back.
//
// Guarantees
//  1. It holds one entry for each unfinished request and 256 counters, whatever the load.
//  2. A percentile is never below the true one, and at most a quarter above it.
#pragma once

#include <array>
#include <cstdint>
#include <map>

#include "vmrepl/base/clock.hpp"

namespace havm {

class LatencyMeter {
 public:
  // "Lately": between one and two of these.
  static constexpr Duration slot = std::chrono::seconds(1);

  // `key` is not in use.
  void begin(std::uint64_t key, TimePoint now) { open_.emplace(key, now); }
  // False: there is no such key.
  bool end(std::uint64_t key, TimePoint now);
  // The unfinished ones never end; what finished stays.
  void forget_open() { open_.clear(); }
  void clear();

  [[nodiscard]] std::size_t open() const { return open_.size(); }
  // Zero: there is none.
  [[nodiscard]] Duration oldest(TimePoint now) const;
  [[nodiscard]] Duration percentile_99(TimePoint now) const;
  // The larger of both.
  [[nodiscard]] Duration present(TimePoint now) const;

 private:
  // Four buckets for each doubling of microseconds.
  static constexpr std::size_t buckets = 128;
  struct Slot {
    std::int64_t number = -1;
    std::uint64_t count = 0;
    Duration longest{0};
    std::array<std::uint32_t, buckets> histogram{};
  };
  static std::int64_t slot_number(TimePoint t);

  // By key, and so by time: keys rise.
  std::map<std::uint64_t, TimePoint> open_;
  std::array<Slot, 2> slots_;
};

}  // namespace havm
