// The job of GuardProcess: signal and observe exactly one process, never another one that got its
// number.
#pragma once

#include <cstdint>

#include "vmrepl/base/result.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {

class GuardProcess {
 public:
  enum class Seen { Running, Stopped, Gone };

  // Error when `pid` is not a process that started at `start_ticks` (field 22 of /proc/PID/stat).
  static Result<GuardProcess> open(int pid, std::uint64_t start_ticks);

  [[nodiscard]] bool gone() const;
  // Stopped: every thread of it was seen stopped. Reads /proc, once per thread.
  [[nodiscard]] Seen look() const;
  // False when it could not be sent (the process is gone, or not permitted); errno is set.
  [[nodiscard]] bool signal(int number) const;
  [[nodiscard]] int pid() const { return pid_; }
  [[nodiscard]] std::uint64_t start_ticks() const { return start_ticks_; }

 private:
  int pid_ = 0;
  std::uint64_t start_ticks_ = 0;
  UniqueFd pidfd_;
};

}  // namespace havm
