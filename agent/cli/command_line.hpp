// The job of these functions: understand the command line as virsh would, with virsh's words for
// what is wrong.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "agent/cli/command_table.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

struct GlobalOptions {
  std::string socket = "/run/havm/havmd.sock";  // -c, else $HAVM_SOCKET
  bool quiet = false;
  bool json = false;
  bool version = false;
  bool help = false;
  std::vector<std::string> rest;  // the command and its arguments
};

// `arguments` without the program's name.
Result<GlobalOptions> parse_global_options(const std::vector<std::string>& arguments);

// What was given to a command, by the names of its options. A flag that was given has the value "".
using ParsedOptions = std::map<std::string, std::string>;

// `arguments` without the command's name. "--help" is always allowed and silences every complaint.
Result<ParsedOptions> parse_command_options(const Command& command,
                                            const std::vector<std::string>& arguments);

}  // namespace havm
