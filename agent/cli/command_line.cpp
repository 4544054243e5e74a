#include "agent/cli/command_line.hpp"

#include <algorithm>
#include <cstdlib>
#include <list>

#include <CLI/CLI.hpp>

namespace havm {
namespace {

// CLI11 takes arguments in reverse order.
std::vector<std::string> reversed(std::vector<std::string> arguments) {
  std::reverse(arguments.begin(), arguments.end());
  return arguments;
}

bool looks_like_option(const std::string& word) {
  return word.size() > 1 && word[0] == '-';
}

// What CLI11 writes to for one option.
struct Slot {
  const OptionSpec* spec = nullptr;
  std::string value;
  CLI::Option* option = nullptr;
};

void add_slot(CLI::App& app, Slot& slot) {
  const std::string dashed = "--" + slot.spec->name;
  if (slot.spec->value.empty()) {
    slot.option = app.add_flag(dashed);
    return;
  }
  const std::string name = slot.spec->positional ? slot.spec->name + "," + dashed : dashed;
  slot.option = app.add_option(name, slot.value);
}

// What CLI11 would say in words of its own: an option given twice, or without its value ("--peer"
// as the last word, or followed by another option). "" when all is well.
std::string find_misuse(const Command& command, const std::vector<std::string>& arguments) {
  for (const OptionSpec& spec : command.options) {
    const std::string dashed = "--" + spec.name;
    int seen = 0;
    for (std::size_t i = 0; i < arguments.size() && arguments[i] != "--"; ++i) {
      if (arguments[i] != dashed && !arguments[i].starts_with(dashed + "=")) continue;
      if (++seen > 1) return "option --" + spec.name + " already seen";
      const bool apart = arguments[i] == dashed;
      if (spec.value.empty() || (!apart && arguments[i] != dashed + "=")) continue;
      if (!apart || i + 1 == arguments.size() || looks_like_option(arguments[i + 1]))
        return "expected syntax: --" + spec.name + " <" + spec.value + ">";
    }
  }
  return "";
}

Result<ParsedOptions> collect(const Command& command, const CLI::App& app,
                              const std::list<Slot>& slots) {
  const std::vector<std::string> rest = app.remaining();
  for (const std::string& word : rest)
    if (looks_like_option(word))
      return Error("command '" + command.name + "' doesn't support option " +
                   word.substr(0, word.find('=')));
  if (!rest.empty()) return Error("unexpected data '" + rest[0] + "'");
  ParsedOptions parsed;
  for (const Slot& slot : slots) {
    if (slot.option->count() > 0)
      parsed[slot.spec->name] = slot.value;
    else if (slot.spec->required)
      return Error("command '" + command.name + "' requires " +
                   (slot.spec->positional ? "<" + slot.spec->name + ">" : "--" + slot.spec->name) +
                   " option");
  }
  return parsed;
}

}  // namespace

Result<GlobalOptions> parse_global_options(const std::vector<std::string>& arguments) {
  GlobalOptions options;
  if (const char* socket = std::getenv("HAVM_SOCKET"); socket != nullptr && *socket != '\0')
    options.socket = socket;
  CLI::App app;
  app.set_help_flag("");
  app.prefix_command();  // options behind the command are the command's
  app.add_option("-c,--connect", options.socket);
  app.add_flag("-q,--quiet", options.quiet);
  app.add_flag("--json", options.json);
  app.add_flag("-v,--version", options.version);
  app.add_flag("-h,--help", options.help);
  try {
    app.parse(reversed(arguments));
  } catch (const CLI::ArgumentMismatch&) {
    return Error("option '-c'/'--connect' requires an argument");
  } catch (const CLI::ParseError& error) {
    return Error(error.what());
  }
  options.rest = app.remaining();
  if (!options.rest.empty() && looks_like_option(options.rest[0]))
    return Error("unsupported option '" + options.rest[0] + "'. See --help.");
  return options;
}

Result<ParsedOptions> parse_command_options(const Command& command,
                                            const std::vector<std::string>& arguments) {
  for (const std::string& word : arguments) {
    if (word == "--") break;
    if (word == "--help") return ParsedOptions{{"help", ""}};
  }
  const std::string misuse = find_misuse(command, arguments);
  if (!misuse.empty()) return Error(misuse);
  CLI::App app;
  app.set_help_flag("");
  app.allow_extras();
  std::list<Slot> slots;
  for (const OptionSpec& spec : command.options) {
    Slot& slot = slots.emplace_back();
    slot.spec = &spec;
    add_slot(app, slot);
  }
  try {
    app.parse(reversed(arguments));
  } catch (const CLI::ParseError& error) {
    return Error(error.what());
  }
  return collect(command, app, slots);
}

}  // namespace havm
