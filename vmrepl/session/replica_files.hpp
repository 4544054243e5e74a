// The job of these functions: what is done to the files of a replica while no engine runs: making
// the first record, and taking a person's word about images that are not the ones remembered.
// Blocking.
#pragma once

#include "vmrepl/base/result.hpp"
#include "vmrepl/disk/record_types.hpp"
#include "vmrepl/session/engine_config.hpp"

namespace havm {

// `--create`: writes the first record (epoch 0) of a replica in this state. The disks must be there
// and have their sizes; an existing record is not touched.
Result<void> create_record(const EngineConfig& config, ReplicaState state);

enum class AdoptedImages {
  same,   // copies of what this replica held, bit by bit
  other,  // anything: the replica is damaged, and copied anew from the partner
};

// `--adopt-images`: from now on these files are the images. They must have their sizes. Refused
// while an engine runs; and `other` where the record does not know the partner to be complete.
Result<void> adopt_images(const EngineConfig& config, AdoptedImages what);

// That the record is the one of this VM, node and disks.
Result<void> check_record(const EngineConfig& config, const Record& record);

}  // namespace havm
