// resync-pause, resync-resume, snapshot-list: resyncs that wait, and what they overwrite.
#include "agent/cli/command_context.hpp"
#include "agent/cli/command_table.hpp"
#include "agent/cli/json_fields.hpp"
#include "agent/cli/text_table.hpp"
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

Result<void> run_snapshot_list(CommandContext& context) {
  BOOST_OUTCOME_TRY(const std::string name, context.domain());
  BOOST_OUTCOME_TRY(const json vm, context.get_vm(name));
  if (context.wants_json()) {
    json out;
    out["snapshots"] = list_at(vm, "snapshots");
    context.print_json(out);
    return success();
  }
  TextTable table({"Node", "Disk", "Taken", "Allocated", "File"});
  std::string remarks;
  for (const json& snapshot : list_at(vm, "snapshots")) {
    const std::string node = text_at(snapshot, "node");
    for (const json& file : list_at(snapshot, "files"))
      table.add_row({node, text_at(file, "disk"), text_at(file, "taken"),
                     bytes_text(number_at(file, "allocated_bytes").value_or(0)),
                     text_at(file, "path")});
    if (text_at(snapshot, "reason") != "-")
      remarks += "Node " + printable(node) + " keeps none (" +
                 printable(text_at(snapshot, "state")) +
                 "): " + printable(text_at(snapshot, "reason")) + "\n";
  }
  context.terminal().print(table.render(context.terminal(), context.quiet()) + remarks);
  return success();
}

}  // namespace havm
