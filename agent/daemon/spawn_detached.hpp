// The job of spawn_detached: start a program that outlives this process (the engines and the guard
// go on when havmd stops, crashes or is upgraded). It becomes a child of init, in a session of its
// own, and inherits no descriptor but standard input (/dev/null), output and error (the log).
#pragma once

#include <string>
#include <vector>

#include "vmrepl/base/result.hpp"

namespace havm {

// argv[0] is the path of the program. Standard output and error are appended to `log_path`. Returns
// when the program was executed; the Error says why it could not be.
Result<void> spawn_detached(const std::vector<std::string>& argv, const std::string& log_path);

}  // namespace havm
