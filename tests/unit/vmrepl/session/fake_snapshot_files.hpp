// The job of FakeSnapshotFiles: files in memory, whose power can fail between any two operations.
#pragma once

#include <cerrno>
#include <map>
#include <string>

#include "vmrepl/disk/image_snapshot.hpp"

namespace havm {

class FakeSnapshotFiles final : public SnapshotFiles {
 public:
  std::map<std::string, std::string> files;  // path → content
  std::uint64_t free_bytes = 100ULL << 30;
  std::uint64_t allocated_bytes = 10ULL << 30;  // of each
  std::string no_reflink;                       // of this one none can be made
  int operations = 0;                           // that changed something
  int power_fails_after = -1;                   // so many of them; -1: never

  Result<void> clone(const std::string& from, const std::string& to) override {
    BOOST_OUTCOME_TRY(change());
    if (from == no_reflink) return Error(from + " has no reflinks", EOPNOTSUPP);
    if (!files.contains(from)) return Error("no " + from, ENOENT);
    if (files.contains(to)) return Error("there is " + to, EEXIST);
    files[to] = files[from];
    return success();
  }
  Result<void> rename(const std::string& from, const std::string& to) override {
    BOOST_OUTCOME_TRY(change());
    if (!files.contains(from)) return Error("no " + from, ENOENT);
    files[to] = files[from];
    files.erase(from);
    return success();
  }
  Result<void> remove(const std::string& path) override {
    BOOST_OUTCOME_TRY(change());
    files.erase(path);
    return success();
  }
  Result<Facts> facts(const std::string& path) override {
    if (!files.contains(path)) return Error("no " + path, ENOENT);
    Facts f;
    f.free_bytes = free_bytes;
    f.allocated_bytes = allocated_bytes;
    f.modified_s = 1'700'000'000;
    return f;
  }

 private:
  Result<void> change() {
    if (power_fails_after >= 0 && operations >= power_fails_after)
      return Error("the power failed", EIO);
    ++operations;
    return success();
  }
};

}  // namespace havm
