#include "vmrepl/session/target_snapshot.hpp"

#include <array>
#include <ctime>
#include <utility>

#include <boost/asio/post.hpp>
#include <spdlog/spdlog.h>

namespace havm {
namespace {

std::vector<std::string> images_of(const EngineConfig& config) {
  std::vector<std::string> images;
  for (const ConfigDisk& disk : config.disks)
    images.push_back(disk.path);
  return images;
}

std::string utc(std::int64_t seconds) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  std::array<char, 32> text{};
  ::gmtime_r(&time, &parts);
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

}  // namespace

TargetSnapshot::TargetSnapshot(boost::asio::any_io_executor executor, const EngineConfig& config,
                               std::unique_ptr<SnapshotFiles> files)
    : executor_(std::move(executor)),
      config_(config),
      files_(std::move(files)),
      set_(*files_, images_of(config)),
      timer_(executor_) {}

TargetSnapshot::~TargetSnapshot() {
  *alive_ = false;
  pool_.join();
}

void TargetSnapshot::run(std::function<Outcome()> work, std::function<void(const Outcome&)> then) {
  boost::asio::post(pool_, [executor = executor_, alive = alive_, work = std::move(work),
                            then = std::move(then)] {
    Outcome outcome = work();
    boost::asio::post(executor, [alive, then, outcome = std::move(outcome)] {
      if (*alive) then(outcome);
    });
  });
}

void TargetSnapshot::prepare(bool consistent, bool everything, std::function<void()> ready) {
  clean_ = false;
  state_ = "making";
  reason_.clear();
  std::function<Outcome()> work = [this, consistent, everything] {
    return set_.prepare(consistent, everything);
  };
  run(std::move(work), [this, ready = std::move(ready)](const Outcome& outcome) {
    take(outcome);
    ready();
  });
}

void TargetSnapshot::look() {
  std::function<Outcome()> work = [this] {
    Outcome outcome;
    outcome.files = set_.find();
    return outcome;
  };
  run(std::move(work), [this](const Outcome& outcome) {
    if (!outcome.files.empty()) take(outcome);
  });
}

void TargetSnapshot::take(const Outcome& outcome) {
  kept_ = outcome.files;
  reason_ = outcome.why_not;
  state_ = kept_.empty() ? "impossible" : "kept";
  if (kept_.empty())
    spdlog::warn("vm={} no snapshot is kept during this resync: {}", config_.vm, reason_);
  for (const SnapshotSet::File& file : kept_)
    spdlog::info("vm={} the state before the resync {} as {}", config_.vm,
                 outcome.made ? "is kept" : "stays kept", file.path);
  if (!kept_.empty() && !watching_) watch_space();
}

// Also when nothing is known of one: a crash may have left some of its files.
void TargetSnapshot::drop(const std::string& why) {
  if (clean_) return;
  clean_ = true;
  std::function<Outcome()> work = [this] {
    Outcome outcome;
    const auto gone = set_.remove();
    if (!gone) outcome.why_not = gone.error().message;
    return outcome;
  };
  run(std::move(work), [this, why](const Outcome& outcome) { removed(why, outcome); });
}

void TargetSnapshot::removed(const std::string& why, const Outcome& outcome) {
  if (!outcome.why_not.empty()) clean_ = false;
  if (!outcome.why_not.empty())
    spdlog::error("vm={} a snapshot that is no longer needed stays: {}", config_.vm,
                  outcome.why_not);
  else if (!kept_.empty())
    spdlog::info("vm={} the state before the resync is given up: {}", config_.vm, why);
  kept_.clear();
  state_ = "none";
  reason_ = outcome.why_not;
}

// Looked at and removed in one go by the pool's thread: a full disk does not wait.
void TargetSnapshot::watch_space() {
  watching_ = true;
  timer_.expires_after(space_interval);
  timer_.async_wait([this](const boost::system::error_code& e) {
    if (e) return;
    if (kept_.empty()) {
      watching_ = false;
      return;
    }
    std::function<Outcome()> work = [this] {
      Outcome outcome;
      if (!set_.low_on_space()) {
        outcome.files = set_.find();
        return outcome;
      }
      const auto gone = set_.remove();
      outcome.why_not = "the file system was nearly full";
      if (!gone) outcome.why_not += "; " + gone.error().message;
      return outcome;
    };
    run(std::move(work), [this](const Outcome& outcome) {
      // Something else may have been decided meanwhile: then this was about files of before.
      if (state_ == "kept" && outcome.files.empty()) {
        kept_.clear();
        state_ = "dropped";
        reason_ = outcome.why_not.empty() ? "somebody removed its files" : outcome.why_not;
        spdlog::warn("vm={} the state before the resync is given up: {}", config_.vm, reason_);
      }
      watch_space();
    });
  });
}

nlohmann::json TargetSnapshot::status() const {
  nlohmann::json status;
  status["state"] = state_;
  status["reason"] = nullptr;
  if (!reason_.empty()) status["reason"] = reason_;
  status["files"] = nlohmann::json::array();
  for (std::size_t i = 0; i < kept_.size(); ++i) {
    nlohmann::json file;
    file["disk"] = config_.disks.at(i).name;
    file["path"] = kept_[i].path;
    file["allocated_bytes"] = kept_[i].allocated_bytes;
    file["taken"] = utc(kept_[i].taken_s);
    status["files"].push_back(std::move(file));
  }
  return status;
}

}  // namespace havm
