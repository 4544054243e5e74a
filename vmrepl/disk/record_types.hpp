// The job of Record: what one node durably knows about one VM's replica (docs/protocol/on-disk.md).
// Only the VM's engine writes it. Data only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vmrepl/base/replica_types.hpp"
#include "vmrepl/base/strong_types.hpp"

namespace havm {

constexpr std::uint32_t record_version = 2;  // written; version 1 is read too
constexpr std::size_t generation_history_max = 8;

// The defaults are a fresh replica that holds nothing yet.
struct Record {
  std::string vm;
  std::string vm_id;  // uuid text
  std::string node;
  std::vector<DiskIdentity> disks;  // in the order of the hello

  Epoch epoch;           // the newest this replica took part in
  Epoch promised_epoch;  // never less than epoch; anything lower is refused
  ReplicaState state = ReplicaState::inconsistent;
  InSync in_sync = InSync::none;
  // in_sync may be both at this epoch: a grow was decided and is not known to be settled.
  std::optional<Epoch> grow_mark;
  bool partner_outdated = false;

  // Which data history the bytes belong to; what the fields promise: session/replica_record.hpp.
  std::uint64_t generation = 0;                   // 0 = none yet
  std::vector<std::uint64_t> generation_history;  // newest first, at most generation_history_max
  std::uint64_t base_generation = 0;  // oldest one the dirty set is kept against; 0: generation
  bool generation_shared = true;      // the partner may be uptodate with this generation too
  Epoch owner_epoch;                  // newest it owned since its last completed resync; 0: none
  Epoch lack_epoch;      // of an unclean end that may have lost unflushed writes; 0: none
  bool damaged = false;  // its disk failed: nothing of it is taken on trust

  std::string boot_id;  // of the boot that last wrote this record
  bool clean = false;   // the engine ended in order after a flush; false while it runs
  std::optional<Epoch> delegation;

  bool operator==(const Record&) const = default;
};

}  // namespace havm
