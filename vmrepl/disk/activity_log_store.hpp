// The job of ActivityLogStore: keep the activity log of one VM on this node durable
// (docs/protocol/on-disk.md): a ring of transaction blocks that ActivityLogCore decides about.
//
// Guarantees
//  1. done(0) of a write comes only after the transaction is on stable storage, in one I/O.
//  2. load() tells a table only when it is certain; in every other case it tells damage, and the
//     caller must take everything for dirty. A torn newest transaction is not damage: it was never
//     done.
//  3. reset() leaves, whatever happens in its middle, the table before it, an empty one, or damage.
//  4. One writer: while it exists no other store can load the same file.
//  5. After a failed write nothing can be said about what is on disk: every later write and reset
//     fails with the same error, and the engine must stop and load again.
// create, load and reset block for milliseconds; write does not. A write in flight ends, and its
// `done` is called, also when the store is destroyed before. Movable. One thread, that of the loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "vmrepl/base/result.hpp"
#include "vmrepl/disk/activity_log_codec.hpp"
#include "vmrepl/disk/uring_loop.hpp"

namespace havm {

// What is on disk, in the form that ActivityLogCore starts from.
struct LogContents {
  LogTable table;  // all free when damaged
  std::uint64_t next_transaction = log_first_transaction;
  std::string damage;  // why nothing can be said, for people; empty when intact
  // The last write did not reach the medium whole: normal after a crash; after a clean end it means
  // that the medium has lost data.
  bool newest_torn = false;

  [[nodiscard]] bool damaged() const { return !damage.empty(); }
};

class ActivityLogStore {
 public:
  using Done = std::function<void(int error)>;  // 0 or a positive errno value

  // Makes the file, empty, complete or not at all. EEXIST when there is one already.
  static Result<void> create(const std::string& path, const MetadataIdentity& identity,
                             std::uint32_t slots = ActivityLogCore::slots_default);
  // ENOENT when there is no file, EBUSY when another engine has it. A file of another VM, of other
  // disks or another number of slots is damaged.
  static Result<ActivityLogStore> load(std::shared_ptr<UringLoop> loop, const std::string& path,
                                       const MetadataIdentity& identity,
                                       std::uint32_t slots = ActivityLogCore::slots_default);

  // As of load() or of the last reset(); writes do not change it.
  [[nodiscard]] const LogContents& contents() const;
  [[nodiscard]] const std::string& path() const;

  // One at a time, in the order of their numbers, from contents().next_transaction on. A log that
  // was loaded damaged must be reset first.
  void write(const LogTransaction& transaction, Done done);

  // Empties the log, whatever it holds, and makes that durable. Only for a caller to whom nothing
  // that the log holds matters any more. No write may be in flight; afterwards a new
  // ActivityLogCore starts from contents().
  Result<void> reset();

 private:
  struct State;
  explicit ActivityLogStore(std::shared_ptr<State> state);

  std::shared_ptr<State> state_;
};

// The log of a file that may belong to a running engine, for tools that only look.
struct SeenLog {
  MetadataHeader header;
  RebuiltLog log;
};
// The Error names a damaged header.
Result<SeenLog> read_activity_log(const std::string& path);

}  // namespace havm
