#include "vmrepl/base/assert.hpp"

#include <cstdio>
#include <cstdlib>

namespace havm {

void assertion_failed(const char* condition, const char* message,
                      const std::source_location& place) {
  std::fprintf(stderr, "havm: assertion failed: %s: %s (%s:%u)\n", message, condition,
               place.file_name(), place.line());
  std::abort();
}

}  // namespace havm
