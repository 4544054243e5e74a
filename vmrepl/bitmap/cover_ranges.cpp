#include "vmrepl/bitmap/cover_ranges.hpp"

#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

// False: more than count_max when only gaps of at most `gap` bytes are bridged.
bool collect(const DirtyBitmap& dirty, std::size_t count_max, std::uint64_t gap,
             std::vector<ByteRange>& ranges) {
  ranges.clear();
  std::uint64_t cursor = 0;
  while (cursor < dirty.disk_size_bytes()) {
    const auto run = dirty.next_set(cursor, dirty.disk_size_bytes());
    if (!run) break;
    cursor = run->offset + run->length;
    if (!ranges.empty() && run->offset - (ranges.back().offset + ranges.back().length) <= gap) {
      ranges.back().length = cursor - ranges.back().offset;
      continue;
    }
    if (ranges.size() == count_max) return false;
    ranges.push_back(*run);
  }
  return true;
}

}  // namespace

std::vector<ByteRange> cover_ranges(const DirtyBitmap& dirty, std::size_t count_max) {
  HAVM_ASSERT(count_max > 0, "no range covers nothing only");
  std::vector<ByteRange> ranges;
  std::uint64_t gap = 0;
  while (!collect(dirty, count_max, gap, ranges))
    gap = gap == 0 ? DirtyBitmap::grain_bytes : gap * 2;
  return ranges;
}

}  // namespace havm
