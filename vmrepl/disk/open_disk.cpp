#include "vmrepl/disk/open_disk.hpp"

#include <utility>

#include "vmrepl/disk/file_disk.hpp"
#include "vmrepl/disk/nbd_disk.hpp"

namespace havm {

Result<std::unique_ptr<ReplicaDisk>> open_replica_disk(std::shared_ptr<UringLoop> loop,
                                                       const std::string& path,
                                                       std::uint64_t expected_size_bytes) {
  if (NbdDisk::is_uri(path)) {
    NbdDiskOptions options;
    options.expected_size_bytes = expected_size_bytes;
    BOOST_OUTCOME_TRY(auto disk, NbdDisk::open(loop->executor(), path, options));
    return std::unique_ptr<ReplicaDisk>(std::move(disk));
  }
  FileDiskOptions options;
  options.expected_size_bytes = expected_size_bytes;
  BOOST_OUTCOME_TRY(auto disk, FileDisk::open(std::move(loop), path, options));
  return std::unique_ptr<ReplicaDisk>(std::move(disk));
}

}  // namespace havm
