// The job of ActivityLogCore: decide which extents of the disks stand in the activity log, so that
// after a crash the replicas are compared only there. Pure: whoever drives it writes the
// transactions that it starts (docs/protocol/on-disk.md).
//
// Invariants (design rule 5: intent before data)
//  L1. admit() says logged, or the transaction it named is durable, only when every extent of the
//      request stands in the table on disk; and there it stays while it is pinned or something
//      released there is not covered by a flush: in the table on disk and in that table with the
//      transaction in flight applied.
//  L2. An extent loses its slot only when it is unpinned and a flush_done covered its last
//      release; the least recently released one first. Restored extents count as not flushed.
//  L3. All or nothing: a full admit() changed and pinned nothing. It is full only when the extents
//      that L2 keeps and those of the request do not fit together.
//  L4. A transaction has at most updates_max updates; the transaction named by admit() never
//      changes. Any ring_blocks - 1 transactions in a row carry the context of every slot.
// Offsets and lengths in bytes; a range beyond the disk is a bug of the caller. One thread.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

namespace havm {

// Extent `index` of a disk: extent_bytes at index * extent_bytes, the last one cut by its end.
struct LogExtent {
  std::uint16_t disk = 0;
  std::uint32_t index = 0;
  auto operator<=>(const LogExtent&) const = default;
};

struct LogSlot {
  std::uint32_t slot = 0;
  std::optional<LogExtent> extent;  // nothing: the slot is free
  bool operator==(const LogSlot&) const = default;
};

// One atomic change of the table, and a piece of the table as it is after that change.
struct LogTransaction {
  std::uint64_t number = 0;
  std::vector<LogSlot> updates;
  std::uint32_t context_first = 0;
  std::vector<std::optional<LogExtent>> context;  // of slots context_first and on
  bool operator==(const LogTransaction&) const = default;
};

class ActivityLogCore {
 public:
  static constexpr std::uint64_t extent_bytes = 4U << 20;
  static constexpr std::uint32_t slots_default = 6656;  // covers 26 GiB
  static constexpr std::uint32_t slots_max = 15750;     // 61 GiB: what the blocks have room for
  static constexpr std::uint32_t updates_max = 256;     // in one transaction
  static constexpr std::uint32_t ring_blocks = 64;      // transactions that are kept on disk

  // Context of one transaction, so that ring_blocks - 1 in a row carry the whole table.
  static constexpr std::uint32_t context_slots(std::uint32_t slots) {
    return (slots + ring_blocks - 2) / (ring_blocks - 1);
  }
  static constexpr std::uint32_t context_pieces(std::uint32_t slots) {
    return (slots + context_slots(slots) - 1) / context_slots(slots);
  }
  // The first slot of the context of transaction `number`.
  static constexpr std::uint32_t context_first(std::uint64_t number, std::uint32_t slots) {
    return static_cast<std::uint32_t>(number % context_pieces(slots)) * context_slots(slots);
  }

  // `slots`: the table that was read, all free for a new log. `next_transaction` ≥ 1.
  ActivityLogCore(const std::vector<std::uint64_t>& disk_sizes_bytes,
                  const std::vector<std::optional<LogExtent>>& slots,
                  std::uint64_t next_transaction);

  struct Admission {
    enum class Kind : std::uint8_t { logged, pending, full } kind = Kind::full;
    std::uint64_t transaction = 0;  // pending: the request may go on when this one is done
  };
  // A request is about to change this range. logged and pending pin its extents until release().
  // full: ask again after a flush_done().
  [[nodiscard]] Admission admit(std::uint16_t disk, std::uint64_t offset, std::uint64_t length);
  // The request ended on every leg that it had, or was abandoned: the same range as admitted.
  void release(std::uint16_t disk, std::uint64_t offset, std::uint64_t length);

  // One at a time; nothing while one is in flight or nothing is pending.
  [[nodiscard]] std::optional<LogTransaction> start_transaction();
  void transaction_done(std::uint64_t number);
  // Everything up to it is durable.
  [[nodiscard]] std::uint64_t durable_transaction() const { return durable_transaction_; }
  [[nodiscard]] bool in_flight() const { return !in_flight_.empty(); }

