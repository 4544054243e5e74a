// The job of decide_sync: given what both replicas say about themselves, may the owner's data
// overwrite the target's, and must all of it be copied? Pure.
//
// Guarantees
//  1. Mirrored: owner and target come to the same mode and split_brain from the same two summaries.
//  2. Refused when the target may hold something completed that the owner's history lacks: it went
//     on alone (generation not shared), or it was owner at or after the epoch in which the present
//     owner's replica lost unflushed writes. Refused also when nothing is known in common.
//  3. Partial only when the owner's dirty set, together with the target's own, covers every byte in
//     which the two may differ (R6 of ReplicaRecord).
//  4. Full otherwise; it is never wrong where partial would be right, only slower.
// A suspect target is no reason for more: what it may have lost was acked and not flushed, which
// the owner's dirty set covers, or its own if it was the owner.
#pragma once

#include <string>

#include "vmrepl/bitmap/replica_marks.hpp"
#include "vmrepl/session/replica_record.hpp"
#include "vmrepl/wire/repl_messages.hpp"

namespace havm {

struct ReplicaSummary : ReplicaHistory {
  ReplicaState state = ReplicaState::inconsistent;
  bool suspect = false;
  bool operator==(const ReplicaSummary&) const = default;
};

// dirty_known: the caller could read its bitmap and log; a set that could not be read becomes known
// when every bit has been set durably.
ReplicaSummary summary_of(const ReplicaRecord& replica, bool dirty_known);
// The partner's. Only an uptodate owner says hello.
ReplicaSummary summary_of(const Hello& hello);
ReplicaSummary summary_of(const HelloOk& ok);

struct SyncVerdict {
  SyncMode mode = SyncMode::refuse;
  std::string reason;        // for the administrator
  bool split_brain = false;  // both images are kept, a person must choose
};

SyncVerdict decide_sync(const ReplicaSummary& self, const ReplicaSummary& peer, bool self_is_owner);

}  // namespace havm
