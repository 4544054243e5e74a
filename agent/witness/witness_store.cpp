#include "agent/witness/witness_store.hpp"

#include <array>
#include <cerrno>

#include <nlohmann/json.hpp>
#include <sqlite3.h>
#include <sys/random.h>

namespace havm {
namespace {

constexpr int schema_version = 1;
constexpr int application_id = 0x68766d77;  // "hvmw"

void bind_text(sqlite3_stmt* statement, int index, const std::string& text) {
  sqlite3_bind_text(statement, index, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
}

std::string column_text(sqlite3_stmt* statement, int index) {
  const int size = sqlite3_column_bytes(statement, index);
  const void* data = sqlite3_column_blob(statement, index);
  return data == nullptr
             ? std::string()
             : std::string(static_cast<const char*>(data), static_cast<std::size_t>(size));
}

// Columns epoch, owner, in_sync from `first` on.
Result<Register> column_register(sqlite3_stmt* statement, int first) {
  Register value;
  value.epoch = Epoch(static_cast<std::uint64_t>(sqlite3_column_int64(statement, first)));
  value.owner = column_text(statement, first + 1);
  const auto nodes = nlohmann::json::parse(column_text(statement, first + 2), nullptr, false);
  if (!nodes.is_array()) return Error("a register in the database is damaged", EIO);
  for (const auto& node : nodes)
    value.in_sync.push_back(node.is_string() ? node : "");
  if (register_problem(value)) return Error("a register in the database is damaged", EIO);
  return value;
}

Result<std::string> random_id() {
  std::array<unsigned char, 16> bytes{};
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    return errno_error("cannot draw a random number", errno);
  std::string id;
  for (const unsigned char byte : bytes) {
    id.push_back("0123456789abcdef"[byte >> 4]);
    id.push_back("0123456789abcdef"[byte & 15]);
  }
  return id;
}

}  // namespace

void WitnessStore::Finalize::operator()(sqlite3_stmt* statement) const {
  sqlite3_finalize(statement);
}

WitnessStore::~WitnessStore() {
  sqlite3_close(db_);
}

Error WitnessStore::error(const std::string& what) {
  const int code = sqlite3_errcode(db_) & 0xff;
  if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
    return Error("the database " + path_ + " is in use by another havm-witness: stop it first",
                 EBUSY);
  if (code == SQLITE_NOTADB)
    return Error(path_ + " is not a database of havm-witness: give another file", EINVAL);
  return Error(what + " in " + path_ + ": " + sqlite3_errmsg(db_),
               code == SQLITE_FULL ? ENOSPC : EIO);
}

Result<WitnessStore::Statement> WitnessStore::prepare(const char* sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(db_, sql, -1, &statement, nullptr) != SQLITE_OK)
    return error("cannot prepare a statement");
  return Statement(statement);
}

Result<void> WitnessStore::execute(const char* sql) {
  if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK)
    return error(std::string("cannot execute '") + sql + "'");
  return success();
}

Result<std::string> WitnessStore::text_of(const char* sql) {
  BOOST_OUTCOME_TRY(const Statement statement, prepare(sql));
  const int code = sqlite3_step(statement.get());
  if (code == SQLITE_ROW) return column_text(statement.get(), 0);
  if (code == SQLITE_DONE) return std::string();
  return error("cannot read");
}

Result<std::unique_ptr<WitnessStore>> WitnessStore::open(const std::string& path) {
  std::unique_ptr<WitnessStore> store(new WitnessStore());
  store->path_ = path;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  if (sqlite3_open_v2(path.c_str(), &store->db_, flags, nullptr) != SQLITE_OK)
    return Error("cannot open the database " + path + ": " + sqlite3_errmsg(store->db_) +
                     "; check that its directory exists and may be written",
                 EIO);
  BOOST_OUTCOME_TRY(store->prepare_file());
  return store;
}

Result<void> WitnessStore::prepare_file() {
  // Exclusive before WAL: no second process can ever read or write while this one lives.
  BOOST_OUTCOME_TRY(text_of("PRAGMA locking_mode=EXCLUSIVE"));
  BOOST_OUTCOME_TRY(const std::string journal, text_of("PRAGMA journal_mode=WAL"));
  if (journal != "wal")
    return Error("the database " + path_ + " cannot keep a write-ahead log", EIO);
  BOOST_OUTCOME_TRY(execute("PRAGMA synchronous=FULL"));
  BOOST_OUTCOME_TRY(execute("BEGIN EXCLUSIVE; COMMIT"));
  BOOST_OUTCOME_TRY(const std::string found_id, text_of("PRAGMA application_id"));
  BOOST_OUTCOME_TRY(const std::string version, text_of("PRAGMA user_version"));
  BOOST_OUTCOME_TRY(const std::string tables, text_of("SELECT count(*) FROM sqlite_master"));
  const bool ours = found_id == std::to_string(application_id);
  if (!ours && tables != "0")
    return Error(path_ + " is not a database of havm-witness: give another file", EINVAL);
  if (ours && version != std::to_string(schema_version))
    return Error("the database " + path_ + " has schema " + version + ", this havm-witness knows " +
                     std::to_string(schema_version) + ": use the version that wrote it",
                 EINVAL);
  BOOST_OUTCOME_TRY(const std::string check, text_of("PRAGMA integrity_check"));
  if (check != "ok")
    return Error("the database " + path_ + " is damaged (" + check + "): restore it or remove it",
                 EIO);
  return take_store_id();
}

