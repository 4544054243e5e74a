// The job of WriteBack: to decide, as a disk's cache does, which part of an unflushed write reaches
// the medium without being asked for. Drawn from a seed: nothing, all of it, or a random subset of
// its sectors (a torn write).
//
// Any thread. The draws come in the order of the calls, so one seed repeats a run only as far as
// the writes come in the same order.
#pragma once

#include <cstdint>
#include <mutex>
#include <random>
#include <vector>

namespace havm::lab {

struct ByteRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

class WriteBack {
 public:
  static constexpr std::uint64_t sector_bytes = 512;

  // `chance` of each write to reach the medium at once, wholly or in part; 0: never.
  WriteBack(double chance, std::uint64_t seed);

  // Ranges inside the write, cut at multiples of a sector, in order.
  std::vector<ByteRange> of_write(std::uint64_t offset, std::uint64_t length);
  // One stretch inside the zeroed range, or none.
  std::vector<ByteRange> of_zeroes(std::uint64_t offset, std::uint64_t length);

 private:
  bool happens(double chance);

  std::mutex mutex_;
  double chance_;
  std::mt19937_64 random_;
};

}  // namespace havm::lab
