// The job of the command table: everything havm can do, as data. Parsing, `help`, and the check
// that man page and completion name every command read it; a new command is a row here and a
// function in a cmd_*.cpp.
#pragma once

#include <string>
#include <vector>

#include "vmrepl/base/result.hpp"

namespace havm {

class CommandContext;

// An option "--name VALUE" or, without `value`, a flag. A positional one is given by place or by
// name.
struct OptionSpec {
  std::string name;
  std::string value;  // "" = flag; else the word for its value in help: "string", "file", "number"
  std::string help;
  bool positional = false;
  bool required = false;
};

struct Command {
  std::string name;
  std::string group;    // key of command_groups()
  std::string summary;  // one line in the list of commands
  std::string description;
  std::vector<OptionSpec> options;  // in the order of the synopsis
  // An Error's lines are printed as "error: …" each.
  Result<void> (*run)(CommandContext&);
};

struct CommandGroup {
  std::string key;
  std::string title;
};

const std::vector<CommandGroup>& command_groups();
const std::vector<Command>& command_table();
// Null when there is none.
const Command* find_command(const std::string& name);

// One function for each command, by noun: cmd_domain.cpp, cmd_protection.cpp, cmd_lifecycle.cpp,
// cmd_resync.cpp, cmd_verify.cpp, cmd_wait.cpp, cmd_node.cpp, cmd_certificates.cpp, cmd_files.cpp,
// cmd_help.cpp.
Result<void> run_list(CommandContext& context);
Result<void> run_dominfo(CommandContext& context);
Result<void> run_domstate(CommandContext& context);
Result<void> run_explain(CommandContext& context);
Result<void> run_protect(CommandContext& context);
Result<void> run_unprotect(CommandContext& context);
Result<void> run_start(CommandContext& context);
Result<void> run_shutdown(CommandContext& context);
Result<void> run_destroy(CommandContext& context);
Result<void> run_failover(CommandContext& context);
Result<void> run_resync_pause(CommandContext& context);
Result<void> run_resync_resume(CommandContext& context);
Result<void> run_snapshot_list(CommandContext& context);
Result<void> run_wait(CommandContext& context);
Result<void> run_resync_verify(CommandContext& context);
Result<void> run_node_list(CommandContext& context);
Result<void> run_version(CommandContext& context);
Result<void> run_cluster_init(CommandContext& context);
Result<void> run_node_join(CommandContext& context);
Result<void> run_certificate_info(CommandContext& context);
Result<void> run_cluster_validate(CommandContext& context);
Result<void> run_policy_validate(CommandContext& context);
Result<void> run_help(CommandContext& context);

}  // namespace havm
