#include "agent/daemon/resync_queue_core.hpp"

#include <algorithm>

#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

bool before(const QueuedResync& one, const QueuedResync& other) {
  if (one.copies != other.copies) return one.copies;
  return one.vm < other.vm;
}

}  // namespace

std::vector<QueueVerdict> decide_resync_queue(std::size_t slots,
                                              const std::vector<QueuedResync>& own,
                                              const std::vector<QueuedResync>& partners) {
  HAVM_ASSERT(slots > 0, "a queue in which nobody ever goes");
  std::vector<QueuedResync> all = own;
  // A VM has one owner; where both claim it the own engine is the one that is known.
  for (const QueuedResync& p : partners)
    if (std::none_of(own.begin(), own.end(), [&p](const auto& o) { return o.vm == p.vm; }))
      all.push_back(p);
  std::sort(all.begin(), all.end(), before);
  std::vector<QueueVerdict> verdicts;
  for (const QueuedResync& o : own) {
    const auto place = static_cast<std::size_t>(
        std::find_if(all.begin(), all.end(), [&o](const auto& a) { return a.vm == o.vm; }) -
        all.begin());
    QueueVerdict v;
    v.vm = o.vm;
    v.go = place < slots;
    if (!v.go) {
      v.reason = "waits for its turn behind VM '" + all[place - 1].vm + "'; " +
                 std::to_string(place) + " before it, " + std::to_string(slots) + " at a time";
    }
    verdicts.push_back(std::move(v));
  }
  return verdicts;
}

}  // namespace havm
