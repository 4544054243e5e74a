#include "vmrepl/resync/resync_meter_core.hpp"

#include <algorithm>
#include <cmath>

namespace havm {

void ResyncMeter::begin(TimePoint now, std::uint64_t total_bytes) {
  *this = ResyncMeter();
  began_ = at_ = now;
  total_ = total_bytes;
  ended_ = false;
}

void ResyncMeter::look(TimePoint now, std::uint64_t done_bytes, bool moves) {
  if (ended_) return;
  // Time in which nothing was to be copied says nothing of the rate.
  if (!moves || !moves_) {
    moves_ = moves;
    at_ = now;
    done_ = done_bytes;
    return;
  }
  const double passed = std::chrono::duration<double>(now - at_).count();
  if (now - at_ < step) return;
  const double present = static_cast<double>(done_bytes - std::min(done_, done_bytes)) / passed;
  const double fade = std::exp(-passed / static_cast<double>(memory.count()));
  const double weight = weight_ * fade + (1 - fade);
  rate_ = (rate_ * weight_ * fade + present * (1 - fade)) / weight;
  weight_ = weight;
  at_ = now;
  done_ = done_bytes;
  known_ = known_ || now - began_ >= patience;
}

void ResyncMeter::end() {
  *this = ResyncMeter();
}

std::optional<std::chrono::seconds> ResyncMeter::left() const {
  if (ended_) return std::nullopt;
  if (!known_ || !moves_ || rate_ < 1) return std::nullopt;
  const double seconds = static_cast<double>(total_ - std::min(done_, total_)) / rate_;
  // Beyond a year it is no forecast.
  if (seconds > 365.0 * 86400) return std::nullopt;
  return std::chrono::seconds(static_cast<std::int64_t>(std::ceil(seconds)));
}

}  // namespace havm
