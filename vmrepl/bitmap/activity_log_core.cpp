#include "vmrepl/bitmap/activity_log_core.hpp"

#include <algorithm>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/rules.hpp"

namespace havm {
namespace {

constexpr bool contexts_cover_every_table() {
  for (std::uint32_t slots = 1; slots <= ActivityLogCore::slots_max; ++slots)
    if (ActivityLogCore::context_pieces(slots) > ActivityLogCore::ring_blocks - 1 ||
        ActivityLogCore::context_pieces(slots) * ActivityLogCore::context_slots(slots) < slots)
      return false;
  return true;
}
// L4: transaction n carries piece n modulo the number of pieces, so as many in a row as there are
// pieces carry them all.
static_assert(contexts_cover_every_table());

std::uint64_t key_of(LogExtent extent) {
  return std::uint64_t{extent.disk} << 32 | extent.index;
}

}  // namespace

ActivityLogCore::ActivityLogCore(const std::vector<std::uint64_t>& disk_sizes_bytes,
                                 const std::vector<std::optional<LogExtent>>& slots,
                                 std::uint64_t next_transaction)
    : slots_(slots.size()),
      next_transaction_(next_transaction),
      durable_transaction_(next_transaction - 1) {
  HAVM_ASSERT(!slots.empty() && slots.size() <= slots_max, "a log has 1 to slots_max slots");
  HAVM_ASSERT(next_transaction >= 1, "transactions are numbered from 1");
  for (const std::uint64_t size : disk_sizes_bytes) {
    disks_.emplace_back();
    disks_.back().size_bytes = size;
  }
  places_.reserve(slots.size());
  for (std::uint32_t i = 0; i < slots.size(); ++i) {
    Slot& s = slots_[i];
    s.durable = slots[i];
    if (!s.durable) continue;
    HAVM_ASSERT(s.durable->disk < disks_.size() &&
                    s.durable->index * extent_bytes < disks_[s.durable->disk].size_bytes,
                "a restored extent must lie on a disk");
    // No extent is ever put into two slots, but nothing here relies on that: one is enough, the
    // other one is free to be written over.
    if (!places_.emplace(key_of(*s.durable), i).second) continue;
    s.planned = s.durable;
    add_unflushed(i);
  }
  for (std::uint32_t i = this->slots(); i > 0; --i)
    if (!slots_[i - 1].planned) free_.push_back(i - 1);
}

// ---- requests --------------------------------------------------------------------------------

ActivityLogCore::Span ActivityLogCore::extents_of(std::uint16_t disk, std::uint64_t offset,
                                                  std::uint64_t length) const {
  HAVM_ASSERT(disk < disks_.size(), "a request must be of a disk of this VM");
  const std::uint64_t size = disks_[disk].size_bytes;
  HAVM_ASSERT(offset <= size && length <= size - offset, "a request must lie on the disk");
  if (length == 0) return {};
  return {static_cast<std::uint32_t>(offset / extent_bytes),
          static_cast<std::uint32_t>((offset + length - 1) / extent_bytes + 1)};
}

std::uint32_t ActivityLogCore::place_of(LogExtent extent) const {
  const auto found = places_.find(key_of(extent));
  return found == places_.end() ? no_slot : found->second;
}

bool ActivityLogCore::fits(std::uint16_t disk, Span span) const {
  std::size_t missing = 0;
  std::size_t room = free_.size() + clean_.size();
  for (std::uint32_t index = span.first; index < span.end; ++index) {
    const std::uint32_t slot = place_of({disk, index});
    if (slot == no_slot)
      ++missing;
    else if (slots_[slot].clean)
      --room;  // wanted itself
  }
  return missing <= room;
}

ActivityLogCore::Admission ActivityLogCore::admit(std::uint16_t disk, std::uint64_t offset,
                                                  std::uint64_t length) {
  const Span span = extents_of(disk, offset, length);
  if (!fits(disk, span)) {
    starved_ = true;
    return {};
  }
  // First those that are there, or making room could take them.
  std::uint64_t last = 0;
  for (std::uint32_t index = span.first; index < span.end; ++index) {
    const std::uint32_t slot = place_of({disk, index});
    if (slot == no_slot) continue;
    pin(slot);
    last = std::max(last, slots_[slot].transaction);
  }
  for (std::uint32_t index = span.first; index < span.end; ++index) {
    if (place_of({disk, index}) != no_slot) continue;
    const std::uint32_t slot = take_slot();
    plan(slot, {disk, index});
    pin(slot);
    last = std::max(last, slots_[slot].transaction);
  }
  if (last <= durable_transaction_) return {Admission::Kind::logged, 0};
  return {Admission::Kind::pending, last};
}

void ActivityLogCore::pin(std::uint32_t slot) {
  Slot& s = slots_[slot];
  if (s.pins++ > 0) return;
  ++pinned_;
  if (s.clean) {
    clean_.erase({s.released, slot});
    s.clean = false;
  } else if (s.before != no_slot || disks_[s.planned->disk].oldest == slot) {
    remove_unflushed(slot);
  }
}

std::uint32_t ActivityLogCore::take_slot() {
  if (!free_.empty()) {
    const std::uint32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  HAVM_ASSERT(!clean_.empty(), "room was counted before it was taken");
  return evict_oldest();
}

std::uint32_t ActivityLogCore::evict_oldest() {
  const std::uint32_t slot = clean_.begin()->second;
  clean_.erase(clean_.begin());
  Slot& s = slots_[slot];
  s.clean = false;
  places_.erase(key_of(*s.planned));
  s.planned.reset();
  return slot;
}

void ActivityLogCore::retire_idle() {
  while (!clean_.empty() && clean_.begin()->first <= idle_mark_) {
    const std::uint32_t slot = evict_oldest();
    slots_[slot].released = 0;
    free_.push_back(slot);
    enqueue(slot);
  }
  idle_mark_ = releases_;
}

// A slot that waits already keeps its place in the queue: nobody waits for what it held before,
// since that was unpinned. Transactions take updates_max from the front or all there is, so the
// place in the queue tells the number.
void ActivityLogCore::plan(std::uint32_t slot, LogExtent extent) {
  Slot& s = slots_[slot];
  s.planned = extent;
  s.released = 0;
  places_.emplace(key_of(extent), slot);
  enqueue(slot);
}

void ActivityLogCore::enqueue(std::uint32_t slot) {
  Slot& s = slots_[slot];
  if (s.queued) return;
  s.queued = true;
  s.transaction = next_transaction_ + queue_.size() / updates_max;
  queue_.push_back(slot);
}

void ActivityLogCore::release(std::uint16_t disk, std::uint64_t offset, std::uint64_t length) {
  const Span span = extents_of(disk, offset, length);
  for (std::uint32_t index = span.first; index < span.end; ++index) {
    const std::uint32_t slot = place_of({disk, index});
    HAVM_ASSERT(slot != no_slot && slots_[slot].pins > 0, "released without having been admitted");
    Slot& s = slots_[slot];
    s.released = ++releases_;
    if (--s.pins > 0) continue;
    --pinned_;
    add_unflushed(slot);
    if (holds(Rule::eviction_after_flush)) continue;
    remove_unflushed(slot);
    s.clean = true;
    clean_.emplace(s.released, slot);
  }
}

// ---- transactions ----------------------------------------------------------------------------

std::optional<LogTransaction> ActivityLogCore::start_transaction() {
  if (in_flight() || queue_.empty()) return std::nullopt;
  LogTransaction t;
  t.number = next_transaction_++;
  t.context_first = context_first(t.number, slots());
  const std::uint32_t end = std::min(t.context_first + context_slots(slots()), slots());
  for (std::uint32_t slot = t.context_first; slot < end; ++slot)
    t.context.push_back(slots_[slot].durable);
  while (!queue_.empty() && t.updates.size() < updates_max) {
    const std::uint32_t slot = queue_.front();
    queue_.pop_front();
    Slot& s = slots_[slot];
    s.queued = false;
    t.updates.push_back({slot, s.planned});
    if (slot >= t.context_first && slot < end) t.context[slot - t.context_first] = s.planned;
  }
  in_flight_ = t.updates;
  return t;
}

void ActivityLogCore::transaction_done(std::uint64_t number) {
  HAVM_ASSERT(in_flight() && number + 1 == next_transaction_,
              "only the transaction in flight can be done");
  for (const LogSlot& update : in_flight_)
    slots_[update.slot].durable = update.extent;
  in_flight_.clear();
  durable_transaction_ = number;
}

// ---- flushes ---------------------------------------------------------------------------------

std::uint64_t ActivityLogCore::flush_started(std::uint16_t disk) {
  HAVM_ASSERT(disk < disks_.size(), "a flush must be of a disk of this VM");
  return releases_;
}

void ActivityLogCore::flush_done(std::uint16_t disk, std::uint64_t mark) {
  HAVM_ASSERT(disk < disks_.size() && mark <= releases_, "a flush is done that was not started");
  starved_ = false;
  Disk& d = disks_[disk];
  while (d.oldest != no_slot && slots_[d.oldest].released <= mark) {
    const std::uint32_t slot = d.oldest;
    remove_unflushed(slot);
    slots_[slot].clean = true;
    clean_.emplace(slots_[slot].released, slot);
  }
}

std::size_t ActivityLogCore::unflushed(std::uint16_t disk) const {
  HAVM_ASSERT(disk < disks_.size(), "counted on a disk of this VM");
  return disks_[disk].unflushed;
}

// The list stays sorted by the last release: releases only rise, restored ones come first.
void ActivityLogCore::add_unflushed(std::uint32_t slot) {
  Slot& s = slots_[slot];
  Disk& d = disks_[s.planned->disk];
  s.before = d.newest;
  s.after = no_slot;
  (d.newest == no_slot ? d.oldest : slots_[d.newest].after) = slot;
  d.newest = slot;
  ++d.unflushed;
}

void ActivityLogCore::remove_unflushed(std::uint32_t slot) {
  Slot& s = slots_[slot];
  Disk& d = disks_[s.planned->disk];
  (s.before == no_slot ? d.oldest : slots_[s.before].after) = s.after;
  (s.after == no_slot ? d.newest : slots_[s.after].before) = s.before;
  s.before = s.after = no_slot;
  --d.unflushed;
}

}  // namespace havm
