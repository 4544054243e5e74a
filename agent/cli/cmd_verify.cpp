// resync-verify: compare the two replicas of a domain.
#include <cstdio>

#include "agent/cli/command_context.hpp"
#include "agent/cli/command_table.hpp"
#include "agent/cli/json_fields.hpp"
#include "agent/cli/vm_text.hpp"
#include "agent/cli/waiting.hpp"

namespace havm {
namespace {

using nlohmann::json;

json request_of(const CommandContext& context) {
  json body;
  body["repair"] = context.has("repair");
  body["cancel"] = context.has("cancel");
  return body;
}

std::string last_id(const json& vm) {
  return text_at(field(field(vm, "verify"), "last"), "id");
}

// With the places, which a person needs to judge what they hold.
std::string mismatch_lines(const std::string& vm, const json& last) {
  const auto differ = number_at(last, "mismatch_bytes").value_or(0);
  const auto repaired = number_at(last, "repaired_bytes").value_or(0);
  std::string text = "domain '" + vm + "': the replicas differ in " + bytes_text(differ) +
                     (repaired > 0 ? ", of which " + bytes_text(repaired) + " were repaired" : "") +
                     "; which of them is right is not known (see havm(1), resync-verify)";
  for (const json& m : list_at(last, "mismatches"))
    text += "\ndisk " + text_at(m, "disk") + ": " + text_at(m, "length") + " bytes at " +
            text_at(m, "offset") + " (" + text_at(m, "reason") +
            (true_at(m, "repaired") ? ", repaired)" : ")");
  return text;
}

Result<void> tell_end(CommandContext& context, const std::string& vm, const json& now) {
  const json& last = field(field(now, "verify"), "last");
  const std::string result = text_at(last, "result");
  if (context.wants_json()) context.print_json(now);
  if (result == "mismatch") return Error(mismatch_lines(vm, last));
  if (result != "clean" && result != "repaired")
    return Error("domain '" + vm + "': the verify ended early (" + result +
                 "): " + text_at(last, "reason"));
  if (context.wants_json()) return success();
  std::string text = "Domain '" + printable(vm) + "' verified: ";
  if (result == "clean")
    text += "both replicas are the same";
  else
    text += bytes_text(number_at(last, "repaired_bytes").value_or(0)) +
            " copied from the owner to the partner";
  context.terminal().print_extra(text + "\n");
  return success();
}

}  // namespace

Result<void> run_resync_verify(CommandContext& context) {
  if (context.has("cancel") && context.has("repair"))
    return Error("options --cancel and --repair are mutually exclusive");
  if (context.has("wait") && context.has("no-wait"))
    return Error("options --wait and --no-wait are mutually exclusive");
  BOOST_OUTCOME_TRY(context.timeout());
  BOOST_OUTCOME_TRY(const std::string vm, context.domain());
  const bool asks = context.has("repair") && !context.has("yes");
  if (asks && !context.terminal().confirm("Where the replicas of domain '" + vm +
                                          "' differ, overwrite the partner's with the owner's?"))
    return Error("not confirmed: nothing was begun");
  BOOST_OUTCOME_TRY(const json before, context.get_vm(vm));
  BOOST_OUTCOME_TRY(const ApiAnswer answer,
                    context.api().post({"vms", vm, "verify"}, request_of(context)));
  if (context.has("cancel") || context.has("no-wait")) {
    if (context.wants_json())
      context.print_json(answer.body);
    else
      context.terminal().print_extra("Verify of domain '" + printable(vm) + "' " +
                                     (context.has("cancel") ? "cancelled" : "begun") + "\n");
    return success();
  }
  BOOST_OUTCOME_TRY(const auto timeout, context.timeout());
  BOOST_OUTCOME_TRY(const json now, wait_for_verify(context, vm, timeout));
  if (last_id(now) == last_id(before))
    return Error("domain '" + vm +
                 "': the verify has no result: its engine or its owner changed meanwhile; run it "
                 "again");
  return tell_end(context, vm, now);
}

}  // namespace havm
