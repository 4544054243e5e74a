// The job of ResyncHolds: who wants a resync to wait, why, and until when. Pure.
//
// Two may: the administrator (*paused*, until he lets it go on) and the queue of the node
// (*queued*, only for a time: a queue that does not say so again has died, and a second copy is
// worth more than its order). The administrator's word is the one shown. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "vmrepl/base/clock.hpp"

namespace havm {

enum class HoldBy : std::uint8_t { administrator, queue };

struct ResyncHold {
  std::string reason;
  std::optional<TimePoint> until;  // nothing: until it is released
};

class ResyncHolds {
 public:
  void hold(HoldBy by, ResyncHold hold) { of(by) = std::move(hold); }
  void release(HoldBy by) { of(by).reset(); }

  // Of this one, if it still counts.
  [[nodiscard]] const ResyncHold* find(HoldBy by, TimePoint now) const;
  [[nodiscard]] bool held(TimePoint now) const;

 private:
  std::optional<ResyncHold>& of(HoldBy by) { return holds_[static_cast<std::size_t>(by)]; }

  std::array<std::optional<ResyncHold>, 2> holds_;
};

}  // namespace havm
