#include "vmrepl/bitmap/dirty_bitmap.hpp"

#include <algorithm>
#include <bit>

#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

constexpr std::uint64_t word_bits = 64;

std::uint64_t divide_up(std::uint64_t value, std::uint64_t by) {
  return value / by + (value % by != 0 ? 1 : 0);
}

// The bits of word `word` that belong to [first, last).
std::uint64_t mask_of(std::uint64_t word, std::uint64_t first, std::uint64_t last) {
  const std::uint64_t begin = word * word_bits;
  const std::uint64_t low = std::max(first, begin) - begin;
  const std::uint64_t high = std::min(last, begin + word_bits) - begin;
  if (low >= high) return 0;
  const std::uint64_t up_to_high = high == word_bits ? ~std::uint64_t{0} : (1ULL << high) - 1;
  return up_to_high & ~((1ULL << low) - 1);
}

}  // namespace

DirtyBitmap::DirtyBitmap(std::uint64_t disk_size_bytes)
    : disk_size_bytes_(disk_size_bytes),
      grains_(divide_up(disk_size_bytes, grain_bytes)),
      words_(divide_up(grains_, word_bits), 0) {}

void DirtyBitmap::fill(std::uint64_t first, std::uint64_t last, bool value) {
  if (first >= last) return;
  for (std::uint64_t w = first / word_bits; w <= (last - 1) / word_bits; ++w) {
    const std::uint64_t before = words_[w];
    const std::uint64_t mask = mask_of(w, first, last);
    words_[w] = value ? before | mask : before & ~mask;
    set_grains_ += static_cast<std::uint64_t>(std::popcount(words_[w]));
    set_grains_ -= static_cast<std::uint64_t>(std::popcount(before));
  }
}

void DirtyBitmap::set_range(std::uint64_t offset, std::uint64_t length) {
  HAVM_ASSERT(offset <= disk_size_bytes_ && length <= disk_size_bytes_ - offset,
              "a dirty range must lie on the disk");
  if (length == 0) return;
  fill(offset / grain_bytes, (offset + length - 1) / grain_bytes + 1, true);
}

void DirtyBitmap::clear_range(std::uint64_t offset, std::uint64_t length) {
  HAVM_ASSERT(offset <= disk_size_bytes_ && length <= disk_size_bytes_ - offset,
              "a cleared range must lie on the disk");
  const std::uint64_t end = offset + length;
  const std::uint64_t last = end == disk_size_bytes_ ? grains_ : end / grain_bytes;
  fill(divide_up(offset, grain_bytes), last, false);
}

void DirtyBitmap::set_all() {
  fill(0, grains_, true);
}

void DirtyBitmap::clear_all() {
  fill(0, grains_, false);
}

bool DirtyBitmap::any_in(std::uint64_t offset, std::uint64_t length) const {
  HAVM_ASSERT(offset <= disk_size_bytes_ && length <= disk_size_bytes_ - offset,
              "a range asked for must lie on the disk");
  if (length == 0) return false;
  const std::uint64_t last = (offset + length - 1) / grain_bytes + 1;
  return find(offset / grain_bytes, last, true) < last;
}

std::uint64_t DirtyBitmap::set_bytes() const {
  const std::uint64_t short_by = grains_ * grain_bytes - disk_size_bytes_;
  const bool last_set = grains_ > 0 && test(grains_ - 1);
  return set_grains_ * grain_bytes - (last_set ? short_by : 0);
}

bool DirtyBitmap::test(std::uint64_t grain) const {
  return ((words_[grain / word_bits] >> (grain % word_bits)) & 1) != 0;
}

// Looks no further than `last`: what a resync asks for at each step must not cost the whole disk.
std::uint64_t DirtyBitmap::find(std::uint64_t first, std::uint64_t last, bool value) const {
  for (std::uint64_t w = first / word_bits; w * word_bits < last; ++w) {
    const std::uint64_t bits = (value ? words_[w] : ~words_[w]) & mask_of(w, first, last);
    if (bits != 0) return w * word_bits + static_cast<std::uint64_t>(std::countr_zero(bits));
  }
  return last;
}

std::optional<ByteRange> DirtyBitmap::next_set(std::uint64_t cursor,
                                               std::uint64_t length_max) const {
  // The end of the last, short grain is not a place inside it: a walk must end there.
  if (cursor >= disk_size_bytes_) return std::nullopt;
  const std::uint64_t first = find(cursor / grain_bytes, grains_, true);
  if (first >= grains_) return std::nullopt;
  const std::uint64_t most = std::max<std::uint64_t>(length_max / grain_bytes, 1);
  const std::uint64_t last = find(first, most > grains_ - first ? grains_ : first + most, false);
  const std::uint64_t offset = first * grain_bytes;
  return ByteRange{offset, std::min(last * grain_bytes, disk_size_bytes_) - offset};
}

void DirtyBitmap::merge(const DirtyBitmap& other) {
  HAVM_ASSERT(other.disk_size_bytes_ == disk_size_bytes_, "only bitmaps of equal disks are merged");
  set_grains_ = 0;
  for (std::size_t w = 0; w < words_.size(); ++w) {
    words_[w] |= other.words_[w];
    set_grains_ += static_cast<std::uint64_t>(std::popcount(words_[w]));
  }
}

bool DirtyBitmap::assign_words(std::span<const std::uint64_t> words) {
  if (words.size() != words_.size()) return false;
  if (!words.empty()) {
    const std::uint64_t last = words.size() - 1;
    if ((words[last] & ~mask_of(last, 0, grains_)) != 0) return false;
  }
  std::copy(words.begin(), words.end(), words_.begin());
  set_grains_ = 0;
  for (const std::uint64_t w : words_)
    set_grains_ += static_cast<std::uint64_t>(std::popcount(w));
  return true;
}

bool DirtyBitmap::merge_words(std::size_t first_word, std::span<const std::uint64_t> words) {
  if (first_word > words_.size() || words.size() > words_.size() - first_word) return false;
  for (std::size_t i = 0; i < words.size(); ++i)
    if ((words[i] & ~mask_of(first_word + i, 0, grains_)) != 0) return false;
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::uint64_t& word = words_[first_word + i];
    set_grains_ += static_cast<std::uint64_t>(std::popcount(words[i] & ~word));
    word |= words[i];
  }
  return true;
}

}  // namespace havm