  // What was released on the disk before flush_started() is, when flush_done() comes with its mark,
  // durable where it must be: on both replicas, or on the own one and as a durable dirty bit.
  // For restored extents that means: flushed on both, or durably dirty, since they were read. A
  // flush that failed is not reported.
  [[nodiscard]] std::uint64_t flush_started(std::uint16_t disk);
  void flush_done(std::uint16_t disk, std::uint64_t mark);
  // An admit() was full since the last flush_done(): a flush is wanted.
  [[nodiscard]] bool starved() const { return starved_; }

  // The evictable extents that nothing was released in since the last call leave the log: what a
  // crash makes the replicas compare is then little more than what is in use.
  void retire_idle();

  // every(LogExtent) for each one that a reader of the log might find: durable, in flight or
  // pending. One extent may be told more than once.
  template <class Every>
  void for_each_extent(const Every& every) const {
    for (const Slot& s : slots_) {
      if (s.durable) every(*s.durable);
      if (s.planned && s.planned != s.durable) every(*s.planned);
    }
    for (const LogSlot& update : in_flight_)
      if (update.extent) every(*update.extent);
  }

  // Counts, for status and for whoever wonders which flush would help.
  [[nodiscard]] std::uint32_t slots() const { return static_cast<std::uint32_t>(slots_.size()); }
  // In the table as it will be; the sum of the pinned, unflushed and evictable ones.
  [[nodiscard]] std::size_t extents() const { return places_.size(); }
  [[nodiscard]] std::size_t pinned() const { return pinned_; }
  // Unpinned, and no flush covered their last release yet.
  [[nodiscard]] std::size_t unflushed(std::uint16_t disk) const;
  [[nodiscard]] std::size_t evictable() const { return clean_.size(); }
  // Slots whose change waits for a transaction that is not started.
  [[nodiscard]] std::size_t pending_updates() const { return queue_.size(); }

 private:
  static constexpr std::uint32_t no_slot = UINT32_MAX;

  struct Slot {
    std::optional<LogExtent> durable;  // by the finished transactions
    std::optional<LogExtent> planned;  // once all that is pending is durable
    std::uint64_t transaction = 0;     // the one that makes `planned` durable
    std::uint64_t released = 0;        // number of the last release; 0 when restored
    std::uint32_t pins = 0;
    std::uint32_t before = no_slot;  // neighbours in the unflushed list of the disk
    std::uint32_t after = no_slot;
    bool queued = false;
    bool clean = false;
  };
  struct Disk {
    std::uint64_t size_bytes = 0;
    std::uint32_t oldest = no_slot;  // unpinned and unflushed slots, by their last release
    std::uint32_t newest = no_slot;
    std::size_t unflushed = 0;
  };
  struct Span {
    std::uint32_t first = 0;
    std::uint32_t end = 0;
  };

  [[nodiscard]] Span extents_of(std::uint16_t disk, std::uint64_t offset,
                                std::uint64_t length) const;
  [[nodiscard]] std::uint32_t place_of(LogExtent extent) const;
  [[nodiscard]] bool fits(std::uint16_t disk, Span span) const;
  void pin(std::uint32_t slot);
  std::uint32_t take_slot();
  std::uint32_t evict_oldest();
  void enqueue(std::uint32_t slot);
  void plan(std::uint32_t slot, LogExtent extent);
  void add_unflushed(std::uint32_t slot);
  void remove_unflushed(std::uint32_t slot);

  std::vector<Disk> disks_;
  std::vector<Slot> slots_;
  std::unordered_map<std::uint64_t, std::uint32_t> places_;  // planned extent → slot
  std::vector<std::uint32_t> free_;                          // planned free
  std::set<std::pair<std::uint64_t, std::uint32_t>> clean_;  // evictable: (last release, slot)
  std::deque<std::uint32_t> queue_;                          // changed, in no transaction yet
  std::vector<LogSlot> in_flight_;                           // updates of the started transaction
  std::uint64_t next_transaction_ = 1;
  std::uint64_t durable_transaction_ = 0;
  std::uint64_t releases_ = 0;
  std::uint64_t idle_mark_ = 0;  // releases_ at the last retire_idle()
  std::size_t pinned_ = 0;
  bool starved_ = false;
};

}  // namespace havm
