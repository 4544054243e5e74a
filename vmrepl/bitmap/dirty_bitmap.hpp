// The job of DirtyBitmap: which parts of one disk differ, or may differ, between the two replicas;
// one bitmap per disk. Pure. One thread.
//
// Guarantees
//  1. set_range marks every grain that it touches; clear_range clears only grains that lie entirely
//     inside its range (the last, short grain counts as ending at the disk's end). So what was set
//     and not wholly cleared stays set.
//  2. Ranges returned never reach beyond the disk.
// Offsets and lengths in bytes; a range beyond the disk is a bug of the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace havm {

struct ByteRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool operator==(const ByteRange&) const = default;
};

class DirtyBitmap {
 public:
  static constexpr std::uint64_t grain_bytes = 64U << 10;

  // All clear.
  explicit DirtyBitmap(std::uint64_t disk_size_bytes);

  [[nodiscard]] std::uint64_t disk_size_bytes() const { return disk_size_bytes_; }
  [[nodiscard]] std::uint64_t grains() const { return grains_; }

  void set_range(std::uint64_t offset, std::uint64_t length);
  void clear_range(std::uint64_t offset, std::uint64_t length);
  void set_all();
  void clear_all();

  // True when any grain touched by the range is set.
  [[nodiscard]] bool any_in(std::uint64_t offset, std::uint64_t length) const;
  [[nodiscard]] bool empty() const { return set_grains_ == 0; }
  [[nodiscard]] std::uint64_t set_grains() const { return set_grains_; }
  // Bytes of the disk covered by set grains.
  [[nodiscard]] std::uint64_t set_bytes() const;

  // The first run of set grains at or after `cursor` (rounded down to its grain), of at most
  // `length_max` bytes (at least one grain). Nothing when there is none up to the disk's end; so a
  // walk goes on at the end of each run.
  [[nodiscard]] std::optional<ByteRange> next_set(std::uint64_t cursor,
                                                  std::uint64_t length_max) const;

  // Adds every set grain of `other`, which is of a disk of the same size.
  void merge(const DirtyBitmap& other);

  // The bits, grain 0 in bit 0 of word 0, unused high bits zero: for storing and sending.
  [[nodiscard]] std::span<const std::uint64_t> words() const { return words_; }
  // False (and unchanged) when the number of words is not this disk's or an unused bit is set.
  [[nodiscard]] bool assign_words(std::span<const std::uint64_t> words);
  // Adds the bits of a piece that begins at word `first_word`; refuses as assign_words does.
  [[nodiscard]] bool merge_words(std::size_t first_word, std::span<const std::uint64_t> words);

 private:
  [[nodiscard]] bool test(std::uint64_t grain) const;
  // The first grain of [first, last) with this value; `last` when there is none.
  [[nodiscard]] std::uint64_t find(std::uint64_t first, std::uint64_t last, bool value) const;
  void fill(std::uint64_t first, std::uint64_t last, bool value);

  std::uint64_t disk_size_bytes_ = 0;
  std::uint64_t grains_ = 0;
  std::uint64_t set_grains_ = 0;
  std::vector<std::uint64_t> words_;
};

}  // namespace havm
