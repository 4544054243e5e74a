// The job of cover_ranges: name the dirty parts of a disk in at most so many ranges, for sending:
// neighbours that are near each other become one, clean bytes between them included, so that the
// result is never less than what is dirty. Pure.
#pragma once

#include <cstddef>
#include <vector>

#include "vmrepl/bitmap/dirty_bitmap.hpp"

namespace havm {

// In rising order, inside the disk, at most count_max (≥ 1).
std::vector<ByteRange> cover_ranges(const DirtyBitmap& dirty, std::size_t count_max);

}  // namespace havm
