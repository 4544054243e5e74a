// resync-pause, resync-resume: resyncs that wait for a person.
#include "agent/cli/command_context.hpp"
#include "agent/cli/command_table.hpp"
#include "agent/cli/vm_text.hpp"

namespace havm {
namespace {

using nlohmann::json;

Result<void> carry_out(CommandContext& context, const std::string& verb, json body,
                       const std::string& said_after) {
  BOOST_OUTCOME_TRY(const std::string vm, context.domain());
  body["dry_run"] = context.has("dry-run");
  BOOST_OUTCOME_TRY(const ApiAnswer answer, context.api().post({"vms", vm, verb}, body));
  if (context.wants_json()) {
    context.print_json(answer.body);
  } else if (context.has("dry-run")) {
    context.terminal().print(plan_text(vm, answer.body));
  } else {
    context.terminal().print_extra("Resync of domain '" + printable(vm) + "' " + said_after + "\n");
  }
  return success();
}

}  // namespace

Result<void> run_resync_pause(CommandContext& context) {
  json body;
  body["reason"] = context.has("reason") ? json(context.get("reason")) : json(nullptr);
  return carry_out(context, "resync-pause", std::move(body), "paused");
}

Result<void> run_resync_resume(CommandContext& context) {
  return carry_out(context, "resync-resume", json::object(), "goes on");
}

}  // namespace havm
