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

namespace {

bool waits(const json& sync) {
  const std::string copying = text_at(sync, "copying");
  return copying == "paused" || copying == "queued";
}

std::string copying_word(const json& sync) {
  return waits(sync) ? text_at(sync, "copying") : "resyncing";
}

}  // namespace

std::string time_left_text(double seconds) {
  const auto s = static_cast<long long>(seconds);
  if (s < 120) return std::to_string(s) + " s";
  if (s < 7200) return std::to_string(s / 60) + " min";
  if (s < 172800) return std::to_string(s / 3600) + " h " + std::to_string(s / 60 % 60) + " min";
  return std::to_string(s / 86400) + " d " + std::to_string(s / 3600 % 24) + " h";
}

Cell sync_cell(const json& vm) {
  if (!true_at(vm, "protected")) return "-";
  const std::string state = text_at(field(vm, "sync"), "state");
  if (has_mismatch(vm))
    return {(state == "resyncing" ? copying_word(field(vm, "sync")) : state) + ", mismatch",
            Colour::bad};
  if (field(field(vm, "sync"), "slow_partner").is_string() &&
      (state == "in-sync" || state == "alone"))
    return {state + ", slow partner", state == "alone" ? Colour::bad : Colour::warning};
  if (state == "in-sync") return {state, Colour::good};
  if (state == "resyncing") {
    const auto percent = sync_percent(vm);
    const std::string word = copying_word(field(vm, "sync"));
    return {percent ? word + " " + std::to_string(*percent) + " %" : word, Colour::warning};
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
  const bool resyncing = text_at(sync, "state") == "resyncing";
  if (resyncing && done && total) {
    text += " (" + bytes_text(*done) + " of " + bytes_text(*total);
    const auto rate = number_at(sync, "rate_bytes_per_s");
    if (rate && *rate > 0) text += ", " + bytes_text(*rate) + "/s";
    if (const auto left = number_at(sync, "left_s")) text += ", " + time_left_text(*left) + " left";
    if (const auto limit = number_at(sync, "limit_bytes_per_s"))
      text += ", at most " + bytes_text(*limit) + "/s for the guest's sake";
    text += ")";
  }
  // Whoever is not resyncing waits in the queue as a matter of course.
  if (!waits(sync) || (!resyncing && text_at(sync, "copying") == "queued")) return text;
  if (!resyncing) text += "; the next resync is " + text_at(sync, "copying");
  return text + ": " + text_at(sync, "reason");
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
  if (const auto left = number_at(sync, "left_s")) text += ", " + time_left_text(*left) + " left";
  if (waits(sync))
    text += " " + text_at(sync, "copying") + ": " + printable(text_at(sync, "reason"));
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

std::string plan_text(const std::string& vm, const json& body) {
  std::string out = "Plan for domain '" + printable(vm) + "' (nothing was changed):\n";
  std::size_t number = 0;
  for (const json& step : list_at(body, "plan"))
    if (step.is_string())
      out += " " + std::to_string(++number) + ". " + printable(step.get<std::string>()) + "\n";
  return out;
}

}  // namespace havm
