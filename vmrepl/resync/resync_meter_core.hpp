// The job of ResyncMeter: how far a resync is, how fast, and how long it will still take, calm
// enough for people. Pure: times come with the calls.
//
// The rate is a mean over about `memory`, newer progress counting more; there is none in the first
// `patience`. Bytes of the disks, holes included, so that the time left is that of the whole. One
// thread.
#pragma once

#include <cstdint>
#include <optional>

#include "vmrepl/base/clock.hpp"

namespace havm {

class ResyncMeter {
 public:
  static constexpr std::chrono::seconds memory{8};
  static constexpr std::chrono::milliseconds step{500};
  static constexpr std::chrono::seconds patience{1};

  void begin(TimePoint now, std::uint64_t total_bytes);
  // Ignored when less than a step has passed. `moves`: it is not paused.
  void look(TimePoint now, std::uint64_t done_bytes, bool moves);
  void end();  // rate 0, nothing left

  [[nodiscard]] std::uint64_t rate_bytes_per_s() const { return moves_ ? whole_rate() : 0; }
  // Nothing: it cannot be told (too early, or nothing moves).
  [[nodiscard]] std::optional<std::chrono::seconds> left() const;

 private:
  [[nodiscard]] std::uint64_t whole_rate() const { return static_cast<std::uint64_t>(rate_); }

  TimePoint began_;
  TimePoint at_;
  std::uint64_t total_ = 0;
  std::uint64_t done_ = 0;
  double rate_ = 0;
  double weight_ = 0;  // how much of `rate_` was measured: 0 to 1
  bool moves_ = false;
  bool known_ = false;
  bool ended_ = true;
};

}  // namespace havm
