// The job of UnflushedRanges: remember which bytes of one disk the partner has acked but not yet
// flushed (design rule 4: an ack is not durability). Adding and clearing cost no more than what was
// added, whatever the size of the disk. Pure. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "vmrepl/bitmap/dirty_bitmap.hpp"

namespace havm {

class UnflushedRanges {
 public:
  // Beyond this many single ranges they are kept by grain.
  static constexpr std::size_t recent_max = 4096;

  explicit UnflushedRanges(std::uint64_t disk_size_bytes) : folded_(disk_size_bytes) {}

  void add(std::uint64_t offset, std::uint64_t length) {
    if (recent_.size() == recent_max) fold();
    recent_.push_back({offset, length});
  }
  void clear() {
    recent_.clear();
    if (!folded_.empty()) folded_.clear_all();
  }
  [[nodiscard]] bool empty() const { return recent_.empty() && folded_.empty(); }
  void add_to(DirtyBitmap& dirty) const {
    for (const ByteRange& r : recent_)
      dirty.set_range(r.offset, r.length);
    if (!folded_.empty()) dirty.merge(folded_);
  }
  void swap(UnflushedRanges& other) {
    std::swap(recent_, other.recent_);
    std::swap(folded_, other.folded_);
  }

 private:
  void fold() {
    for (const ByteRange& r : recent_)
      folded_.set_range(r.offset, r.length);
    recent_.clear();
  }

  std::vector<ByteRange> recent_;
  DirtyBitmap folded_;
};

}  // namespace havm
