#include "vmrepl/bitmap/range_lock.hpp"

#include <algorithm>
#include <limits>

#include "vmrepl/base/assert.hpp"

namespace havm {

bool RangeLock::acquire(RangeLockId id, std::uint64_t offset, std::uint64_t length,
                        RangeLockKind kind) {
  HAVM_ASSERT(length > 0, "a range lock needs a range");
  HAVM_ASSERT(length <= std::numeric_limits<std::uint64_t>::max() - offset,
              "a range must not wrap around");
  HAVM_ASSERT(!requests_.contains(id), "the id of a range lock must be unique");

  Request request{offset, length, kind, next_arrival_++, 0, {}};
  // Whatever overlaps starts after `offset - longest` and before the end.
  const std::uint64_t leftmost = offset > longest_length_ ? offset - longest_length_ : 0;
  const auto end = by_place_.lower_bound(PlaceKey{offset + length, 0});
  for (auto it = by_place_.lower_bound(PlaceKey{leftmost, 0}); it != end; ++it) {
    Request& earlier = requests_.at(it->second);
    const bool overlaps = earlier.offset + earlier.length > offset;
    const bool both_shared = kind == RangeLockKind::shared && earlier.kind == RangeLockKind::shared;
    if (!overlaps || both_shared) continue;
    earlier.waiting_here.push_back(Waiter{id, request.arrival});
    ++request.blockers;
  }

  const bool granted_now = request.blockers == 0;
  if (!granted_now) ++queued_;
  longest_length_ = std::max(longest_length_, length);
  by_place_.emplace(PlaceKey{offset, request.arrival}, id);
  requests_.emplace(id, std::move(request));
  return granted_now;
}

std::vector<RangeLockId> RangeLock::release(RangeLockId id) {
  const auto found = requests_.find(id);
  HAVM_ASSERT(found != requests_.end(), "only a present range lock can be released");
  const Request ended = std::move(found->second);
  requests_.erase(found);
  by_place_.erase(PlaceKey{ended.offset, ended.arrival});
  if (ended.blockers > 0) --queued_;
  if (requests_.empty()) longest_length_ = 0;

  // Appended at arrival, so this is in the order of arrival. A waiter may have been withdrawn
  // since, and its id used again by a later request: its arrival then differs.
  std::vector<RangeLockId> granted;
  for (const Waiter& waiter : ended.waiting_here) {
    const auto it = requests_.find(waiter.id);
    if (it == requests_.end() || it->second.arrival != waiter.arrival) continue;
    HAVM_ASSERT(it->second.blockers > 0, "a waiter must count what it waits for");
    if (--it->second.blockers > 0) continue;
    --queued_;
    granted.push_back(waiter.id);
  }
  return granted;
}

}  // namespace havm
