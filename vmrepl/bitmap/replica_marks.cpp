#include "vmrepl/bitmap/replica_marks.hpp"

#include <algorithm>
#include <utility>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/rules.hpp"

namespace havm {
namespace {

std::vector<std::uint64_t> sizes_of(const std::vector<DirtyBitmap>& bitmaps) {
  std::vector<std::uint64_t> sizes;
  for (const DirtyBitmap& b : bitmaps)
    sizes.push_back(b.disk_size_bytes());
  return sizes;
}

}  // namespace

ReplicaMarks::ReplicaMarks(std::vector<DirtyBitmap> bitmaps, const LogTable& log,
                           std::uint64_t next_transaction)
    : bitmaps_(std::move(bitmaps)),
      slots_(log.size()),
      log_(sizes_of(bitmaps_), log, next_transaction),
      waiting_(bitmaps_.size()),
      saving_(bitmaps_.size()) {
  for (const auto& extent : log)
    if (extent && holds(Rule::log_extents_are_dirty))
      set(extent->disk, extent->index * ActivityLogCore::extent_bytes,
          ActivityLogCore::extent_bytes);
}

// ---- what differs ----------------------------------------------------------------------------

std::uint64_t ReplicaMarks::dirty_bytes() const {
  std::uint64_t sum = 0;
  for (const DirtyBitmap& b : bitmaps_)
    sum += b.set_bytes();
  return sum;
}

void ReplicaMarks::set(std::uint16_t disk, std::uint64_t offset, std::uint64_t length) {
  DirtyBitmap& bitmap = bitmaps_[disk];
  const std::uint64_t size = bitmap.disk_size_bytes();
  if (length == 0 || offset >= size) return;
  const std::uint64_t before = bitmap.set_grains();
  bitmap.set_range(offset, std::min(length, size - offset));
  if (bitmap.set_grains() != before) set_version_ = ++version_;
}

void ReplicaMarks::clear(std::uint16_t disk, std::uint64_t offset, std::uint64_t length) {
  DirtyBitmap& bitmap = bitmaps_[disk];
  const std::uint64_t size = bitmap.disk_size_bytes();
  if (length == 0 || offset >= size) return;
  bitmap.clear_range(offset, std::min(length, size - offset));
  ++version_;
}

void ReplicaMarks::set_all() {
  for (DirtyBitmap& b : bitmaps_)
    b.set_all();
  set_version_ = ++version_;
}

void ReplicaMarks::clear_all() {
  for (DirtyBitmap& b : bitmaps_)
    b.clear_all();
  ++version_;
}

void ReplicaMarks::forget(std::uint64_t next_transaction) {
  clear_all();
  log_ = ActivityLogCore(sizes_of(bitmaps_), LogTable(slots_), next_transaction);
  std::ranges::fill(waiting_, std::nullopt);
  std::ranges::fill(saving_, std::nullopt);
}

// ---- intent before data ----------------------------------------------------------------------

ReplicaMarks::Admission ReplicaMarks::admit(std::uint16_t disk, std::uint64_t offset,
                                            std::uint64_t length) {
  return log_.admit(disk, offset, length);
}

void ReplicaMarks::release(std::uint16_t disk, std::uint64_t offset, std::uint64_t length) {
  log_.release(disk, offset, length);
}

std::optional<LogTransaction> ReplicaMarks::start_transaction() {
  return log_.start_transaction();
}

void ReplicaMarks::flushed(std::uint16_t disk, std::uint64_t mark) {
  if (is_saved() || !holds(Rule::eviction_after_save))
    log_.flush_done(disk, mark);
  else
    waiting_[disk] = mark;
}

// ---- saving the bitmaps ----------------------------------------------------------------------

bool ReplicaMarks::save_wanted() const {
  return std::ranges::any_of(waiting_, [](const auto& mark) { return mark.has_value(); });
}

void ReplicaMarks::save_started() {
  HAVM_ASSERT(!saving_version_, "two saves of the bitmaps at once");
  saving_version_ = version_;
  saving_.swap(waiting_);
}

void ReplicaMarks::save_done() {
  HAVM_ASSERT(saving_version_, "a save ended that was not started");
  saved_version_ = *std::exchange(saving_version_, std::nullopt);
  for (std::uint16_t disk = 0; disk < saving_.size(); ++disk)
    if (const auto mark = std::exchange(saving_[disk], std::nullopt)) log_.flush_done(disk, *mark);
}

}  // namespace havm
