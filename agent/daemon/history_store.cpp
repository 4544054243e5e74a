#include "agent/daemon/history_store.hpp"

#include <chrono>

#include <fmt/chrono.h>
#include <spdlog/spdlog.h>
#include <sqlite3.h>

namespace havm {
namespace {

struct Finalize {
  void operator()(sqlite3_stmt* s) const { sqlite3_finalize(s); }
};
using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

constexpr const char* schema =
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
    "CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY AUTOINCREMENT, vm TEXT NOT NULL, "
    "node TEXT NOT NULL,"
    " kind TEXT NOT NULL, text TEXT NOT NULL, epoch INTEGER, time TEXT NOT NULL, time_ns INTEGER "
    "NOT NULL);"
    "CREATE INDEX IF NOT EXISTS event_vm ON event (vm, id);";

Statement prepare(sqlite3* db, const char* sql) {
  sqlite3_stmt* s = nullptr;
  if (sqlite3_prepare_v2(db, sql, -1, &s, nullptr) != SQLITE_OK)
    spdlog::warn("history: {}", sqlite3_errmsg(db));
  return Statement(s);
}

void bind_text(const Statement& s, int index, const std::string& text) {
  sqlite3_bind_text(s.get(), index, text.c_str(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
}

std::string column(const Statement& s, int index) {
  const unsigned char* text = sqlite3_column_text(s.get(), index);
  return text ? std::string(reinterpret_cast<const char*>(text)) : std::string();
}

std::string wall_time() {
  const auto now = std::chrono::system_clock::now();
  const auto ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(now)), ms % 1000);
}

}  // namespace

Result<std::unique_ptr<HistoryStore>> HistoryStore::open(const std::string& path) {
  sqlite3* db = nullptr;
  const bool opened = sqlite3_open(path.c_str(), &db) == SQLITE_OK;
  std::unique_ptr<HistoryStore> store(new HistoryStore(db));
  char* message = nullptr;
  if (!opened || sqlite3_exec(db, schema, nullptr, nullptr, &message) != SQLITE_OK) {
    const std::string why = message ? message : sqlite3_errmsg(db);
    sqlite3_free(message);
    return Error("cannot open the history " + path + ": " + why +
                 "; move the file away to start a new one");
  }
  return store;
}

HistoryStore::~HistoryStore() {
  sqlite3_close(db_);
}

void HistoryStore::append(const HistoryEvent& e) {
  const Statement insert = prepare(
      db_, "INSERT INTO event (vm, node, kind, text, epoch, time, time_ns) VALUES (?,?,?,?,?,?,?)");
  bind_text(insert, 1, e.vm);
  bind_text(insert, 2, e.node);
  bind_text(insert, 3, e.kind);
  bind_text(insert, 4, e.text);
  if (e.epoch) sqlite3_bind_int64(insert.get(), 5, static_cast<sqlite3_int64>(*e.epoch));
  bind_text(insert, 6, wall_time());
  sqlite3_bind_int64(insert.get(), 7, to_ns(e.at));
  if (sqlite3_step(insert.get()) != SQLITE_DONE) spdlog::warn("history: {}", sqlite3_errmsg(db_));
  const Statement trim = prepare(db_,
                                 "DELETE FROM event WHERE vm = ?1 AND id <= (SELECT id FROM event "
                                 "WHERE vm = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)");
  bind_text(trim, 1, e.vm);
  sqlite3_bind_int(trim.get(), 2, events_per_vm_max);
  sqlite3_step(trim.get());
}

nlohmann::json HistoryStore::events(const std::string& vm) const {
  nlohmann::json all = nlohmann::json::array();
  const Statement query = prepare(
      db_, "SELECT id, time, time_ns, node, kind, text, epoch FROM event WHERE vm = ? ORDER BY id");
  bind_text(query, 1, vm);
  while (sqlite3_step(query.get()) == SQLITE_ROW) {
    nlohmann::json e;
    e["id"] = sqlite3_column_int64(query.get(), 0);
    e["time"] = column(query, 1);
    e["time_ns"] = sqlite3_column_int64(query.get(), 2);
    e["node"] = column(query, 3);
    e["kind"] = column(query, 4);
    e["text"] = column(query, 5);
    e["epoch"] = nullptr;
    if (sqlite3_column_type(query.get(), 6) != SQLITE_NULL)
      e["epoch"] = sqlite3_column_int64(query.get(), 6);
    all.push_back(std::move(e));
  }
  return all;
}

void HistoryStore::forget(const std::string& vm) {
  const Statement remove = prepare(db_, "DELETE FROM event WHERE vm = ?");
  bind_text(remove, 1, vm);
  sqlite3_step(remove.get());
}

}  // namespace havm
