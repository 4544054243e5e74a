// The job of HAVM_ASSERT: stop the process when the program is wrong (a bug), in every build type.
// High availability survives a stopped process; it does not survive a process that goes on with a
// broken invariant. Expected failures are not bugs: they are a Result (see result.hpp).
#pragma once

namespace havm {

// Prints condition, message and place on stderr, then aborts. Never returns.
[[noreturn]] void assertion_failed(const char* condition, const char* message, const char* file,
                                   int line);

}  // namespace havm

#define HAVM_ASSERT(condition, message)                                  \
  do {                                                                   \
    if (!(condition)) [[unlikely]]                                       \
      ::havm::assertion_failed(#condition, message, __FILE__, __LINE__); \
  } while (false)
