// The job of ResyncPauseFile: remember over restarts of the engine and of the host that the
// administrator paused the resyncs of this VM, and why: a small JSON file beside the record.
//
// Guarantees
//  1. After save() or remove() has returned success the new state is durable; a crash in between
//     leaves the old or the new one.
//  2. A file that cannot be understood still means paused, with a reason that says so: somebody
//     wrote it.
// Blocking. One thread.
#pragma once

#include <optional>
#include <string>

#include "vmrepl/base/result.hpp"

namespace havm {

class ResyncPauseFile {
 public:
  explicit ResyncPauseFile(const std::string& record_path) : path_(record_path + ".resync-pause") {}

  // The reason, when paused.
  [[nodiscard]] Result<std::optional<std::string>> load() const;
  [[nodiscard]] Result<void> save(const std::string& reason) const;
  [[nodiscard]] Result<void> remove() const;  // also when there is none

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace havm
