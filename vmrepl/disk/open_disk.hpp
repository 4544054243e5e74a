// The job of open_replica_disk: choose the store of a replica's disk by its path: an NBD export for
// a URI that NbdDisk knows, else a file or block device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "vmrepl/disk/replica_disk.hpp"
#include "vmrepl/disk/uring_loop.hpp"

namespace havm {

// Blocking, on the ring and executor of `loop`. A disk of another size is refused. Errors are those
// of FileDisk::open and NbdDisk::open.
Result<std::unique_ptr<ReplicaDisk>> open_replica_disk(std::shared_ptr<UringLoop> loop,
                                                       const std::string& path,
                                                       std::uint64_t expected_size_bytes);

}  // namespace havm
