// list, dominfo, domstate, explain: looking at domains.
#include "agent/cli/command_context.hpp"
#include "agent/cli/command_table.hpp"
#include "agent/cli/json_fields.hpp"
#include "agent/cli/text_table.hpp"
#include "agent/cli/vm_text.hpp"

namespace havm {
namespace {

using nlohmann::json;

json listed_vms(const CommandContext& context, const json& answer) {
  json vms = json::array();
  for (const json& vm : list_at(answer, "vms"))
    if (context.has("all") || true_at(vm, "protected")) vms.push_back(vm);
  return vms;
}

// --uuid and --name together print both, as virsh does.
std::string names_of(const CommandContext& context, const json& vms) {
  std::string out;
  for (const json& vm : vms) {
    std::string line;
    if (context.has("uuid")) line = text_at(vm, "uuid");
    if (context.has("name")) line += (line.empty() ? "" : " ") + printable(text_at(vm, "vm"));
    out += line + "\n";
  }
  return out;
}

std::string title_of(const json& vm) {
  return field(vm, "title").is_string() ? text_at(vm, "title") : "";
}

std::string table_of(CommandContext& context, const json& vms) {
  std::vector<std::string> header{"Name", "State", "Role", "Owner", "Partner", "Sync", "Ready"};
  if (context.has("title")) header.emplace_back("Title");
  TextTable table(header);
  for (const json& vm : vms) {
    std::vector<Cell> row{text_at(vm, "vm"),    state_cell(vm),         text_at(vm, "role"),
                          text_at(vm, "owner"), text_at(vm, "partner"), sync_cell(vm),
                          ready_cell(vm)};
    if (context.has("title")) row.emplace_back(title_of(vm));
    table.add_row(std::move(row));
  }
  return table.render(context.terminal(), context.quiet());
}

std::string yes_because(bool yes, const json& reason) {
  std::string text = yes ? "yes" : "no";
  if (reason.is_string()) text += " (" + reason.get<std::string>() + ")";
  return text;
}

std::string protection_lines(const json& vm) {
  const json& protection = field(vm, "protection");
  std::string out;
  out += key_value_line("Owner", text_at(vm, "owner"));
  out += key_value_line("Role", text_at(vm, "role"));
  out += key_value_line("Partner", text_at(vm, "partner"));
  out += key_value_line("Epoch", text_at(vm, "epoch"));
  out += key_value_line("In-sync set", joined_at(vm, "in_sync"));
  out += key_value_line("Sync", sync_detail(vm));
  if (field(vm, "verify").is_object()) out += key_value_line("Last verify", verify_detail(vm));
  if (field(field(vm, "sync"), "slow_partner").is_string())
    out += key_value_line("Slow partner", text_at(field(vm, "sync"), "slow_partner"));
  out += key_value_line("Ready", yes_because(true_at(vm, "ready"), field(vm, "ready_reason")));
  out += key_value_line("Redundant",
                        yes_because(true_at(protection, "protected"), field(protection, "reason")));
  const auto at_risk = number_at(protection, "bytes_at_risk");
  out += key_value_line("Bytes at risk", at_risk ? bytes_text(*at_risk) : "unknown");
  out += key_value_line("Desired", text_at(vm, "desired"));
  out += key_value_line("Phase", text_at(vm, "phase"));
  out += key_value_line("Reason", text_at(vm, "reason"));
  const json& policy = field(vm, "policy");
  if (policy.is_object()) {
    out += key_value_line("Failover", text_at(field(policy, "failover"), "mode"));
    out += key_value_line("On peer loss", text_at(field(policy, "replication"), "on_peer_loss"));
    out += key_value_line("Slow limit", text_at(field(policy, "replication"), "slow_partner"));
    out += key_value_line("Preferred node", text_at(policy, "preferred_node"));
    if (field(policy, "verify").is_object())
      out += key_value_line("Verify every", text_at(field(policy, "verify"), "every"));
  }
  for (const json& disk : list_at(vm, "disks")) {
    std::string text = text_at(disk, "path") + " (" + text_at(disk, "format");
    if (const auto size = number_at(disk, "size_bytes")) text += ", " + bytes_text(*size);
    text += ")";
    if (const auto repaired = number_at(disk, "repaired"); repaired && *repaired > 0)
      text += ", places repaired: " + text_at(disk, "repaired");
    if (field(disk, "error").is_string()) text += ": " + text_at(disk, "error");
    out += key_value_line("Disk " + text_at(disk, "target"), text);
  }
  return out;
}

}  // namespace

Result<void> run_list(CommandContext& context) {
  BOOST_OUTCOME_TRY(const ApiAnswer answer, context.api().get({"vms"}));
  const json vms = listed_vms(context, answer.body);
  if (context.wants_json()) {
    json out;
    out["vms"] = vms;
    context.print_json(out);
  } else if (context.has("name") || context.has("uuid")) {
    context.terminal().print(names_of(context, vms));
  } else {
    context.terminal().print(table_of(context, vms));
  }
  return success();
}

Result<void> run_dominfo(CommandContext& context) {
  BOOST_OUTCOME_TRY(const std::string name, context.domain());
  BOOST_OUTCOME_TRY(const json vm, context.get_vm(name));
  if (context.wants_json()) {
    context.print_json(vm);
    return success();
  }
  std::string out = key_value_line("Name", text_at(vm, "vm"));
  out += key_value_line("UUID", text_at(vm, "uuid"));
  if (!title_of(vm).empty()) out += key_value_line("Title", title_of(vm));
  out += key_value_line("State", text_at(vm, "state"));
  out += key_value_line("Protected", true_at(vm, "protected") ? "yes" : "no");
  if (true_at(vm, "protected")) out += protection_lines(vm);
  context.terminal().print(out);
  return success();
}

Result<void> run_domstate(CommandContext& context) {
  BOOST_OUTCOME_TRY(const std::string name, context.domain());
  BOOST_OUTCOME_TRY(const json vm, context.get_vm(name));
  if (context.wants_json()) {
    json out;
    out["vm"] = field(vm, "vm");
    out["state"] = field(vm, "state");
    context.print_json(out);
  } else {
    context.terminal().print(printable(text_at(vm, "state")) + "\n");
  }
  return success();
}

Result<void> run_explain(CommandContext& context) {
  BOOST_OUTCOME_TRY(const std::string name, context.domain());
  BOOST_OUTCOME_TRY(const ApiAnswer answer, context.api().get({"vms", name, "explain"}));
  if (context.wants_json()) {
    context.print_json(answer.body);
    return success();
  }
  TextTable table({"Time", "Node", "Epoch", "Event", "Explanation"});
  for (const json& event : list_at(answer.body, "events"))
    table.add_row({text_at(event, "time"), text_at(event, "node"), text_at(event, "epoch"),
                   text_at(event, "kind"), text_at(event, "text")});
  context.terminal().print(table.render(context.terminal(), context.quiet()));
  return success();
}

}  // namespace havm
