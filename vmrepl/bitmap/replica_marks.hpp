// The job of ReplicaMarks: know, in memory, where this replica may differ from its partner's, and
// decide what of that must be durable before what: the dirty bitmaps and the activity log of all
// disks of one VM (design rules 4, 5, 9). Pure. One thread.
//
// Invariants
//  M1. Wherever the replicas may differ after any crash, the extent is in the durable log or the
//      grain in the durable bitmap: admit() comes before either leg of a write, and an extent
//      leaves the log only when what was written there is flushed on this replica and either
//      flushed by the partner or dirty in a saved bitmap.
//  M2. A bit that was set counts for M1 only once a save that began later has ended; a bit that was
//      cleared may come back by a crash (more is copied than needed, never less).
// The caller sets a bit for every byte that the partner may lack before it says flushed(): that is
// how "flushed by the partner, or dirty" is kept. Bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "vmrepl/bitmap/activity_log_core.hpp"
#include "vmrepl/bitmap/dirty_bitmap.hpp"

namespace havm {

class ReplicaMarks {
 public:
  using LogTable = std::vector<std::optional<LogExtent>>;

  // What was read from disk: bitmaps, and the table of the log with the number of its next
  // transaction. The extents of the log become dirty: nobody knows how far their writes came.
  ReplicaMarks(std::vector<DirtyBitmap> bitmaps, const LogTable& log,
               std::uint64_t next_transaction);

  // ---- what differs --------------------------------------------------------------------------
  [[nodiscard]] std::size_t disks() const { return bitmaps_.size(); }
  [[nodiscard]] const DirtyBitmap& dirty(std::uint16_t disk) const { return bitmaps_[disk]; }
  [[nodiscard]] std::uint64_t dirty_bytes() const;
  // A range may reach beyond the disk's end; what lies there is ignored.
  void set(std::uint16_t disk, std::uint64_t offset, std::uint64_t length);
  void clear(std::uint16_t disk, std::uint64_t offset, std::uint64_t length);
  void set_all();
  void clear_all();
  // Nothing differs any more, and nothing is in flight: bitmaps and log begin anew. The caller
  // empties the log on disk first.
  void forget(std::uint64_t next_transaction);
  [[nodiscard]] const ActivityLogCore& log() const { return log_; }

  // ---- intent before data --------------------------------------------------------------------
  using Admission = ActivityLogCore::Admission;
  // As ActivityLogCore; every admission but `full` is ended by release().
  Admission admit(std::uint16_t disk, std::uint64_t offset, std::uint64_t length);
  void release(std::uint16_t disk, std::uint64_t offset, std::uint64_t length);
  [[nodiscard]] std::optional<LogTransaction> start_transaction();
  void transaction_done(std::uint64_t number) { log_.transaction_done(number); }
  [[nodiscard]] bool is_logged(std::uint64_t transaction) const {
    return log_.durable_transaction() >= transaction;
  }
  void retire_idle() { log_.retire_idle(); }
  // Somebody waits for room: flush, and save if save_wanted() is still true then.
  [[nodiscard]] bool starved() const { return log_.starved(); }

  // A flush of this disk on every leg it has is about to start; flushed(disk, that) when it ended.
  [[nodiscard]] std::uint64_t flush_started(std::uint16_t disk) { return log_.flush_started(disk); }
  void flushed(std::uint16_t disk, std::uint64_t mark);

  // ---- saving the bitmaps --------------------------------------------------------------------
  // Extents wait to leave the log until the bitmaps are saved.
  [[nodiscard]] bool save_wanted() const;
  // The bitmaps differ from those last saved.
  [[nodiscard]] bool changed() const { return saved_version_ != version_; }
  // Every bit that is set is durable.
  [[nodiscard]] bool is_saved() const { return saved_version_ >= set_version_; }
  [[nodiscard]] bool is_saving() const { return saving_version_.has_value(); }
  // One at a time: the present bits are being written.
  void save_started();
  void save_done();

 private:
  // By disk: the mark of a flush that has ended.
  using FlushMarks = std::vector<std::optional<std::uint64_t>>;

  std::vector<DirtyBitmap> bitmaps_;
  std::size_t slots_;
  ActivityLogCore log_;
  FlushMarks waiting_;             // for the start of a save
  FlushMarks saving_;              // for the end of the running one
  std::uint64_t version_ = 0;      // rises with every change of a bit
  std::uint64_t set_version_ = 0;  // of the newest bit that was set
  std::uint64_t saved_version_ = 0;
  std::optional<std::uint64_t> saving_version_;
};

}  // namespace havm
