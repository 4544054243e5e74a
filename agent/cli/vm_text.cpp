#include "agent/cli/vm_text.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

#include "agent/cli/json_fields.hpp"

namespace havm {

using nlohmann::json;

std::optional<int> sync_percent(const json& vm) {
  const json& sync = field(vm, "sync");
  const auto done = number_at(sync, "done_bytes");
  const auto total = number_at(sync, "total_bytes");
  if (!done || !total || *total <= 0) return std::nullopt;
  // 100 only when it is over.
  return std::clamp(static_cast<int>(*done * 100 / *total), 0, *done < *total ? 99 : 100);
}

Cell sync_cell(const json& vm) {
  if (!true_at(vm, "protected")) return "-";
  const std::string state = text_at(field(vm, "sync"), "state");
  if (has_mismatch(vm)) return {state + ", mismatch", Colour::bad};
  if (field(field(vm, "sync"), "slow_partner").is_string() &&
      (state == "in-sync" || state == "alone"))
    return {state + ", slow partner", state == "alone" ? Colour::bad : Colour::warning};
  if (state == "in-sync") return {state, Colour::good};
  if (state == "resyncing") {
    const auto percent = sync_percent(vm);
    return {percent ? state + " " + std::to_string(*percent) + " %" : state, Colour::warning};
  }
  return {state, state == "alone" || state == "frozen" ? Colour::bad : Colour::plain};
}

Cell ready_cell(const json& vm) {
  if (!true_at(vm, "protected")) return "-";
  return true_at(vm, "ready") ? Cell("yes", Colour::good) : Cell("no", Colour::bad);
}

Cell state_cell(const json& vm) {
  const std::string state = text_at(vm, "state");
  if (state == "running") return {state, Colour::good};
  return {state, state == "crashed" || state == "unknown" ? Colour::bad : Colour::plain};
}

std::string sync_detail(const json& vm) {
  const json& sync = field(vm, "sync");
  std::string text = sync_cell(vm).text;
  const auto done = number_at(sync, "done_bytes");
  const auto total = number_at(sync, "total_bytes");
  if (text_at(sync, "state") != "resyncing" || !done || !total) return text;
  text += " (" + bytes_text(*done) + " of " + bytes_text(*total);
  const auto rate = number_at(sync, "rate_bytes_per_s");
  if (rate && *rate > 0) text += ", " + bytes_text(*rate) + "/s";
  return text + ")";
}

std::string sync_progress(const json& vm) {
  const auto percent = sync_percent(vm);
  const json& sync = field(vm, "sync");
  if (!percent || text_at(sync, "state") != "resyncing")
    return "Synchronising: " + printable(text_at(sync, "state"));
  std::array<char, 32> bar{};
  std::snprintf(bar.data(), bar.size(), "[%3d %%]", *percent);
  std::string text = std::string("Synchronising: ") + bar.data();
  const auto rate = number_at(sync, "rate_bytes_per_s");
  if (rate && *rate > 0) text += " " + bytes_text(*rate) + "/s";
  return text;
}

namespace {

// 0–100 of a running verify, nullopt when unknown.
std::optional<int> verify_percent(const json& verify) {
  const auto done = number_at(verify, "done_bytes");
  const auto total = number_at(verify, "total_bytes");
  if (!done || !total || *total <= 0) return std::nullopt;
  return std::clamp(static_cast<int>(*done * 100 / *total), 0, 100);
}

}  // namespace

bool has_mismatch(const json& vm) {
  return number_at(field(vm, "verify"), "unresolved_bytes").value_or(0) > 0;
}

std::string verify_progress(const json& vm) {
  const json& verify = field(vm, "verify");
  const auto percent = verify_percent(verify);
  if (!percent) return "Verifying";
  std::array<char, 32> bar{};
  std::snprintf(bar.data(), bar.size(), "[%3d %%]", *percent);
  std::string text = std::string("Verifying: ") + bar.data();
  const auto rate = number_at(verify, "rate_bytes_per_s");
  if (rate && *rate > 0) text += " " + bytes_text(*rate) + "/s";
  const auto differ = number_at(verify, "mismatch_bytes");
  if (differ && *differ > 0) text += ", " + bytes_text(*differ) + " differ";
  return text;
}

std::string verify_detail(const json& vm) {
  const json& verify = field(vm, "verify");
  const json& last = field(verify, "last");
  std::string text = "never";
  if (last.is_object()) text = text_at(last, "result") + " (" + text_at(last, "time") + ")";
  if (has_mismatch(vm))
    text = "mismatch: " + bytes_text(*number_at(verify, "unresolved_bytes")) +
           " differ between the replicas; last: " + text;
  if (!true_at(verify, "running")) return text;
  const auto percent = verify_percent(verify);
  return text + "; running" + (percent ? " " + std::to_string(*percent) + " %" : "");
}

}  // namespace havm
