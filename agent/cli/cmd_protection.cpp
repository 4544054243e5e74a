// protect, unprotect, failover: what changes where a domain's replicas are.
#include <algorithm>
#include <cerrno>

#include "agent/cli/command_context.hpp"
#include "agent/cli/command_table.hpp"
#include "agent/cli/json_fields.hpp"
#include "agent/cli/policy_file.hpp"
#include "agent/cli/vm_text.hpp"
#include "agent/cli/waiting.hpp"

namespace havm {
namespace {

using nlohmann::json;

void print_plan(CommandContext& context, const std::string& vm, const json& body) {
  if (context.wants_json()) {
    context.print_json(body);
    return;
  }
  context.terminal().print(plan_text(vm, body));
}

// --wait: until `reached`, by default for ever. The vm object then, else null.
Result<json> wait_if_asked(CommandContext& context, const std::string& vm, const std::string& goal,
                           const std::function<bool(const json&)>& reached) {
  if (!context.has("wait")) return json();
  BOOST_OUTCOME_TRY(const auto timeout, context.timeout());
  return wait_for_vm(context, vm, goal, timeout, reached);
}

// With --json the operation, its result brought up to date when more was waited for.
void tell_end(CommandContext& context, json operation, const json& waited,
              const std::string& sentence) {
  if (!context.wants_json()) {
    context.terminal().print_extra(sentence + "\n");
    return;
  }
  if (!waited.is_null() && operation.is_object()) operation["result"] = waited;
  context.print_json(operation);
}

bool in_sync(const json& vm) {
  return text_at(field(vm, "sync"), "state") == "in-sync";
}

}  // namespace

Result<void> run_protect(CommandContext& context) {
  json body;
  body["peer"] = context.get("peer");
  body["policy"] = nullptr;
  if (context.has("policy")) {
    // Checked here, so that the mistake is told with the name of the file and nothing is sent.
    BOOST_OUTCOME_TRY(body["policy"], read_policy_file(context.get("policy")));
  }
  body["restart"] = context.has("restart");
  body["dry_run"] = context.has("dry-run");
  BOOST_OUTCOME_TRY(context.timeout());
  BOOST_OUTCOME_TRY(const std::string vm, context.domain());
  BOOST_OUTCOME_TRY(const ApiAnswer answer, context.api().post({"vms", vm, "protect"}, body));
  if (context.has("dry-run")) {
    print_plan(context, vm, answer.body);
    return success();
  }
  BOOST_OUTCOME_TRY(const json operation, finish(context, answer));
  BOOST_OUTCOME_TRY(const json waited, wait_if_asked(context, vm, "in-sync", in_sync));
  tell_end(context, operation, waited,
           "Domain '" + printable(vm) + "' protected with partner '" + context.get("peer") + "'");
  return success();
}

Result<void> run_unprotect(CommandContext& context) {
  BOOST_OUTCOME_TRY(const std::string vm, context.domain());
  json body;
  body["restart"] = context.has("restart");
  body["dry_run"] = context.has("dry-run");
  if (!context.has("dry-run") && !context.has("yes") &&
      !context.terminal().confirm("Give up the second replica of domain '" + vm + "'?"))
    return Error("not confirmed: domain '" + vm + "' stays protected");
  BOOST_OUTCOME_TRY(const ApiAnswer answer, context.api().post({"vms", vm, "unprotect"}, body));
  if (context.has("dry-run")) {
    print_plan(context, vm, answer.body);
    return success();
  }
  BOOST_OUTCOME_TRY(const json operation, finish(context, answer));
  tell_end(context, operation, nullptr, "Domain '" + printable(vm) + "' is no longer protected");
  return success();
}

Result<void> run_failover(CommandContext& context) {
  BOOST_OUTCOME_TRY(context.timeout());
  BOOST_OUTCOME_TRY(const std::string vm, context.domain());
  json body;
  body["to"] = context.has("to") ? json(context.get("to")) : json(nullptr);
  body["dry_run"] = context.has("dry-run");
  BOOST_OUTCOME_TRY(const ApiAnswer answer, context.api().post({"vms", vm, "failover"}, body));
  if (context.has("dry-run")) {
    print_plan(context, vm, answer.body);
    return success();
  }
  BOOST_OUTCOME_TRY(const json operation, finish(context, answer));
  std::string target = text_at(field(operation, "result"), "owner");
  if (context.has("to")) target = context.get("to");
  if (target == "-") return Error("havmd does not tell which node owns domain '" + vm + "' now");
  const auto arrived = [&target](const json& now) {
    return text_at(now, "owner") == target &&
           (text_at(now, "desired") == "off" || text_at(now, "state") == "running");
  };
  BOOST_OUTCOME_TRY(const json waited,
                    wait_if_asked(context, vm, "running on node '" + target + "'", arrived));
  tell_end(context, operation, waited,
           "Domain '" + printable(vm) + "' failed over to node '" + printable(target) + "'");
  return success();
}

}  // namespace havm
