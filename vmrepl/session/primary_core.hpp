// The job of PrimaryCore: decide everything about the owner's data path of one VM, all disks one
// consistency group. Pure: events come in as calls, decisions go out as actions, appended to the
// vector given and to be executed in order. No clock, I/O, log or throw.
//
// Invariants
//  P1. While the partner is required (grow_prepare … shrink) nothing is completed that is not on
//      both replicas; a flush or FUA only when durable on both.
//  P2. Without the partner being required a request completes on the own replica alone, but as long
//      as a session streams it waits for the partner too; losing the session drops that leg.
//  P3. Held (frozen, failed, or required partner away): nothing is launched and nothing completes.
//      Held requests are never failed; shrink() lets them go on, in order.
//  P4. Conflicting requests run one at a time in order of arrival; each frame over a range is acked
//      before the next over the same bytes is sent, so that acks may come in any order.
//  P5. A flush waits for every write that arrived before it on its disk, also for those that are
//      held by a conflict, and covers them.
//  P6. The partner's ack is not durability: after a loss all that was in flight and all that no
//      partner flush covered is dirty in the marks. A dirty bit is cleared only when the partner
//      has flushed the copy that was made of it, or the data that was found equal there.
//  P7. A failed local write or flush, and a failed read that P11 does not make good, stops the data
//      path for good (until close): the guest never sees success for what is not where it should
//      be, nor an error.
//  P8. Intent before data: neither leg of a write, nor the repair of a range, is started before its
//      extents are durable in the activity log.
//  P9. The first write that completes without the partner, while the partner may hold the
//      present generation, completes only after a new generation is durable.
//  P10. A full resync is asked for only after every bit is durably set, and the end of a resync
//      only after it is durable that the partner may hold this generation.
//  P11. A read that failed on the own replica is answered with the partner's data, only while the
//      session is synced: then its replica is complete, and the range's lock, held throughout,
//      keeps every write away from both. It completes after that data is durably on the own replica
//      and was read back; as a write that is announced in the activity log first (P8).
// Times are those given with the events. Offsets and lengths in bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "vmrepl/bitmap/replica_marks.hpp"
#include "vmrepl/session/primary_action.hpp"
#include "vmrepl/session/primary_core_types.hpp"
#include "vmrepl/session/range_check.hpp"
#include "vmrepl/session/session_types.hpp"

namespace havm {

class PrimaryCore {
 public:
  using Actions = std::vector<PrimaryAction>;
  // Requests and copies present at once; the NBD servers and the resync window stay far below.
  static constexpr std::size_t requests_max = 1U << 20;
  static constexpr std::size_t leases_max = 64;  // requests without an answer, remembered
  // Copies acked by the partner after which it is asked to flush, so that their bits are cleared.
  static constexpr std::uint64_t copy_flush_bytes = 64U << 20;

  // The marks outlive the core.
  explicit PrimaryCore(ReplicaMarks& marks);

  // The owner role. serve → open; stand-by → close.
  // `generation_due`: the partner may hold the present generation.
  void open(Epoch epoch, bool generation_due);
  void grow_prepare();                          // only when can_grow()
  void grow_commit(Epoch epoch, Actions& out);  // the CAS to {both} is known and persisted
  void freeze() { frozen_ = true; }
  void shrink(Epoch epoch, Actions& out);  // the CAS to {self} is known and persisted
  void close(Actions& out);                // drained follows

  // Guest requests: once open and until close. Zero-length requests complete at once.
  void submit(OpId id, const DiskRequest& request, Actions& out);
  void local_done(OpId id, int error, Actions& out);
  void local_flushed(std::uint16_t disk, int error, Actions& out);
  void written_back(OpId id, int error, Actions& out);

  // The session. Sequence 1 was the hello. Frames of an older session must not be passed in.
  // `full`: the dirty marks say nothing about this partner; everything is copied.
  void session_opened(SessionId session, bool full, Actions& out);
  // Of the next session: its partner answers reads. Said before session_opened.
  void partner_serves_reads(bool serves) { stream_.serves_reads = serves; }
  void session_lost(const std::string& reason, Actions& out);
  // `hashes`: what a hash_ok carries.
  void frame(const FrameHeader& header, Actions& out, const std::vector<GrainHash>& hashes = {});
  void lease_due(TimePoint now, Actions& out);
  // The partner may differ here too (its own marks); before sync_begin_ok. The range may reach
  // beyond the disk.
  void partner_dirty(std::uint16_t disk, std::uint64_t offset, std::uint64_t length, Actions& out);

  // Marks: a transaction of the log is durable; a save of the bitmaps ended. (A failure of either
  // stops the engine: what is on disk is not known then.)
  void log_written(std::uint64_t transaction, Actions& out);
  void marks_saved(Actions& out);

  // Resync: a copy takes part in the same range order as guest writes.
  void copy(OpId id, std::uint16_t disk, std::uint64_t offset, std::uint32_t length, Actions& out);
  void copy_read(OpId id, int error, bool all_zero, Actions& out);
  void resync_finished(Actions& out);

