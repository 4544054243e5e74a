// havm: the command line of an administrator; all it does is ask havmd (docs/protocol/api.md).
#include <clocale>
#include <cstdio>
#include <exception>

#include "agent/cli/command_context.hpp"
#include "agent/cli/command_table.hpp"
#include "agent/cli/help_text.hpp"
#include "agent/policy/nearest_word.hpp"

namespace havm {
namespace {

Error unknown_command(const std::string& name) {
  std::string text = "unknown command: '" + name + "'";
  std::vector<std::string> names;
  for (const Command& command : command_table())
    names.push_back(command.name);
  const std::string nearest = nearest_word(name, names);
  if (!nearest.empty()) text += "\ndid you mean '" + nearest + "'?";
  return Error(text);
}

// virsh ends whatever a command has printed with an empty line, also when it failed.
Result<void> run_command(const Command& command, const GlobalOptions& global, ParsedOptions options,
                         Terminal& terminal) {
  if (options.contains("help")) {
    terminal.print(command_help(command));
    terminal.print_extra("\n");
    return success();
  }
  CommandContext context(global, std::move(options), terminal);
  auto result = command.run(context);
  if (!context.wants_json()) terminal.print_extra("\n");
  return result;
}

Result<void> run(const std::vector<std::string>& arguments, Terminal& terminal) {
  BOOST_OUTCOME_TRY(const GlobalOptions global, parse_global_options(arguments));
  terminal.quiet = global.quiet;
  if (global.version) {
    terminal.print(HAVM_VERSION "\n");
    return success();
  }
  if (global.help || global.rest.empty()) {
    terminal.print(usage_text());
    return success();
  }
  const Command* command = find_command(global.rest[0]);
  if (command == nullptr) return unknown_command(global.rest[0]);
  BOOST_OUTCOME_TRY(ParsedOptions options,
                    parse_command_options(*command, {global.rest.begin() + 1, global.rest.end()}));
  return run_command(*command, global, std::move(options), terminal);
}

}  // namespace
}  // namespace havm

int main(int argc, char** argv) {
  if (std::setlocale(LC_CTYPE, "") == nullptr || MB_CUR_MAX == 1)
    std::setlocale(LC_CTYPE, "C.UTF-8");  // the width of characters must be known
  havm::Terminal terminal;
  try {
    const auto result = havm::run({argv + 1, argv + argc}, terminal);
    if (!result) terminal.print_error(result.error());
    if (terminal.flush()) return result ? 0 : 1;
    std::fprintf(stderr, "error: cannot write to standard output\n");
  } catch (const std::exception& failure) {
    terminal.print_error(havm::Error(failure.what()));
  }
  return 1;
}
