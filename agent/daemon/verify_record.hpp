// The job of VerifyRecord: what this node remembers of the verifies of one VM, over restarts of
// engine and daemon: /var/lib/havm/vms/<vm>/verify.json. Both nodes keep it; the owner writes it
// first.
//
// Invariant: a difference that was found stays in `unresolved_bytes` until a verify that compared
// everything has found less, or has repaired it. Times are wall time, for people and for "every
// seven days".
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "vmrepl/base/result.hpp"

namespace havm {

struct VerifyRecord {
  std::string id;    // of the last run that ended, as the engine drew it; empty: none
  std::string node;  // the owner then
  std::int64_t ended_ms = 0;
  std::int64_t completed_ms = 0;  // when the last one ended that compared everything; 0: never
  std::string result;             // the engine's words (docs/protocol/engine-control.md)
  std::string reason;
  std::uint64_t mismatch_bytes = 0;
  std::uint64_t repaired_bytes = 0;
  std::uint64_t unresolved_bytes = 0;
  nlohmann::json mismatches = nlohmann::json::array();
  bool operator==(const VerifyRecord&) const = default;
};

// `before` brought up to date by an engine's `verify` object; nothing when that tells nothing new.
// A malformed object tells nothing.
std::optional<VerifyRecord> record_after(const VerifyRecord& before, const nlohmann::json& verify,
                                         const std::string& node, std::int64_t now_ms);

// Of two nodes' records that of the later run.
bool is_later(const VerifyRecord& other, const VerifyRecord& own);

// One sentence for the history.
std::string sentence_of(const VerifyRecord& record);

nlohmann::json to_json(const VerifyRecord& record);
std::optional<VerifyRecord> verify_record_from_json(const nlohmann::json& document);

// An empty record when there is no file, or when it cannot be read (then the error is logged: it
// decides nothing about data).
VerifyRecord load_verify_record(const std::string& path);
Result<void> save_verify_record(const std::string& path, const VerifyRecord& record);

std::int64_t wall_time_ms();
// RFC 3339 in UTC with milliseconds.
std::string wall_time_text(std::int64_t ms);

}  // namespace havm