  // Comparing by checksums a range that starts at a grain, of at most hash_range_bytes_max:
  // read_copy, compare_read, copy_done with the outcome. A copy of which only what differs is sent
  // (copy_read instead where it reads as zeroes).
  void compare_copy(OpId id, const DiskRange& range, Actions& out);
  // While live; with `repair` no guest read runs there, and what differs is sent; it is durable
  // after verify_flush (copy_done).
  void verify(OpId id, const DiskRange& range, bool repair, Actions& out);
  void verify_flush(OpId id, std::uint16_t disk, Actions& out);
  void compare_read(OpId id, int error, std::vector<GrainHash> hashes, Actions& out);

  [[nodiscard]] bool is_open() const { return open_; }
  // No local I/O of an earlier time as owner is left, nor of its log.
  [[nodiscard]] bool is_drained() const { return !open_ && local_in_flight_ == 0; }
  [[nodiscard]] Epoch epoch() const { return epoch_; }
  [[nodiscard]] SessionState state() const;
  [[nodiscard]] bool partner_required() const { return required_; }
  [[nodiscard]] bool frozen() const { return frozen_; }
  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] bool held() const {
    return frozen_ || failed_ || (required_ && phase_ == Phase::none);
  }
  [[nodiscard]] std::size_t held_requests() const { return held() ? guest_requests_ : 0; }
  [[nodiscard]] bool can_grow() const;
  // Guest requests that were submitted and not completed.
  [[nodiscard]] std::size_t guest_requests() const { return guest_requests_; }
  [[nodiscard]] const ReplicaMarks& marks() const { return marks_; }

 private:
  enum class Phase : std::uint8_t { none, opening, streaming, ending, synced };
  using Slot = PrimarySlot;
  using Stage = PrimarySlot::Stage;
  using Disk = PrimaryDisk;
  using Pending = PrimaryPending;

  [[nodiscard]] bool stopped() const { return !open_ || held(); }
  [[nodiscard]] bool streaming() const { return phase_ >= Phase::streaming; }
  FrameHeader next_frame(FrameType type, const Pending& pending);
  void send_control(FrameType type, FrameType answer, Actions& out);
  void start(OpId id, Actions& out);
  void granted(OpId id, Actions& out);
  bool announce(OpId id, Actions& out);
  void admit(OpId id);
  void start_transaction(Actions& out);
  void go_on_logged(Actions& out);
  void make_room(Actions& out);
  void end_intent(OpId id);
  void launch(OpId id, Actions& out);
  void start_copy(OpId id, const DiskRange& range, RangeLockKind kind, Actions& out);
  void send_copy(OpId id, bool all_zero, Actions& out);
  void hashed(OpId id, const FrameHeader& header, const std::vector<GrainHash>& hashes,
              Actions& out);
  void repair(OpId id, Actions& out);
  void send_differing(OpId id, Actions& out);
  void copy_frame_acked(OpId id, Actions& out);
  void leave_partner(OpId id);
  void begin_sync(Actions& out);
  void end_copy(OpId id, int error, Actions& out);
  void copy_acked(OpId id, Actions& out);
  void clear_copied(std::uint16_t disk, const UnflushedRanges& ranges);
  void finish_if_ready(OpId id, Actions& out);
  void finish(OpId id, Actions& out);
  void release_lock(OpId id, Actions& out);
  void try_flush(std::uint16_t disk, Actions& out);
  void finish_round_if_ready(std::uint16_t disk, Actions& out);
  void release_held(Actions& out);
  void fail(std::uint16_t disk, int error, Actions& out);
  bool fetch(OpId id, int error, Actions& out);
  void fetched(OpId id, const FrameHeader& header, Actions& out);
  void write_back(OpId id, Actions& out);
  void give_up(OpId id, Actions& out);
  void acked(const FrameHeader& header, const Pending& pending, Actions& out);
  void answered(const FrameHeader& header, Actions& out);
  void drop_session(Actions& out);
  void break_session(const std::string& reason, Actions& out);
  void drop_request(OpId id, Actions& out);
  void changed(SessionState state, const std::string& reason, Actions& out);
  void local_ended(Actions& out);
  Slot& slot(OpId id);
  Slot& new_slot(OpId id);
  void free_slot(OpId id);

  ReplicaMarks& marks_;
  std::vector<Disk> disks_;
  std::vector<Slot> slots_;
  RangeChecks checks_;
  std::vector<OpId> logging_;  // in order of their grants
  PrimaryHeld held_;
  std::uint64_t next_arrival_ = 1;
  std::size_t guest_requests_ = 0;
  std::size_t local_in_flight_ = 0;
  Epoch epoch_;
  PrimaryStream stream_;
  Phase phase_ = Phase::none;
  bool open_ = false;
  bool closing_ = false;
  bool required_ = false;  // in_sync is, or may be, both
  bool grown_ = false;     // in_sync is both
  bool frozen_ = false;
  bool failed_ = false;
  bool generation_due_ = false;  // P9
};

}  // namespace havm
