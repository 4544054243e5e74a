// The job of run_process(): run one program with an argument vector (never a shell), wait for it
// with a deadline and return what it said. Blocking; any thread.
//
// Guarantees
//  1. The call returns at most `kill_grace` after the deadline, also when the program cannot be
//  killed
//     (stuck in the kernel) or left children behind that keep its output open.
//  2. The program gets /dev/null as input, none of our other descriptors, LC_ALL=C, default signal
//     dispositions and a process group of its own, which is killed as a whole.
//  3. No zombie stays behind.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "vmrepl/base/result.hpp"

namespace havm {

struct ProcessLimits {
  std::chrono::milliseconds deadline{60'000};
  // What is printed beyond these is read and thrown away.
  std::size_t stdout_max_bytes = std::size_t{8} << 20;
  std::size_t stderr_max_bytes = std::size_t{64} << 10;
};

struct ProcessOutcome {
  int exit_status = -1;  // -1 when it was ended by a signal
  int signal = 0;
  std::string out;
  std::string err;
  bool out_truncated = false;
  bool err_truncated = false;
};

constexpr std::chrono::milliseconds kill_grace{5'000};

// argv[0] is looked up in PATH. An Error means that the program did not run to its end: it could
// not be started (code = errno), or it was killed at the deadline (code = ETIMEDOUT).
Result<ProcessOutcome> run_process(const std::vector<std::string>& argv,
                                   const ProcessLimits& limits = {});

}  // namespace havm
