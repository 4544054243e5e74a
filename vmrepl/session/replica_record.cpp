#include "vmrepl/session/replica_record.hpp"

#include <algorithm>
#include <utility>

#include "vmrepl/base/assert.hpp"

namespace havm {

ReplicaRecord::ReplicaRecord(Record loaded, std::string current_boot_id)
    : record_(std::move(loaded)),
      boot_id_(std::move(current_boot_id)),
      suspect_(record_.boot_id != boot_id_ && !record_.clean) {}

void ReplicaRecord::touch() {
  record_.clean = false;
  if (!suspect_) record_.boot_id = boot_id_;
}

void ReplicaRecord::enter(Epoch epoch) {
  HAVM_ASSERT(epoch >= record_.epoch, "the epoch of a record only rises");
  record_.epoch = epoch;
  record_.promised_epoch = std::max(record_.promised_epoch, epoch);
}

void ReplicaRecord::promise(Epoch epoch) {
  HAVM_ASSERT(epoch >= record_.promised_epoch, "a promise only rises");
  record_.promised_epoch = epoch;
  touch();
}

void ReplicaRecord::serve(Epoch epoch) {
  HAVM_ASSERT(record_.state == ReplicaState::uptodate, "only an uptodate replica is served");
  enter(epoch);
  record_.in_sync = InSync::self;
  record_.grow_mark.reset();
  record_.partner_outdated = true;
  suspect_ = false;
  touch();
}

void ReplicaRecord::grow_prepare() {
  record_.grow_mark = record_.epoch.next();
  touch();
}

void ReplicaRecord::grow_commit(Epoch epoch) {
  enter(epoch);
  record_.in_sync = InSync::both;
  record_.grow_mark.reset();
  record_.partner_outdated = false;
  touch();
}

void ReplicaRecord::shrink(Epoch epoch) {
  enter(epoch);
  record_.in_sync = InSync::self;
  record_.grow_mark.reset();
  record_.partner_outdated = true;
  touch();
}

void ReplicaRecord::stand_by(bool outdated) {
  if (outdated) {
    // An unfinished resync is worse than outdated and stays what it is.
    if (record_.state == ReplicaState::uptodate) record_.state = ReplicaState::outdated;
    record_.in_sync = InSync::none;
    record_.grow_mark.reset();
  }
  touch();
}

void ReplicaRecord::begin_sync(Epoch epoch) {
  enter(epoch);
  record_.state = ReplicaState::inconsistent;
  record_.in_sync = InSync::none;
  record_.grow_mark.reset();
  touch();
}

void ReplicaRecord::end_sync(Epoch epoch) {
  enter(epoch);
  record_.state = ReplicaState::uptodate;
  suspect_ = false;
  touch();
}

void ReplicaRecord::join(Epoch epoch) {
  enter(epoch);
  record_.in_sync = InSync::both;
  record_.partner_outdated = false;
  touch();
}

void ReplicaRecord::lost_data() {
  record_.state = ReplicaState::inconsistent;
  touch();
}

void ReplicaRecord::ended_cleanly() {
  touch();
  record_.clean = !suspect_;
}

}  // namespace havm
