// The job of CheckOutcome: what came of comparing one range with the partner's, grain by grain.
// Data only, and the walk over the grains that differ. Pure. Bytes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "vmrepl/bitmap/dirty_bitmap.hpp"

namespace havm {

struct CheckOutcome {
  std::uint32_t differing = 0;  // bit i: grain i of the range
  int local_error = 0;    // errno: the range cannot be read on the owner; nothing was compared
  int partner_error = 0;  // errno: nor on the partner; every grain counts as differing
  bool repaired = false;  // the owner's data of what differs was sent, and acked
};

// Calls visit(ByteRange) for each run of grains of [offset, offset + length) whose bit is set.
template <class Visit>
void for_each_run(std::uint64_t offset, std::uint64_t length, std::uint32_t bits, Visit visit) {
  const std::uint64_t end = offset + length;
  while (offset < end && bits != 0) {
    const std::uint64_t begin = offset;
    const bool set = (bits & 1U) != 0;
    while (offset < end && ((bits & 1U) != 0) == set) {
      bits >>= 1U;
      offset = std::min(offset + DirtyBitmap::grain_bytes, end);
    }
    if (set) visit(ByteRange{begin, offset - begin});
  }
}

}  // namespace havm
