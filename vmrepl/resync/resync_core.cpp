#include "vmrepl/resync/resync_core.hpp"

#include <algorithm>
#include <utility>

#include "vmrepl/base/assert.hpp"

namespace havm {

ResyncCore::ResyncCore(std::vector<const DirtyBitmap*> dirty)
    : dirty_(std::move(dirty)), cursors_(dirty_.size(), 0) {
  for (const DirtyBitmap* b : dirty_)
    total_bytes_ += b->set_bytes();
}

std::optional<ResyncCopy> ResyncCore::next() {
  for (std::size_t i = 0; i < dirty_.size(); ++i) {
    if (cursors_[i] >= dirty_[i]->disk_size_bytes()) continue;
    const auto range = dirty_[i]->next_set(cursors_[i], hole_bytes_max);
    // What is clean is looked at once: a large disk with few dirty grains is asked often.
    cursors_[i] = range ? range->offset : dirty_[i]->disk_size_bytes();
    if (!range) continue;
    ResyncCopy copy;
    copy.disk = static_cast<std::uint16_t>(i);
    copy.offset = range->offset;
    copy.length = static_cast<std::uint32_t>(range->length);
    return copy;
  }
  return std::nullopt;
}

std::optional<ResyncCopy> ResyncCore::peek() {
  if (in_flight_ >= copies_max || in_flight_bytes_ >= in_flight_bytes_max) return std::nullopt;
  return next();
}

ResyncCopy ResyncCore::take(const ResyncCopy& peeked, std::uint64_t length, bool hole) {
  HAVM_ASSERT(length > 0, "an empty copy");
  const std::uint64_t most = hole ? hole_bytes_max : data_bytes_max;
  ResyncCopy copy = peeked;
  copy.hole = hole;
  // A bit is cleared only with its whole grain, so a copy ends at a grain's end or at the disk's.
  const std::uint64_t wanted = std::min({length, most, std::uint64_t{peeked.length}});
  const std::uint64_t grain = DirtyBitmap::grain_bytes;
  const std::uint64_t whole = (wanted + grain - 1) / grain * grain;
  copy.length = static_cast<std::uint32_t>(std::min(whole, std::uint64_t{peeked.length}));
  cursors_[copy.disk] = copy.offset + copy.length;
  ++in_flight_;
  if (!hole) in_flight_bytes_ += copy.length;
  return copy;
}

void ResyncCore::done(const ResyncCopy& copy) {
  HAVM_ASSERT(in_flight_ > 0, "a copy ended that was not handed out");
  --in_flight_;
  if (!copy.hole) in_flight_bytes_ -= copy.length;
  done_bytes_ += copy.length;
}

}  // namespace havm