Result<void> WitnessStore::take_store_id() {
  BOOST_OUTCOME_TRY(const std::string tables, text_of("SELECT count(*) FROM sqlite_master"));
  if (tables == "0") {
    BOOST_OUTCOME_TRY(const std::string id, random_id());
    const std::string sql =
        "BEGIN EXCLUSIVE;"
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
        "CREATE TABLE registers (cluster TEXT NOT NULL, vm TEXT NOT NULL, epoch INTEGER NOT NULL,"
        " owner TEXT NOT NULL, in_sync TEXT NOT NULL, PRIMARY KEY (cluster, vm)) WITHOUT ROWID;"
        "INSERT INTO meta VALUES ('store_id', '" +
        id + "');PRAGMA application_id=" + std::to_string(application_id) +
        ";PRAGMA user_version=" + std::to_string(schema_version) + ";COMMIT";
    BOOST_OUTCOME_TRY(execute(sql.c_str()));
  }
  BOOST_OUTCOME_TRY(store_id_, text_of("SELECT value FROM meta WHERE key='store_id'"));
  if (store_id_.empty()) return Error("the database " + path_ + " has no store id: remove it", EIO);
  return success();
}

Result<std::uint64_t> WitnessStore::count() {
  BOOST_OUTCOME_TRY(const Statement statement, prepare("SELECT count(*) FROM registers"));
  if (sqlite3_step(statement.get()) != SQLITE_ROW) return error("cannot count the registers");
  return static_cast<std::uint64_t>(sqlite3_column_int64(statement.get(), 0));
}

Result<std::optional<Register>> WitnessStore::read(const RegisterKey& key) {
  BOOST_OUTCOME_TRY(
      const Statement statement,
      prepare("SELECT epoch, owner, in_sync FROM registers WHERE cluster=?1 AND vm=?2"));
  bind_text(statement.get(), 1, key.cluster);
  bind_text(statement.get(), 2, key.vm);
  const int code = sqlite3_step(statement.get());
  if (code == SQLITE_DONE) return std::optional<Register>();
  if (code != SQLITE_ROW) return error("cannot read the register of " + key.vm);
  BOOST_OUTCOME_TRY(auto value, column_register(statement.get(), 0));
  return std::optional<Register>(std::move(value));
}

Result<std::map<std::string, Register>> WitnessStore::list(const std::string& cluster) {
  BOOST_OUTCOME_TRY(const Statement statement,
                    prepare("SELECT vm, epoch, owner, in_sync FROM registers WHERE cluster=?1"));
  bind_text(statement.get(), 1, cluster);
  std::map<std::string, Register> result;
  int code = SQLITE_ROW;
  while ((code = sqlite3_step(statement.get())) == SQLITE_ROW) {
    BOOST_OUTCOME_TRY(auto value, column_register(statement.get(), 1));
    result.emplace(column_text(statement.get(), 0), std::move(value));
  }
  if (code != SQLITE_DONE) return error("cannot read the registers of cluster " + cluster);
  return result;
}

Result<void> WitnessStore::write(const RegisterKey& key, const std::optional<Register>& value) {
  if (failed_)
    return Error(
        "the database " + path_ + " failed earlier: check its disk, then restart havm-witness",
        EIO);
  const char* set = "INSERT OR REPLACE INTO registers VALUES (?1, ?2, ?3, ?4, ?5)";
  const char* remove = "DELETE FROM registers WHERE cluster=?1 AND vm=?2";
  BOOST_OUTCOME_TRY(const Statement statement, prepare(value ? set : remove));
  const std::string in_sync = value ? nlohmann::json(value->in_sync).dump() : std::string();
  bind_text(statement.get(), 1, key.cluster);
  bind_text(statement.get(), 2, key.vm);
  if (value) {
    sqlite3_bind_int64(statement.get(), 3, static_cast<sqlite3_int64>(value->epoch.value));
    bind_text(statement.get(), 4, value->owner);
    bind_text(statement.get(), 5, in_sync);
  }
  // One statement outside BEGIN is one transaction: the step returns after its commit is on the
  // disk.
  if (sqlite3_step(statement.get()) == SQLITE_DONE) return success();
  Error problem = error("cannot write the register of " + key.vm);
  failed_ = problem.code != ENOSPC;
  return problem;
}

}  // namespace havm
