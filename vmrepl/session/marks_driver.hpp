// The job of MarksDriver: keep ReplicaMarks of one VM on this node durable: open or make the files
// of activity log and dirty bitmaps beside the record, write what the marks decide, save the
// bitmaps now and then so that after a crash little more than needed is compared.
//
// Guarantees
//  1. Files that are missing or damaged give marks in which everything is dirty, durably: they say
//     too much, never too little.
//  2. A failed write or save is told to `failed` once; what is on disk is not known then, and the
//     engine must stop.
// One thread: the engine's executor; open and forget block for milliseconds.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/steady_timer.hpp>

#include "vmrepl/bitmap/replica_marks.hpp"
#include "vmrepl/disk/activity_log_store.hpp"
#include "vmrepl/disk/bitmap_store.hpp"
#include "vmrepl/disk/uring_loop.hpp"

namespace havm {

class MarksDriver {
 public:
  // Between two saves of changed bitmaps that nobody waits for.
  static constexpr std::chrono::seconds save_interval{5};
  // How long an extent without writes stays in the log, at least; at most twice that.
  static constexpr std::chrono::seconds idle_in_log{30};

  using Failed = std::function<void(const std::string& what, int error)>;

  // The files lie beside the record, with its name and an ending.
  static std::string log_path(const std::string& record_path);
  static std::string bitmap_path(const std::string& record_path);

  // For a replica without a record: an empty log and clean bitmaps. Files left from a creation
  // that did not come to its record are replaced.
  static Result<void> create(const std::string& record_path, const MetadataIdentity& identity);
  static Result<std::unique_ptr<MarksDriver>> open(std::shared_ptr<UringLoop> loop,
                                                   const std::string& record_path,
                                                   const MetadataIdentity& identity, Failed failed);
  ~MarksDriver();
  MarksDriver(const MarksDriver&) = delete;
  MarksDriver& operator=(const MarksDriver&) = delete;

  [[nodiscard]] ReplicaMarks& marks() { return marks_; }
  [[nodiscard]] const ReplicaMarks& marks() const { return marks_; }
  // Called after each save that ended.
  void on_saved(std::function<void()> saved) { saved_ = std::move(saved); }

  // `done` is not called when it failed.
  void write_log(const LogTransaction& transaction, std::function<void()> done);
  void save();
  // Nothing differs any more (ReplicaMarks::forget); no write of the log is in flight.
  Result<void> forget();
  // At the end of the engine, when the replica is flushed, nothing is in flight and everything is
  // saved (marks().is_saved()): the log has nothing to add.
  Result<void> empty_log() { return log_.reset(); }

 private:
  MarksDriver(const std::shared_ptr<UringLoop>& loop, ActivityLogStore log, BitmapStore bitmaps,
              ReplicaMarks marks, Failed failed);
  void save_ended(int error);
  void tick();

  ActivityLogStore log_;
  BitmapStore bitmaps_;
  ReplicaMarks marks_;
  Failed failed_;
  std::function<void()> saved_;
  bool save_again_ = false;
  std::chrono::seconds since_retire_{0};
  boost::asio::steady_timer timer_;
};

}  // namespace havm
