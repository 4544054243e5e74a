#include "vmrepl/base/clock.hpp"

#include <time.h>

#include "vmrepl/base/assert.hpp"

namespace havm {

BootClock::time_point BootClock::now() {
  timespec ts{};
  HAVM_ASSERT(clock_gettime(CLOCK_BOOTTIME, &ts) == 0, "CLOCK_BOOTTIME must exist");
  return time_point(std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec));
}

}  // namespace havm
