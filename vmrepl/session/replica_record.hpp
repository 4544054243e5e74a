// The job of ReplicaRecord: every transition of the durable record of this replica, in one place.
// Pure: it changes the record in memory only; whoever calls a transition persists record() before
// doing or sending anything that depends on it.
//
// Invariants
//  R1. promised_epoch and epoch never fall; promised_epoch ≥ epoch.
//  R2. A replica is suspect when its record carries another boot's id and no clean flag: its
//      unflushed writes may be gone. It stays so, over restarts and reboots (the foreign boot id is
//      kept), until a completed resync or until serve() decides that its data counts.
//  R3. From the first transition of a run until ended_cleanly() the record is not clean.
#pragma once

#include <string>

#include "vmrepl/disk/record_types.hpp"

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

  void promise(Epoch epoch);
  // As owner.
  void serve(Epoch epoch);
  void grow_prepare();
  void grow_commit(Epoch epoch);
  void shrink(Epoch epoch);
  void stand_by(bool outdated);
  // As the partner's secondary.
  void begin_sync(Epoch epoch);
  void end_sync(Epoch epoch);
  void join(Epoch epoch);
  void lost_data();  // a flush failed: what was acked may be gone
  // Everything is flushed and the engine ends.
  void ended_cleanly();

 private:
  void enter(Epoch epoch);
  void touch();

  Record record_;
  std::string boot_id_;
  bool suspect_ = false;
};

}  // namespace havm
