// The job of these types: what PrimaryCore keeps for each request, disk and frame. Private to its
// sources. Data only.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "vmrepl/base/clock.hpp"
#include "vmrepl/bitmap/range_lock.hpp"
#include "vmrepl/session/session_types.hpp"
#include "vmrepl/session/unflushed_ranges.hpp"
#include "vmrepl/wire/frame_codec.hpp"

namespace havm {

// What becomes of a read that failed on the own replica.
enum class Rescue : std::uint8_t {
  none,
  fetching,  // the partner was asked for the data
  writing,   // it is there, and goes to the own replica
  done,
};

// A guest request, or (is_copy) a copy of a resync, a check of a verify or the flush at its end.
struct PrimarySlot {
  enum class Stage : std::uint8_t {
    free,
    arrived,  // held before it began
    queued,   // for its range, or (a flush) for the writes before it
    logging,  // has its range; its extents are not durable in the activity log yet
    granted,  // held before it was launched
    running,
    finished,  // held before it was completed
  };
  DiskRequest request;
  Stage stage = Stage::free;
  bool is_copy = false;
  bool local_pending = false;
  bool partner_pending = false;
  bool abandoned = false;  // a copy whose session went away while it was being read
  bool stuck = false;      // its local leg failed
  bool pinned = false;     // its extents are kept in the activity log
  bool logged = false;     // and durable there
  Rescue rescue = Rescue::none;
  int read_error = 0;
  std::uint8_t frames_left = 0;   // of a copy: writes that were sent and not acked
  std::uint64_t transaction = 0;  // of the log; durable with it
  std::uint64_t arrival = 0;
};

struct PrimaryDisk {
  struct Arrival {
    std::uint64_t number = 0;
    bool done = false;
  };
  void arrival_done(std::uint64_t arrival);

  RangeLock lock;
  std::deque<Arrival> writes;  // unfinished ones, oldest first (done ones leave lazily)
  std::deque<OpId> flush_waiting;
  std::vector<OpId> round;  // flushes that the present flush answers
  bool round_running = false;
  bool round_local = false;
  bool round_partner = false;
  bool round_stuck = false;
  bool flush_wanted = false;     // the activity log needs room
  std::uint64_t round_mark = 0;  // of the activity log
  UnflushedRanges acked;         // acked by the partner, no flush sent since
  UnflushedRanges covered;       // acked, and covered by the partner flush in flight
  UnflushedRanges copied;        // as acked, of the resync
  UnflushedRanges copied_covered;
  std::uint64_t copied_bytes = 0;  // in `copied`
  bool copy_flush_running = false;
};

// Requests that wait until nothing is held any more, each kind in its order.
struct PrimaryHeld {
  std::deque<OpId> arrived;
  std::vector<OpId> granted;
  std::vector<OpId> finished;
};

// A frame that was sent and not answered.
struct PrimaryPending {
  enum class Kind : std::uint8_t { none, op, flush, copy_flush, hash, fetch, lease, control };
  Kind kind = Kind::none;
  std::uint32_t index = 0;  // OpId or disk
  FrameType answer = FrameType::ack;
  TimePoint time;
};

// The session with the partner.
struct PrimaryStream {
  SessionId session;
  std::deque<PrimaryPending> pending;  // of sequence first_pending and on
  std::uint64_t first_pending = 1;
  std::size_t leases_pending = 0;
  bool begin_unsaved = false;  // sync_begin waits for a save of the marks
  bool serves_reads = false;   // its partner does
};

}  // namespace havm
