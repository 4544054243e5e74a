#include "agent/cli/waiting.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <thread>

#include "agent/cli/json_fields.hpp"
#include "agent/cli/vm_text.hpp"

namespace havm {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

// Whether a failure of one poll can be borne.
class Patience {
 public:
  void answered() {
    answered_ = true;
    last_ = Clock::now();
  }
  [[nodiscard]] bool bears(const Error& error) const {
    return answered_ && is_unreachable(error) && error.code != EACCES &&
           Clock::now() - last_ < patience;
  }

 private:
  bool answered_ = false;
  Clock::time_point last_ = Clock::now();
};

std::string operation_progress(const json& operation) {
  const auto percent = number_at(operation, "percent");
  std::array<char, 32> bar{};
  if (percent)
    std::snprintf(bar.data(), bar.size(), "[%3d %%] ",
                  std::clamp(static_cast<int>(*percent), 0, 100));
  const std::string step = field(operation, "step").is_string() ? text_at(operation, "step") : "";
  return bar.data() + printable(step);
}

std::string seconds_text(std::chrono::milliseconds duration) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%g", static_cast<double>(duration.count()) / 1000);
  return text.data();
}

std::string present_state(const json& vm) {
  std::string text = "it is " + text_at(vm, "state");
  if (!true_at(vm, "protected")) return text + ", not protected";
  text += ", " + sync_cell(vm).text;
  if (!true_at(vm, "ready") && field(vm, "ready_reason").is_string())
    text += ", not ready: " + text_at(vm, "ready_reason");
  return text;
}

}  // namespace

Result<json> follow_operation(CommandContext& context, const std::string& id) {
  Patience patience_left;
  patience_left.answered();  // havmd has just answered with the id
  for (;;) {
    auto answer = context.api().get({"operations", id});
    if (!answer && answer.error().code == 404)
      return Error(
          "havmd no longer knows this operation: it was restarted meanwhile; see "
          "'havm explain' for what became of it");
    if (!answer && !patience_left.bears(answer.error())) return answer.error();
    if (answer) {
      patience_left.answered();
      const json& operation = answer.value().body;
      const std::string state = text_at(operation, "state");
      if (state == "done") return std::move(answer.value().body);
      if (state == "failed") return Error(text_at(operation, "error"));
      context.terminal().print_progress(operation_progress(operation));
    }
    std::this_thread::sleep_for(poll_interval);
  }
}

Result<json> finish(CommandContext& context, const ApiAnswer& answer) {
  if (answer.status != 202) return answer.body;
  return follow_operation(context, text_at(answer.body, "operation"));
}

namespace {

Result<json> wait_with(CommandContext& context, const std::string& vm, const std::string& goal,
                       std::optional<std::chrono::milliseconds> timeout,
                       const std::function<bool(const json&)>& reached,
                       std::string (*progress)(const json& vm)) {
  const Clock::time_point begin = Clock::now();
  Patience patience_left;
  std::string present = "havmd does not answer";
  for (;;) {
    auto answer = context.get_vm(vm);
    if (!answer && !patience_left.bears(answer.error())) return answer.error();
    if (answer) {
      patience_left.answered();
      present = present_state(answer.value());
      if (reached(answer.value())) return answer;
      if (true_at(answer.value(), "protected"))
        context.terminal().print_progress(progress(answer.value()));
    } else {
      present = "havmd does not answer";
    }
    const auto waited = Clock::now() - begin;
    if (timeout && waited >= *timeout)
      return Error("domain '" + vm + "' is not " + goal + " after " + seconds_text(*timeout) +
                   " s: " + present);
    auto pause = std::chrono::duration_cast<std::chrono::nanoseconds>(poll_interval);
    if (timeout) pause = std::min<std::chrono::nanoseconds>(pause, *timeout - waited);
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace

Result<json> wait_for_vm(CommandContext& context, const std::string& vm, const std::string& goal,
                         std::optional<std::chrono::milliseconds> timeout,
                         const std::function<bool(const json&)>& reached) {
  return wait_with(context, vm, goal, timeout, reached, sync_progress);
}

Result<json> wait_for_verify(CommandContext& context, const std::string& vm,
                             std::optional<std::chrono::milliseconds> timeout) {
  // Null: its engine does not answer just now.
  const auto ended = [](const json& now) {
    return text_at(now, "role") == "partner" || field(field(now, "verify"), "running") == false;
  };
  return wait_with(context, vm, "verified", timeout, ended, verify_progress);
}

}  // namespace havm
