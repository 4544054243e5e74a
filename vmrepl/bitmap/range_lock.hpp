// The job of RangeLock: at most one in-flight write per byte range of one disk (design rule 2 of
// the engine), for guest I/O, resync, verify and discard alike. It decides only; the caller starts
// what is granted. Pure. One thread.
//
// Guarantees
//  1. Two conflicting requests (overlapping, at least one exclusive) are never granted together.
//  2. A request waits only for conflicting requests that arrived before it, granted or queued: no
//     wait cycle, no starvation, and conflicting requests are granted in the order of their
//     arrival.
//  3. Requests that conflict with nothing before them are granted at once.
// Offsets and lengths in bytes, length ≥ 1. Ids are chosen by the caller and unique among those
// present. Cost: O(log n + requests near the range).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "vmrepl/base/strong_types.hpp"

namespace havm {

using RangeLockId = Ordinal<struct RangeLockTag>;

enum class RangeLockKind : std::uint8_t {
  shared,     // reads: may overlap each other
  exclusive,  // writes, zero, resync copies
};

class RangeLock {
 public:
  // True: granted now. False: queued; a later release() returns the id.
  [[nodiscard]] bool acquire(RangeLockId id, std::uint64_t offset, std::uint64_t length,
                             RangeLockKind kind);

  // Ends a granted request, or withdraws a queued one. Returns what is granted by that, in the
  // order of arrival; the caller must start or release each of them.
  [[nodiscard]] std::vector<RangeLockId> release(RangeLockId id);

  [[nodiscard]] bool contains(RangeLockId id) const { return requests_.contains(id); }
  [[nodiscard]] std::size_t granted() const { return requests_.size() - queued_; }
  [[nodiscard]] std::size_t queued() const { return queued_; }

 private:
  struct Waiter {
    RangeLockId id;
    std::uint64_t arrival = 0;
  };
  struct Request {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    RangeLockKind kind = RangeLockKind::shared;
    std::uint64_t arrival = 0;
    std::size_t blockers = 0;          // earlier conflicting requests still present
    std::vector<Waiter> waiting_here;  // later ones that count this one as a blocker
  };
  using PlaceKey = std::pair<std::uint64_t, std::uint64_t>;  // offset, arrival

  std::unordered_map<RangeLockId, Request> requests_;
  std::map<PlaceKey, RangeLockId> by_place_;
  std::uint64_t next_arrival_ = 0;
  std::uint64_t longest_length_ = 0;  // at least that of any request present: bounds the search
  std::size_t queued_ = 0;
};

}  // namespace havm
