// The job of run_havm: run the real program as a user does and take everything it says.
#pragma once

#include <string>
#include <vector>

#include "tests/unit/agent/cli/fake_havmd.hpp"

namespace havm {

struct Outcome {
  int exit_status = -1;  // -1: ended by a signal
  std::string out;
  std::string err;
};

// Without a terminal. `environment` replaces the whole one.
Outcome run_program(const std::vector<std::string>& arguments, const std::string& folder,
                    std::vector<std::string> environment = {});

// `havm -c <socket of havmd> …`
Outcome run_havm(const FakeHavmd& havmd, std::vector<std::string> arguments);

// The same on a terminal of its own, which is all three standard streams; `typed` is typed at once.
Outcome run_havm_on_terminal(const FakeHavmd& havmd, std::vector<std::string> arguments,
                             const std::string& typed,
                             std::vector<std::string> environment = {"TERM=xterm"});

}  // namespace havm
