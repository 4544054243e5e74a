// The job of ReplicaRecord: every transition of the durable record of this replica, in one place.
// Pure: it changes the record in memory only; whoever calls a transition persists record() before
// doing or sending anything that depends on it.
//
// A *generation* is the random id of a data history. "Alone" is a write that completes
// without the partner's answer in an open session, whatever the in-sync set is. The *dirty set* is
// bitmap and activity log; the caller keeps it.
//
// Invariants
//  R1. promised_epoch and epoch never fall; promised_epoch ≥ epoch.
//  R2. A replica is suspect when its record carries another boot's id and no clean flag: its
//      unflushed writes may be gone. It stays so, over restarts and reboots (the foreign boot id is
//      kept), until a completed resync or until serve() decides that its data counts.
//  R3. From the first transition of a run until ended_cleanly() the record is not clean, save from
//      promise_at_rest() to the next transition.
//  R4. While generation_due() is false no other replica is, or can become, uptodate with this
//      generation. Nothing is completed alone while it is true; so two replicas that both went on
//      alone always have different generations, neither of which the other knows.
//  R5. A target takes the owner's generation at begin_sync, being inconsistent, and again at the
//      end; so it always has one the owner had since its dirty set was last void.
//  R6. The dirty set of an owner covers every byte in which it may differ from a replica whose
//      generation is `generation`, `base_generation` or between them in the history, save what that
//      replica wrote itself as owner, which is in its own dirty set.
//  R7. lack_epoch is the promised epoch of the first unclean end since the replica was last equal
//      to its partner: whoever was owner at that epoch or later may hold completed, unflushed
//      writes that this replica lost. It outlives serve().
// What the caller owes for R6: a block leaves the dirty set only when both replicas have flushed it
// (an owner that crashes may lose what it had copied): its bit when the target has, its extent in
// the log when the owner has; bits are durable before the log forgets them; for a full resync every
// bit is durably set before sync_begin is sent; the bits are void only after grow_commit() with the
// session still there (owner), the whole set after end_sync() is durable (target, which keeps its
// own until then). A dirty set found while owner_epoch is 0 is left from before and void.
#pragma once

#include <string>
#include <vector>

#include "vmrepl/disk/record_types.hpp"
#include "vmrepl/wire/repl_messages.hpp"

namespace havm {

class ReplicaRecord {
 public:
  ReplicaRecord(Record loaded, std::string current_boot_id);

  [[nodiscard]] const Record& record() const { return record_; }
  [[nodiscard]] bool suspect() const { return suspect_; }
  // The in-sync set may hold the partner, as far as this record knows.
  [[nodiscard]] bool may_be_both() const {
    return record_.in_sync == InSync::both || record_.grow_mark.has_value();
  }
  // A new generation must be durable before the next write completes alone. An owner
  // that has none yet begins one before it says hello, or every later resync is a full one.
  [[nodiscard]] bool generation_due() const {
    return record_.generation == 0 || record_.generation_shared;
  }

  void promise(Epoch epoch);
  // Everything is flushed, and no session is open that could bring more: a power cut from here on
  // takes nothing that was acked, so it makes nobody suspect.
  void promise_at_rest(Epoch epoch);
  // As owner.
  void serve(Epoch epoch);
  void new_generation(std::uint64_t random_nonzero);  // owner alone
  // Before sync_end is sent, and durable before: from here the partner may hold this generation.
  void sync_end_sent();
  void grow_prepare();  // only while generation_due(): the partner holds this generation
  void grow_commit(Epoch epoch);
  void shrink(Epoch epoch);
  void stand_by(bool outdated);
  // As the partner's secondary. The defaults are what an owner of protocol 1 says: nothing.
  void begin_sync(Epoch epoch, const SyncBegin& begin = {});
  void end_sync(Epoch epoch, const SyncEnd& end = {});
  void join(Epoch epoch);
  void lost_data();  // its disk failed: what was acked may be gone
  // Everything is flushed and the engine ends.
  void ended_cleanly();

 private:
  void enter(Epoch epoch);
  void touch();
  void remember(std::uint64_t generation);

  Record record_;
  std::string boot_id_;
  bool suspect_ = false;
};

}  // namespace havm
