// start, shutdown, destroy.
#include "agent/cli/command_context.hpp"
#include "agent/cli/command_table.hpp"
#include "agent/cli/waiting.hpp"

namespace havm {
namespace {

Result<void> carry_out(CommandContext& context, const std::string& verb,
                       const std::string& said_after) {
  BOOST_OUTCOME_TRY(const std::string vm, context.domain());
  BOOST_OUTCOME_TRY(const ApiAnswer answer,
                    context.api().post({"vms", vm, verb}, nlohmann::json::object()));
  BOOST_OUTCOME_TRY(const nlohmann::json body, finish(context, answer));
  if (context.wants_json())
    context.print_json(body);
  else
    context.terminal().print_extra("Domain '" + printable(vm) + "' " + said_after + "\n");
  return success();
}

}  // namespace

Result<void> run_start(CommandContext& context) {
  return carry_out(context, "start", "started");
}

Result<void> run_shutdown(CommandContext& context) {
  return carry_out(context, "shutdown", "is being shutdown");
}

Result<void> run_destroy(CommandContext& context) {
  return carry_out(context, "destroy", "destroyed");
}

}  // namespace havm
