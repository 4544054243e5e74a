#include "vmrepl/resync/resync_holds_core.hpp"

#include <algorithm>

namespace havm {

const ResyncHold* ResyncHolds::find(HoldBy by, TimePoint now) const {
  const auto& hold = holds_[static_cast<std::size_t>(by)];
  if (!hold || (hold->until && *hold->until <= now)) return nullptr;
  return &*hold;
}

bool ResyncHolds::held(TimePoint now) const {
  return find(HoldBy::administrator, now) != nullptr || find(HoldBy::queue, now) != nullptr;
}

std::optional<TimePoint> ResyncHolds::ends(TimePoint now) const {
  std::optional<TimePoint> last;
  for (const HoldBy by : {HoldBy::administrator, HoldBy::queue}) {
    const ResyncHold* hold = find(by, now);
    if (hold == nullptr) continue;
    if (!hold->until) return std::nullopt;
    last = std::max(last.value_or(*hold->until), *hold->until);
  }
  return last;
}

}  // namespace havm
