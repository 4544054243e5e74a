// The job of World: what drives PrimaryCore in its fuzz target, and what it keeps to judge every
// decision by (targets/primary_core.cpp). One thread.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "tests/fuzz/support/fuzz_target.hpp"
#include "vmrepl/resync/resync_core.hpp"
#include "vmrepl/session/primary_core.hpp"

namespace havm::fuzz {

constexpr std::uint64_t extent = ActivityLogCore::extent_bytes;
constexpr std::uint64_t disk_bytes = 5 * extent;
constexpr std::uint16_t disk_count = 2;
constexpr std::size_t log_slots = 4;  // fewer than there are extents
constexpr OpId ops_max = 48;

struct Op {
  DiskRequest what;
  ResyncCopy copy;        // of a resync
  SessionId session;      // of that copy
  bool is_copy = false;   // of a resync, or of a verify
  bool compares = false;  // a copy of which only what differs is sent, or a check
  bool verifies = false;
  std::uint64_t number = 0;  // order of arrival
  bool local_runs = false;
  bool local_ok = false;
  bool sent = false;       // to the present or a lost session
  bool acked = false;      // by the partner
  bool fetched = false;    // a read that failed here, with the partner's data
  bool repairing = false;  // which is being written to the own disk
};

struct Sent {
  FrameHeader frame;
  OpId op = no_op;
  std::uint64_t number = 0;  // of the newest request when it was sent
  bool repairs = false;
};

struct DiskState {
  bool flushing = false;
  std::uint64_t local_flush = 0;     // number of the newest request when the last flush began
  std::uint64_t flushed = 0;         // … of the last one that succeeded
  std::uint64_t partner_flush = 0;   // … of the last one that the partner acked
  std::vector<ByteRange> unflushed;  // acked by the partner, no flush sent since
  std::vector<ByteRange> covered;    // acked, and covered by the partner flush in flight
};

// Four neighbours each around the borders of the extents.
inline std::uint64_t some_offset(Input& in) {
  const std::size_t slot = in.below(16);
  return (slot / 4 + 1) * extent - 65536 + slot % 4 * 32768;
}

class World {
 public:
  World() { core_.open(epoch_, generation_due_); }
  void step(Input& in);
  void finish();

 private:
  void submit(Input& in);
  void local(Input& in);
  void flush_done(Input& in);
  void session(Input& in);
  void answer(Input& in);
  void copy(Input& in);
  void check(Input& in);
  void role(Input& in);
  void marks(Input& in);
  void end_log();
  void end_local(OpId id, int error);
  void execute();
  void execute(const PrimaryAction& action);
  void launched(OpId id, bool leg_to_partner);
  void sent(const PrimaryAction& action);
  void completed(const PrimaryAction& action);
  void check_logged(const Op& op) const;
  void check_flush(const Op& flush) const;
  void answered(const Sent& question, const FrameHeader& answer);
  void lost();
  [[nodiscard]] std::optional<OpId> free_id() const;

  ReplicaMarks marks_{
      {DirtyBitmap(disk_bytes), DirtyBitmap(disk_bytes)}, ReplicaMarks::LogTable(log_slots), 1};
  PrimaryCore core_{marks_};
  PrimaryCore::Actions actions_;
  Epoch epoch_{5};
  SessionId session_{7};
  TimePoint now_ = from_ns(1);
  std::map<OpId, Op> ops_;
  std::uint64_t next_number_ = 1;
  std::vector<Sent> unanswered_;
  DiskState disks_[disk_count];
  bool held_before_ = false;
  bool released_ = false;             // by shrink or close, in this event
  std::optional<ResyncCore> resync_;  // as the driver keeps it
  std::uint64_t before_stream_ = 0;   // number of the newest request when the stream began
  bool connected_ = false;
  bool full_ = false;           // the session copies everything
  bool generation_due_ = true;  // the partner may hold the present generation
  bool save_wanted_ = false;
  std::optional<LogTransaction> log_write_;                         // in flight
  ReplicaMarks::LogTable log_ = ReplicaMarks::LogTable(log_slots);  // on disk
};

}  // namespace havm::fuzz
