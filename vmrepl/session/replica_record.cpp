#include "vmrepl/session/replica_record.hpp"

#include <algorithm>
#include <utility>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/rules.hpp"

namespace havm {

ReplicaRecord::ReplicaRecord(Record loaded, std::string current_boot_id)
    : record_(std::move(loaded)),
      boot_id_(std::move(current_boot_id)),
      suspect_(record_.boot_id != boot_id_ && !record_.clean && holds(Rule::suspect_is_noticed)) {
  // A promise made before the crash came after a flush; one made from here on says nothing.
  if (suspect_ && record_.lack_epoch == Epoch()) record_.lack_epoch = record_.promised_epoch;
}

void ReplicaRecord::touch() {
  record_.clean = false;
  if (!suspect_ || !holds(Rule::suspect_stays)) record_.boot_id = boot_id_;
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

void ReplicaRecord::promise_at_rest(Epoch epoch) {
  promise(epoch);
  record_.clean = !suspect_;
}

void ReplicaRecord::serve(Epoch epoch) {
  HAVM_ASSERT(record_.state == ReplicaState::uptodate, "only an uptodate replica is served");
  enter(epoch);
  record_.owner_epoch = epoch;
  record_.in_sync = InSync::self;
  record_.grow_mark.reset();
  record_.partner_outdated = true;
  suspect_ = false;
  touch();
}

void ReplicaRecord::remember(std::uint64_t generation) {
  if (generation == 0) return;
  std::vector<std::uint64_t>& history = record_.generation_history;
  history.insert(history.begin(), generation);
  if (history.size() > generation_history_max) history.pop_back();
}

void ReplicaRecord::new_generation(std::uint64_t random_nonzero) {
  HAVM_ASSERT(random_nonzero != 0, "generation 0 means none");
  HAVM_ASSERT(record_.in_sync == InSync::self, "a new generation begins alone");
  remember(record_.generation);
  // An older base stays: the dirty set has covered everything since, and the partner may be
  // anywhere between.
  if (record_.base_generation == 0) record_.base_generation = record_.generation;
  record_.generation = random_nonzero;
  record_.generation_shared = false;
  touch();
}

void ReplicaRecord::sync_end_sent() {
  record_.generation_shared = true;
  touch();
}

void ReplicaRecord::grow_prepare() {
  HAVM_ASSERT(generation_due(), "the partner does not hold this generation");
  record_.grow_mark = record_.epoch.next();
  touch();
}

void ReplicaRecord::grow_commit(Epoch epoch) {
  enter(epoch);
  record_.in_sync = InSync::both;
  record_.grow_mark.reset();
  record_.partner_outdated = false;
  record_.base_generation = 0;
  record_.owner_epoch = epoch;
  record_.lack_epoch = Epoch();
  touch();
}

void ReplicaRecord::shrink(Epoch epoch) {
  enter(epoch);
  if (!holds(Rule::shrink_is_recorded)) return;
  record_.owner_epoch = epoch;
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

void ReplicaRecord::begin_sync(Epoch epoch, const SyncBegin& begin) {
  enter(epoch);
  record_.state = ReplicaState::inconsistent;
  record_.in_sync = InSync::none;
  record_.grow_mark.reset();
  if (begin.generation != record_.generation) remember(record_.generation);
  record_.generation = begin.generation;
  record_.base_generation = 0;
  record_.generation_shared = true;
  if (begin.mode == SyncMode::full) record_.damaged = false;
  touch();
}

void ReplicaRecord::end_sync(Epoch epoch, const SyncEnd& end) {
  enter(epoch);
  record_.state = ReplicaState::uptodate;
  record_.generation = end.generation;
  record_.generation_history = end.history;
  if (record_.generation_history.size() > generation_history_max)
    record_.generation_history.resize(generation_history_max);
  record_.base_generation = 0;
  record_.generation_shared = true;
  record_.owner_epoch = Epoch();
  record_.lack_epoch = Epoch();
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
  record_.damaged = true;
  touch();
}

void ReplicaRecord::ended_cleanly() {
  touch();
  record_.clean = !suspect_;
}

}  // namespace havm
