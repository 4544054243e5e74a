// help: of everything, of one group, of one command.
#include <algorithm>

#include "agent/cli/command_context.hpp"
#include "agent/cli/command_table.hpp"
#include "agent/cli/help_text.hpp"

namespace havm {
namespace {

std::string padded(std::string text, std::size_t wide) {
  if (text.size() < wide) text.append(wide - text.size(), ' ');
  return text;
}

std::string option_usage(const OptionSpec& option) {
  if (option.positional)
    return option.required ? "<" + option.name + ">" : "[<" + option.name + ">]";
  const std::string text =
      "--" + option.name + (option.value.empty() ? "" : " <" + option.value + ">");
  return option.required ? text : "[" + text + "]";
}

std::string option_label(const OptionSpec& option) {
  if (option.positional) return "[--" + option.name + "] <" + option.value + ">";
  return "--" + option.name + (option.value.empty() ? "" : " <" + option.value + ">");
}

}  // namespace

std::string command_help(const Command& command) {
  std::string out = "  NAME\n    " + command.name + " - " + command.summary + "\n\n";
  out += "  SYNOPSIS\n    " + command.name;
  for (const OptionSpec& option : command.options)
    out += " " + option_usage(option);
  out += "\n\n  DESCRIPTION\n    " + command.description + "\n\n";
  if (command.options.empty()) return out;
  out += "  OPTIONS\n";
  for (const OptionSpec& option : command.options)
    out += "    " + padded(option_label(option), 15) + "  " + option.help + "\n";
  return out + "\n";
}

std::string commands_text(const std::string& group) {
  std::string out;
  for (const CommandGroup& each : command_groups()) {
    if (!group.empty() && each.key != group) continue;
    out += " " + each.title + " (help keyword '" + each.key + "'):\n";
    for (const Command& command : command_table())
      if (command.group == each.key)
        out += "    " + padded(command.name, 30) + " " + command.summary + "\n";
    out += "\n";
  }
  return out;
}

std::string usage_text() {
  return "\nhavm [options]... <command> [args...]\n\n"
         "  options:\n"
         "    -c | --connect=SOCKET   socket of havmd (default $HAVM_SOCKET or "
         "/run/havm/havmd.sock)\n"
         "    -h | --help             this help\n"
         "    -q | --quiet            quiet mode\n"
         "         --json             print JSON, for programs\n"
         "    -v | --version          version\n"
         "  commands:\n\n" +
         commands_text("") +
         "  (specify help <group> for details about the commands in the group)\n\n"
         "  (specify help <command> for details about the command)\n\n";
}

Result<void> run_help(CommandContext& context) {
  const std::string name = context.get("command");
  if (name.empty()) {
    context.terminal().print("Grouped commands:\n\n" + commands_text(""));
    return success();
  }
  if (const Command* command = find_command(name)) {
    context.terminal().print(command_help(*command));
    return success();
  }
  const auto& groups = command_groups();
  if (std::any_of(groups.begin(), groups.end(),
                  [&name](const CommandGroup& group) { return group.key == name; })) {
    context.terminal().print(commands_text(name));
    return success();
  }
  return Error("command or command group '" + name + "' doesn't exist");
}

}  // namespace havm
