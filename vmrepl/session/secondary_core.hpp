// The job of SecondaryCore: decide what this replica does as the partner of an owner: which session
// it accepts, what of it is applied, what is promised, and when a lease is granted. Pure: events
// come in as calls, decisions go out as actions, appended to the vector given and to be executed in
// order (persist before what depends on it). No clock, I/O, log or throw.
//
// Invariants
//  S1. At most one session is open. It was accepted at an epoch ≥ every promise, and the promise of
//      its epoch was durable before hello_ok.
//  S2. A new session, and a promise above the session's epoch, close it; nothing of a closed
//  session
//      is applied any more: the new session, or the flush of the promise, starts only when its last
//      local operation has ended.
//  S3. The replica is durably inconsistent before the first byte of a resync is written, and
//      uptodate only after everything has been flushed.
//  S4. Overlapping writes are applied one at a time in the order of arrival; a hash is taken, and a
//      read is answered, between those that came before and those that came after. A read only in
//      a synced session.
//  S5. A lease is granted only to the open session and only while no higher epoch has been promised
//      or is being promised.
//  S6. A resync is taken only in a mode that is not shorter than what this side finds necessary
//      (sync_verdict.hpp). The own dirty set is told before the resync and kept until uptodate is
//      durable.
//  S7. While this node is owner no session is accepted. A hello of a higher epoch means that it has
//      been deposed.
// The record is shared with the owner's side and changed through ReplicaRecord. Bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "vmrepl/base/clock.hpp"
#include "vmrepl/bitmap/range_lock.hpp"
#include "vmrepl/bitmap/replica_marks.hpp"
#include "vmrepl/session/hello_verdict.hpp"
#include "vmrepl/session/replica_record.hpp"
#include "vmrepl/session/session_types.hpp"
#include "vmrepl/session/sync_verdict.hpp"
#include "vmrepl/wire/frame_codec.hpp"
#include "vmrepl/wire/grain_hash.hpp"

namespace havm {

// Numbers the connections that a driver accepted, in order.
using ConnectionId = std::uint64_t;

struct SecondaryAction {
  enum class Kind : std::uint8_t {
    persist,         // the record, durably, before the next action
    send,            // `frame` on `connection`; a hash_ok carries `hashes`, a data frame with
                     // status 0 the data of `id`
    send_hello_ok,   // the record's present contents, on `connection`
    send_dirty,      // this replica's own dirty set as sync_dirty frames on `connection`
    forget_dirty,    // the dirty set is void: empty marks and their files
    refuse,          // hello_refused with `text` on `connection`, then close it (also in a session)
    close,           // `connection`; `text` says why; no closed() is to follow
    apply,           // request `id` to the replica, then local_done
    hash,            // read the range of request `id` and hash it, then hash_done
    read,            // the range of request `id` from the replica, then read_done
    drop,            // request `id` is not applied
    flush_disk,      // own `disk` for request `id`, then local_done
    flush_all,       // every disk, then all_flushed(`token`)
    promised,        // the promise asked for is durable
    promise_failed,  // `error`, or `text` when error is 0
    session_changed,  // accepted, ended, or its record changed
    replica_failed,   // own `disk` failed with `error`
    deposed,          // (owner) a hello of the higher `epoch` came
  };
  explicit SecondaryAction(Kind k, ConnectionId c = 0) : kind(k), connection(c) {}

  Kind kind;
  ConnectionId connection;
  OpId id = no_op;
  std::uint16_t disk = 0;
  int error = 0;
  std::uint64_t token = 0;
  Epoch epoch;
  FrameHeader frame;
  std::vector<GrainHash> hashes;
  std::string text;
};

class SecondaryCore {
 public:
  using Actions = std::vector<SecondaryAction>;

  // What a sync_begin or sync_end frame carries.
  using Payload = std::variant<std::monostate, SyncBegin, SyncEnd>;

  // `record` and `marks` outlive the core.
  SecondaryCore(HelloContext context, ReplicaRecord& record, const ReplicaMarks& marks,
                TimePoint started);

