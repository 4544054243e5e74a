// The job of UnflushedRanges: remember which bytes of one disk the partner has acked but not yet
// flushed (design rule 4: an ack is not durability). Adding and clearing cost no more than what was
// added, and memory follows what was added, whatever the size of the disk. Pure. One thread.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "vmrepl/bitmap/dirty_bitmap.hpp"

namespace havm {

class UnflushedRanges {
 public:
  // Beyond this many single ranges they are kept by grain.
  static constexpr std::size_t recent_max = 4096;

  void add(std::uint64_t offset, std::uint64_t length) {
    if (recent_.size() == recent_max) fold();
    recent_.push_back({offset, length});
  }
  void clear() {
    recent_.clear();
    if (!folded_.empty()) folded_ = {};
  }
  [[nodiscard]] bool empty() const { return recent_.empty() && folded_.empty(); }
  void swap(UnflushedRanges& other) {
    std::swap(recent_, other.recent_);
    std::swap(folded_, other.folded_);
  }

  // Calls visit(ByteRange) for ranges that cover everything added; they may overlap, and once
  // folded they are whole grains, which may reach beyond the end of the disk.
  template <class Visit>
  void for_each(Visit visit) const {
    for (const ByteRange& r : recent_)
      visit(r);
    for (const auto& [group, mask] : folded_)
      for (std::uint64_t left = mask; left != 0; left &= left - 1)
        visit(ByteRange{(group * group_grains + static_cast<unsigned>(std::countr_zero(left))) *
                            DirtyBitmap::grain_bytes,
                        DirtyBitmap::grain_bytes});
  }

 private:
  static constexpr std::uint64_t group_grains = 64;

  void fold() {
    for (const ByteRange& r : recent_) {
      if (r.length == 0) continue;
      const std::uint64_t last = (r.offset + r.length - 1) / DirtyBitmap::grain_bytes;
      for (std::uint64_t g = r.offset / DirtyBitmap::grain_bytes; g <= last; ++g)
        folded_[g / group_grains] |= 1ULL << (g % group_grains);
    }
    recent_.clear();
  }

  std::vector<ByteRange> recent_;
  std::unordered_map<std::uint64_t, std::uint64_t> folded_;  // 64 grains: bit by grain
};

}  // namespace havm
