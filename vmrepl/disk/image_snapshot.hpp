// The job of SnapshotFiles: the file operations that a snapshot of an image by reflink needs: one
// interface, the real one and, in tests, one that fails on demand. Blocking, some of them for
// seconds with large or fragmented images: not for an engine's thread.
//
// Guarantees: what an operation has done is durable when it returns success; clone() leaves no
// target behind when it fails.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "vmrepl/base/result.hpp"

namespace havm {

// Where the snapshot of an image lies.
inline std::string snapshot_path(const std::string& image) {
  return image + ".havm-before-resync";
}

class SnapshotFiles {
 public:
  struct Facts {
    std::uint64_t free_bytes = 0;       // of the file system, for ordinary users
    std::uint64_t allocated_bytes = 0;  // by the file
    std::int64_t modified_s = 0;        // since 1970
  };

  SnapshotFiles() = default;
  virtual ~SnapshotFiles() = default;
  SnapshotFiles(const SnapshotFiles&) = delete;
  SnapshotFiles& operator=(const SnapshotFiles&) = delete;

  // EOPNOTSUPP: not with this file, or on this file system. EEXIST: the target is there.
  virtual Result<void> clone(const std::string& from, const std::string& to) = 0;
  virtual Result<void> rename(const std::string& from, const std::string& to) = 0;
  virtual Result<void> remove(const std::string& path) = 0;  // also when there is none
  // ENOENT when there is none.
  virtual Result<Facts> facts(const std::string& path) = 0;
};

std::unique_ptr<SnapshotFiles> real_snapshot_files();

}  // namespace havm
