// The job of these functions: help in virsh's form, from the command table. Pure.
#pragma once

#include <string>

#include "agent/cli/command_table.hpp"

namespace havm {

std::string usage_text();                             // havm --help
std::string commands_text(const std::string& group);  // the commands of a group, all when ""
std::string command_help(const Command& command);

}  // namespace havm
