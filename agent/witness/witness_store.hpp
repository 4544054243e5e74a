// The job of WitnessStore: keep the registers durably, in one SQLite file that belongs to one
// witness. Guarantees: what write() acknowledged survives the loss of power and of the process at
// any instant; a write that failed for an I/O error may or may not be found later, and nothing is
// written after it (an fsync that failed once cannot be trusted again) until the file was opened
// and checked anew. Blocking; one thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "agent/witness/witness_types.hpp"
#include "vmrepl/base/result.hpp"

struct sqlite3;
struct sqlite3_stmt;

namespace havm {

class WitnessStore {
 public:
  // Creates the file when there is none. Error when another witness has it open, when the integrity
  // check fails or when it is some other program's database.
  static Result<std::unique_ptr<WitnessStore>> open(const std::string& path);
  WitnessStore(const WitnessStore&) = delete;
  WitnessStore& operator=(const WitnessStore&) = delete;
  ~WitnessStore();

  // Drawn at random when the file was created.
  [[nodiscard]] const std::string& store_id() const { return store_id_; }
  Result<std::uint64_t> count();
  Result<std::optional<Register>> read(const RegisterKey& key);
  Result<std::map<std::string, Register>> list(const std::string& cluster);
  // Sets, or with nullopt removes. Durable when it returns.
  Result<void> write(const RegisterKey& key, const std::optional<Register>& value);

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

  WitnessStore() = default;
  Result<void> prepare_file();
  Result<void> take_store_id();
  Result<void> execute(const char* sql);
  Result<std::string> text_of(const char* sql);
  Result<Statement> prepare(const char* sql);
  Error error(const std::string& what);

  std::string path_;
  sqlite3* db_ = nullptr;
  std::string store_id_;
  bool failed_ = false;
};

}  // namespace havm
