// The job of PrimaryAction: one thing that PrimaryCore wants done, and the event that answers it.
// Data only.
#pragma once

#include <cstdint>
#include <string>

#include "vmrepl/base/clock.hpp"
#include "vmrepl/bitmap/activity_log_core.hpp"
#include "vmrepl/resync/check_outcome.hpp"
#include "vmrepl/session/session_types.hpp"
#include "vmrepl/wire/frame_codec.hpp"

namespace havm {

struct PrimaryAction {
  enum class Kind : std::uint8_t {
    submit_local,  // do request `id` on the own replica, then local_done
    take_data,     // the payload of the frame just given is the data of read `id`
    write_back,    // the data of read `id` to the own replica, durably, then written_back
    repaired,      // the range of `frame` on own `disk`, which had `error`, reads again
    flush_local,   // flush own `disk`, then local_flushed
    send,          // `frame`; a write's payload is the data of `id` (of a copy, at its offset)
    complete,      // request `id` with `error` (0, or ESHUTDOWN after close)
    read_copy,     // read range of copy `id` from the own replica, then copy_read or compare_read
    copy_done,     // copy `id`, with `check`: 0, or ECANCELED because the session went away
    begin_resync,  // the partner is ready: start copying
    session_changed,   // state() changed, or `lost` with `text` as reason
    close_session,     // end the connection; `text` says why; no session_lost is to follow
    synced,            // the partner's replica is complete and durably uptodate
    deposed,           // the partner has promised a higher epoch
    replica_failed,    // own `disk` failed with `error`
    renew_lease,       // a grant for a request sent at `time`
    drained,           // after close: no local I/O is left
    new_generation,    // begin a new generation in the record, durably, before the next action
    share_generation,  // note durably that the partner may hold the generation, likewise
    write_log,         // `transaction` to the activity log, then log_written
    save_marks,        // the dirty bitmaps, then marks_saved; one save may answer several
  };
  explicit PrimaryAction(Kind k, OpId op = no_op) : kind(k), id(op) {}

  Kind kind;
  OpId id;
  std::uint16_t disk = 0;
  int error = 0;
  SessionState state = SessionState::none;
  FrameHeader frame;
  TimePoint time;
  LogTransaction transaction;
  std::string text;
  CheckOutcome check;
};

}  // namespace havm
