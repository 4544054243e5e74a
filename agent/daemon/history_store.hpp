// The job of HistoryStore: keep the decisions of this node, newest `events_per_vm_max` for each VM,
// so that `havm explain` can tell what happened also after a restart. SQLite; losing the last
// events in a power cut is accepted, because no rule depends on them. Blocking, short. One thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/result.hpp"

struct sqlite3;

namespace havm {

struct HistoryEvent {
  std::string vm;
  std::string node;
  std::string kind;
  std::string text;
  std::optional<std::uint64_t> epoch;
  TimePoint at{};
};

class HistoryStore {
 public:
  static constexpr int events_per_vm_max = 1000;

  // Opens or creates the file; an unreadable one is an Error that names it.
  static Result<std::unique_ptr<HistoryStore>> open(const std::string& path);
  ~HistoryStore();
  HistoryStore(const HistoryStore&) = delete;
  HistoryStore& operator=(const HistoryStore&) = delete;

  void append(const HistoryEvent& event);
  // docs/protocol/api.md, Event; oldest first.
  [[nodiscard]] nlohmann::json events(const std::string& vm) const;
  void forget(const std::string& vm);

 private:
  explicit HistoryStore(sqlite3* db) : db_(db) {}
  sqlite3* db_;
};

}  // namespace havm
