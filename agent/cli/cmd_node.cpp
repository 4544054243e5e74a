// node-list, version.
#include <array>
#include <cstdio>

#include "agent/cli/command_context.hpp"
#include "agent/cli/command_table.hpp"
#include "agent/cli/json_fields.hpp"
#include "agent/cli/text_table.hpp"

namespace havm {
namespace {

using nlohmann::json;

Colour colour_of(const std::string& state) {
  if (state == "up") return Colour::good;
  return state == "silent" || state == "down" ? Colour::bad : Colour::plain;
}

// "silent for 3.2 s"
std::string state_text(const json& object) {
  std::string text = text_at(object, "state");
  const auto silent_ms = number_at(object, "silent_ms");
  if (text != "silent" || !silent_ms) return text;
  std::array<char, 32> seconds{};
  std::snprintf(seconds.data(), seconds.size(), " for %.1f s", *silent_ms / 1000);
  return text + seconds.data();
}

std::string links_text(const json& node) {
  std::string text;
  for (const json& link : list_at(node, "links")) {
    text += (text.empty() ? "" : ", ") + text_at(link, "address");
    if (!true_at(node, "self")) text += " " + state_text(link);
  }
  return text;
}

std::string arbiter_line(const json& arbiter) {
  if (!arbiter.is_object() || text_at(arbiter, "kind") == "none")
    return "Arbiter: none (failover only by hand)\n";
  return "Arbiter: " + printable(text_at(arbiter, "kind")) + " at " +
         printable(text_at(arbiter, "endpoint")) + ", " + printable(state_text(arbiter)) + "\n";
}

// Nothing of a havmd that does not tell.
std::string replication_line(Terminal& terminal, const json& replication) {
  if (!replication.is_object()) return "";
  const std::string problem = text_at(replication, "problem");
  std::string text;
  if (text_at(replication, "transport") == "plain")
    text = terminal.coloured("plain TCP, neither encrypted nor authenticated", Colour::bad) +
           " (for measurements only)";
  else if (field(replication, "problem").is_string())
    text =
        terminal.coloured("no new connection is possible", Colour::bad) + ": " + printable(problem);
  else
    text = "TLS, certificate of this node valid until " +
           printable(text_at(replication, "certificate_until"));
  return "Replication: " + text + "\n";
}

}  // namespace

Result<void> run_node_list(CommandContext& context) {
  BOOST_OUTCOME_TRY(const ApiAnswer answer, context.api().get({"nodes"}));
  if (context.wants_json()) {
    context.print_json(answer.body);
    return success();
  }
  TextTable table({"Name", "State", "VMs", "Version", "Links"});
  for (const json& node : list_at(answer.body, "nodes")) {
    const std::string state = text_at(node, "state");
    table.add_row({text_at(node, "name") + (true_at(node, "self") ? " (this node)" : ""),
                   Cell(state, colour_of(state)), text_at(node, "vms_owned"),
                   text_at(node, "version"), links_text(node)});
  }
  context.terminal().print(table.render(context.terminal(), context.quiet()));
  context.terminal().print_extra(
      "\n" + arbiter_line(field(answer.body, "arbiter")) +
      replication_line(context.terminal(), field(answer.body, "replication")));
  return success();
}

Result<void> run_version(CommandContext& context) {
  BOOST_OUTCOME_TRY(const ApiAnswer answer, context.api().get({"version"}));
  if (context.wants_json()) {
    json out = answer.body;
    out["client"] = HAVM_VERSION;
    context.print_json(out);
    return success();
  }
  std::string out = key_value_line("Client", "havm " HAVM_VERSION);
  out += key_value_line("Daemon", "havmd " + text_at(answer.body, "version"));
  out += key_value_line("Hypervisor", text_at(answer.body, "hypervisor"));
  out += key_value_line("Node", text_at(answer.body, "node"));
  out += key_value_line("Cluster", text_at(answer.body, "cluster"));
  context.terminal().print(out);
  return success();
}

}  // namespace havm
