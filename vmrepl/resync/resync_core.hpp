// The job of ResyncCore: choose what a resync copies next, over all disks of one VM, and know how
// far it is. Pure. It walks the dirty bitmaps of the owner once, from their start to their end, and
// takes no locks: PrimaryCore orders each copy among the guest's writes.
//
// Guarantees
//  1. Every byte that is dirty when the walk reaches it is handed out exactly once, disk by disk in
//     rising order. A copy is whole grains (or ends with the disk), so that its bits can be
//     cleared.
//  2. At most in_flight_bytes_max of data and copies_max copies are in flight.
//  3. finished() only when every copy handed out has been reported done.
// While a resync runs, bits are only cleared, and only behind the walk: guest writes go to both
// replicas. A copy that fails ends the session, and the next one walks again. One thread. Bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "vmrepl/bitmap/dirty_bitmap.hpp"

namespace havm {

struct ResyncCopy {
  std::uint16_t disk = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  bool hole = false;  // expected to read as zeroes: costs no transfer
};

class ResyncCore {
 public:
  static constexpr std::uint32_t data_bytes_max = 512U << 10;  // of one copy
  static constexpr std::uint32_t hole_bytes_max = 8U << 20;    // of one copy
  static constexpr std::uint64_t in_flight_bytes_max = 4U << 20;
  static constexpr std::size_t copies_max = 32;

  // The bitmaps outlive it.
  explicit ResyncCore(std::vector<const DirtyBitmap*> dirty);

  // The next range (of at most hole_bytes_max), or nothing when the window is full or all is handed
  // out. take() hands out its first `length` bytes; a data copy is at most data_bytes_max.
  [[nodiscard]] std::optional<ResyncCopy> peek();
  ResyncCopy take(const ResyncCopy& peeked, std::uint64_t length, bool hole);
  void done(const ResyncCopy& copy);

  [[nodiscard]] bool finished() { return in_flight_ == 0 && !next(); }
  [[nodiscard]] std::uint64_t total_bytes() const { return total_bytes_; }
  [[nodiscard]] std::uint64_t done_bytes() const { return done_bytes_; }
  [[nodiscard]] std::size_t in_flight() const { return in_flight_; }

 private:
  std::optional<ResyncCopy> next();

  std::vector<const DirtyBitmap*> dirty_;
  std::vector<std::uint64_t> cursors_;  // of each disk: the walk has passed what is before it
  std::uint64_t total_bytes_ = 0;
  std::uint64_t done_bytes_ = 0;
  std::uint64_t in_flight_bytes_ = 0;
  std::size_t in_flight_ = 0;
};

}  // namespace havm
