// wait: until a domain is in a state.
#include "agent/cli/command_context.hpp"
#include "agent/cli/command_table.hpp"
#include "agent/cli/json_fields.hpp"
#include "agent/cli/waiting.hpp"

namespace havm {
namespace {

using nlohmann::json;

struct Goal {
  const char* name;
  bool (*reached)(const json& vm);
};

std::string sync_of(const json& vm) {
  return text_at(field(vm, "sync"), "state");
}

const std::vector<Goal>& goals() {
  static const std::vector<Goal> all{
      {"running", [](const json& vm) { return text_at(vm, "state") == "running"; }},
      {"paused", [](const json& vm) { return text_at(vm, "state") == "paused"; }},
      {"shut-off", [](const json& vm) { return text_at(vm, "state") == "shut off"; }},
      {"in-sync", [](const json& vm) { return sync_of(vm) == "in-sync"; }},
      {"resyncing", [](const json& vm) { return sync_of(vm) == "resyncing"; }},
      {"alone", [](const json& vm) { return sync_of(vm) == "alone"; }},
      {"ready", [](const json& vm) { return true_at(vm, "ready"); }},
      {"protected", [](const json& vm) { return true_at(vm, "protected"); }}};
  return all;
}

}  // namespace

Result<void> run_wait(CommandContext& context) {
  std::string wanted = context.get("state");
  if (wanted == "shut off") wanted = "shut-off";
  const Goal* goal = nullptr;
  std::string known;
  for (const Goal& each : goals()) {
    if (each.name == wanted) goal = &each;
    known += (known.empty() ? "" : ", ") + std::string(each.name);
  }
  if (goal == nullptr) return Error("unknown state '" + wanted + "': expected one of " + known);
  BOOST_OUTCOME_TRY(const auto timeout, context.timeout());
  BOOST_OUTCOME_TRY(const std::string vm, context.domain());
  BOOST_OUTCOME_TRY(const json now, wait_for_vm(context, vm, wanted, timeout, goal->reached));
  if (context.wants_json())
    context.print_json(now);
  else
    context.terminal().print_extra("Domain '" + printable(vm) + "' is " + wanted + "\n");
  return success();
}

}  // namespace havm
