// The job of GuardClient: send one command to havm-guard (docs/protocol/guard.md) and wait for its
// answer. Blocking, for at most the deadline; a local guard answers within a millisecond, commands
// that wait for a confirmation (stop, kill, watch) within 0.3 T. Reconnects by itself. One thread
// at a time.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "vmrepl/base/result.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {

class GuardClient {
 public:
  explicit GuardClient(std::string socket_path,
                       std::chrono::milliseconds deadline = std::chrono::milliseconds(200));

  // The words after "ok" ("" when there are none). An answer "error …" is an Error with code
  // EINVAL; no answer is ETIMEDOUT; no guard is ENOENT or ECONNREFUSED. After a timeout the outcome
  // is unknown: every command may be repeated.
  Result<std::string> command(const std::string& text);
  Result<std::string> command(const std::string& text, std::chrono::milliseconds deadline);

  // The lines of `status`.
  Result<std::vector<std::string>> status();

 private:
  Result<void> connect();
  Result<std::string> exchange(const std::string& text, std::chrono::milliseconds deadline);
  Result<std::string> receive(std::chrono::steady_clock::time_point until);

  std::string path_;
  std::chrono::milliseconds deadline_;
  UniqueFd fd_;
};

}  // namespace havm
