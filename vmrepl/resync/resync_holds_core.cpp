#include "vmrepl/resync/resync_holds_core.hpp"

namespace havm {

const ResyncHold* ResyncHolds::find(HoldBy by, TimePoint now) const {
  const auto& hold = holds_[static_cast<std::size_t>(by)];
  if (!hold || (hold->until && *hold->until <= now)) return nullptr;
  return &*hold;
}

bool ResyncHolds::held(TimePoint now) const {
  return find(HoldBy::administrator, now) != nullptr || find(HoldBy::queue, now) != nullptr;
}

}  // namespace havm