  void set_owner(bool is_owner) {
    is_owner_ = is_owner;
    rest_since_.reset();
  }
  // No session is accepted any more: no resync onto such a disk could come to an end.
  void set_broken(std::string why) { broken_ = std::move(why); }

  void hello(ConnectionId connection, const Hello& hello, Actions& out);
  // Any frame but hello. `id` names the request of a write, zero, flush, hash or read, else no_op.
  void frame(ConnectionId connection, const FrameHeader& header, OpId id, TimePoint now,
             Actions& out, const Payload& payload = {});
  void closed(ConnectionId connection, Actions& out);
  void local_done(OpId id, int error, Actions& out);
  void hash_done(OpId id, int error, std::vector<GrainHash> hashes, Actions& out);
  void read_done(OpId id, int error, Actions& out);
  void all_flushed(std::uint64_t token, int error, Actions& out);

  // One at a time; ends with promised or promise_failed.
  void promise(Epoch epoch, Actions& out);
  // Closes the session whatever its epoch is (serve, quit).
  void close_session(const std::string& reason, Actions& out);

  [[nodiscard]] bool has_session() const { return session_.has_value(); }
  [[nodiscard]] Epoch session_epoch() const { return session_ ? session_->epoch : Epoch(); }
  [[nodiscard]] std::string peer_boot_id() const { return session_ ? session_->boot_id : ""; }
  // The highest epoch promised or being promised.
  [[nodiscard]] Epoch promised() const;
  // Nothing of any session is being applied.
  [[nodiscard]] bool is_quiet() const { return in_flight_ == 0; }
  [[nodiscard]] std::optional<TimePoint> last_grant() const { return last_grant_; }
  // Since the last grant, or since the start: how long an owner may still rely on this node.
  [[nodiscard]] Duration grant_age(TimePoint now) const {
    return now - last_grant_.value_or(started_);
  }

 private:
  enum class Phase : std::uint8_t { fresh, syncing, ending, synced };
  struct Session {
    ConnectionId connection = 0;
    SessionId id;
    Epoch epoch;
    std::string boot_id;
    ReplicaSummary owner;
    Phase phase = Phase::fresh;
    Sequence sync_end;
    SyncEnd end;
  };
  struct Waiting {
    ConnectionId connection = 0;
    Hello hello;
  };
  struct Op {
    FrameHeader header;
    bool running = false;
    std::uint64_t session_number = 0;
  };

  void admit(const Waiting& waiting, Actions& out);
  void end_session(Actions& out);
  void protocol_error(const std::string& why, Actions& out);
  void when_quiet(Actions& out);
  void data(const FrameHeader& header, OpId id, Actions& out);
  void run(OpId id, Actions& out);
  void ended(OpId id, const Op& op, Actions& out);
  static void drop(OpId id, Actions& out);
  void lease(const FrameHeader& header, TimePoint now, Actions& out);
  void new_epoch(const FrameHeader& header, Actions& out);
  void sync_begin(const FrameHeader& header, const SyncBegin& begin, Actions& out);
  void sync_end(const FrameHeader& header, const SyncEnd& end, Actions& out);
  void reply(FrameType type, Sequence sequence, Actions& out);

  HelloContext context_;
  ReplicaRecord& record_;
  const ReplicaMarks& marks_;
  TimePoint started_;
  bool is_owner_ = false;
  std::string broken_;  // empty: it is not
  std::optional<Session> session_;
  std::optional<Waiting> waiting_;   // accepted, until the old session's last operation ended
  std::optional<Epoch> promising_;   // not yet durable, binding all the same
  std::uint64_t promise_token_ = 0;  // 0: its flush has not been started
  // That flush began with nothing open or running, after this session; a later one, and any
  // service, ends the rest.
  std::optional<std::uint64_t> rest_since_;
  std::uint64_t sync_end_token_ = 0;  // of the session's flush in progress
  std::uint64_t next_token_ = 1;
  std::uint64_t session_number_ = 0;
  std::vector<RangeLock> locks_;
  std::unordered_map<OpId, Op> ops_;
  std::size_t in_flight_ = 0;
  std::optional<TimePoint> last_grant_;
};

}  // namespace havm
