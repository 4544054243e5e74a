#include "vmrepl/base/assert.hpp"

#include <cstdio>
#include <cstdlib>

namespace havm {

void assertion_failed(const char* condition, const char* message, const char* file, int line) {
  std::fprintf(stderr, "havm: assertion failed: %s: %s (%s:%d)\n", message, condition, file, line);
  std::abort();
}

}  // namespace havm
