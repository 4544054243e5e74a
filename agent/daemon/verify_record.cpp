#include "agent/daemon/verify_record.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <ctime>

#include <spdlog/spdlog.h>

#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using nlohmann::json;

bool compared_everything(const std::string& result) {
  return result == "clean" || result == "mismatch" || result == "repaired";
}

}  // namespace

std::optional<VerifyRecord> record_after(const VerifyRecord& before, const json& verify,
                                         const std::string& node, std::int64_t now_ms) {
  if (!verify.is_object()) return std::nullopt;
  try {
    if (verify.at("running").get<bool>()) return std::nullopt;
    VerifyRecord after = before;
    after.id = verify.at("id").get<std::string>();
    if (after.id == before.id) return std::nullopt;
    after.node = node;
    after.ended_ms = now_ms - verify.at("finished_age_ms").get<std::int64_t>();
    after.result = verify.at("result").get<std::string>();
    after.reason = verify.at("reason").get<std::string>();
    after.mismatch_bytes = verify.at("mismatch_bytes").get<std::uint64_t>();
    after.repaired_bytes = verify.at("repaired_bytes").get<std::uint64_t>();
    after.mismatches = verify.at("mismatches");
    const std::uint64_t left = after.mismatch_bytes - after.repaired_bytes;
    if (compared_everything(after.result)) {
      after.completed_ms = after.ended_ms;
      after.unresolved_bytes = left;
    } else {
      // What it repaired before it broke off may be flushed or not: nothing is taken as mended.
      after.unresolved_bytes = std::max(before.unresolved_bytes, after.mismatch_bytes);
    }
    return after;
  } catch (const json::exception& e) {
    spdlog::warn("the engine's verify is malformed: {}", e.what());
    return std::nullopt;
  }
}

bool is_later(const VerifyRecord& other, const VerifyRecord& own) {
  return !other.id.empty() && other.id != own.id && other.ended_ms > own.ended_ms;
}

std::string sentence_of(const VerifyRecord& r) {
  std::string text = "verify: " + r.result + ", " + r.reason;
  if (r.mismatch_bytes != 0)
    text += "; " + std::to_string(r.mismatch_bytes) + " bytes differed, " +
            std::to_string(r.repaired_bytes) + " were repaired";
  return text;
}

json to_json(const VerifyRecord& r) {
  json document;
  document["id"] = r.id;
  document["node"] = r.node;
  document["ended_ms"] = r.ended_ms;
  document["completed_ms"] = r.completed_ms;
  document["result"] = r.result;
  document["reason"] = r.reason;
  document["mismatch_bytes"] = r.mismatch_bytes;
  document["repaired_bytes"] = r.repaired_bytes;
  document["unresolved_bytes"] = r.unresolved_bytes;
  document["mismatches"] = r.mismatches;
  return document;
}

std::optional<VerifyRecord> verify_record_from_json(const json& document) {
  if (!document.is_object()) return std::nullopt;
  try {
    VerifyRecord r;
    r.id = document.at("id").get<std::string>();
    r.node = document.at("node").get<std::string>();
    r.ended_ms = document.at("ended_ms").get<std::int64_t>();
    r.completed_ms = document.at("completed_ms").get<std::int64_t>();
    r.result = document.at("result").get<std::string>();
    r.reason = document.at("reason").get<std::string>();
    r.mismatch_bytes = document.at("mismatch_bytes").get<std::uint64_t>();
    r.repaired_bytes = document.at("repaired_bytes").get<std::uint64_t>();
    r.unresolved_bytes = document.at("unresolved_bytes").get<std::uint64_t>();
    r.mismatches = document.at("mismatches");
    return r;
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

VerifyRecord load_verify_record(const std::string& path) {
  const auto text = read_file(path);
  if (!text && text.error().code == ENOENT) return {};
  if (text) {
    auto record = verify_record_from_json(json::parse(text.value(), nullptr, false));
    if (record) return *std::move(record);
  }
  spdlog::error(
      "{} cannot be read: what the last verify found is forgotten; run 'havm "
      "resync-verify' again",
      path);
  return {};
}

Result<void> save_verify_record(const std::string& path, const VerifyRecord& record) {
  return replace_file(path, to_json(record).dump(1) + "\n");
}

std::int64_t wall_time_ms() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

std::string wall_time_text(std::int64_t ms) {
  const std::time_t seconds = static_cast<std::time_t>(ms / 1000);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  std::array<char, 8> fraction{};
  std::snprintf(fraction.data(), fraction.size(), ".%03dZ", static_cast<int>(ms % 1000));
  return std::string(text.data()) + fraction.data();
}

}  // namespace havm
