// The job of SnapshotSet: keep, for all disks of one replica together, the state that it had before
// a resync began to overwrite it, so that the death of the owner in the middle leaves an older
// state that a person can start from.
//
// Invariants
//  T1. The set is whole (a snapshot under its name for every disk) only when all of them show the
//      replica at one moment at which it was consistent: all are copied, durably, under temporary
//      names, before the first gets its own; those of an earlier time are gone before.
//  T2. While the replica is incomplete nothing is copied and nothing is removed but by remove(): a
//      half overwritten image never takes the place of a whole one.
//  T3. A set is begun only with the space that it may cost: shared blocks are doubled as they are
//      overwritten.
// The files say everything: it holds no state of its own. Blocking, for seconds; one thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vmrepl/base/result.hpp"
#include "vmrepl/disk/image_snapshot.hpp"

namespace havm {

class SnapshotSet {
 public:
  // Free space that is left to the guest's own growth: below it no set is begun, below half of it
  // the set is given up.
  static constexpr std::uint64_t reserve_bytes = 2ULL << 30;

  struct File {
    std::string image;
    std::string path;
    std::uint64_t allocated_bytes = 0;
    std::int64_t taken_s = 0;  // since 1970
  };
  struct Outcome {
    bool made = false;
    std::vector<File> files;  // empty: there is no whole set
    std::string why_not;      // then
  };

  // `files` outlives it. Images as in the engine's configuration.
  SnapshotSet(SnapshotFiles& files, std::vector<std::string> images)
      : files_(files), images_(std::move(images)) {}

  // Before a resync. `consistent`: the replica is not in the middle of one. `everything`: all of it
  // will be overwritten.
  Outcome prepare(bool consistent, bool everything);
  // The whole set, or nothing.
  [[nodiscard]] std::vector<File> find() const;
  Result<void> remove();
  [[nodiscard]] bool low_on_space() const;

 private:
  Result<void> make(bool everything);
  [[nodiscard]] Result<void> check_space(bool everything) const;

  SnapshotFiles& files_;
  std::vector<std::string> images_;
};

}  // namespace havm
