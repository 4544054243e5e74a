// The job of TargetSnapshot: run a SnapshotSet for an engine, beside its thread (copying the map of
// a large image takes seconds, and leases must be granted meanwhile), know its state, and give the
// snapshots up before their space is missed.
//
// Guarantees
//  1. `ready` is called exactly once per prepare(), from the executor, after the snapshots are
//     durable or it is known why there are none; never after its destruction.
//  2. What is asked is done in order. A snapshot that could not be made never stops a resync: the
//     second copy is worth more.
//  3. With less than half of SnapshotSet::reserve_bytes free the set is removed, and status() says
//     so.
// One thread; destruction waits for what is under way.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <nlohmann/json.hpp>

#include "vmrepl/disk/image_snapshot.hpp"
#include "vmrepl/session/engine_config.hpp"
#include "vmrepl/session/snapshot_set.hpp"

namespace havm {

class TargetSnapshot {
 public:
  static constexpr std::chrono::milliseconds space_interval{250};

  // `config` outlives it.
  TargetSnapshot(boost::asio::any_io_executor executor, const EngineConfig& config,
                 std::unique_ptr<SnapshotFiles> files);
  ~TargetSnapshot();
  TargetSnapshot(const TargetSnapshot&) = delete;
  TargetSnapshot& operator=(const TargetSnapshot&) = delete;

  void prepare(bool consistent, bool everything, std::function<void()> ready);
  // No longer needed, or no longer true. Does nothing when there is none.
  void drop(const std::string& why);
  // At the start: what an earlier engine left.
  void look();

  // docs/protocol/engine-control.md, `snapshot`.
  [[nodiscard]] nlohmann::json status() const;

 private:
  using Outcome = SnapshotSet::Outcome;
  void run(std::function<Outcome()> work, std::function<void(const Outcome&)> then);
  void take(const Outcome& outcome);
  void removed(const std::string& why, const Outcome& outcome);
  void watch_space();

  boost::asio::any_io_executor executor_;
  const EngineConfig& config_;
  std::unique_ptr<SnapshotFiles> files_;
  SnapshotSet set_;  // only by the pool's thread
  std::vector<SnapshotSet::File> kept_;
  std::string state_ = "none";
  std::string reason_;
  boost::asio::steady_timer timer_;
  bool watching_ = false;
  bool clean_ = false;  // no file of a snapshot is there
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  boost::asio::thread_pool pool_{1};
};

}  // namespace havm
