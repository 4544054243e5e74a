// The job of Nbdkit: one nbdkit process on a unix socket, whose filters inject faults under a disk.
// Blocking; everything has a time limit. It ends with this object, and with the test's process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <sys/types.h>

namespace havm {

class Nbdkit {
 public:
  // Serves what `arguments` say: filters, a plugin, its parameters.
  explicit Nbdkit(std::vector<std::string> arguments);
  ~Nbdkit();
  Nbdkit(const Nbdkit&) = delete;
  Nbdkit& operator=(const Nbdkit&) = delete;

  [[nodiscard]] std::string uri() const;
  [[nodiscard]] const std::string& socket() const { return socket_; }

  // SIGKILL, and waits for the end.
  void kill();
  // After kill().
  void start();
  // SIGSTOP and SIGCONT: alive, and silent.
  void freeze();
  void thaw();

 private:
  std::string directory_;  // its own, with a short name: socket paths are limited
  std::string socket_;
  std::string log_;
  std::vector<std::string> arguments_;
  pid_t pid_ = -1;
};

// Parameters of nbdkit's eval plugin for a disk in `file`, of this size, whose flush fails with EIO
// while `fault` exists. (The error filter cannot do that.)
std::vector<std::string> eval_with_flush_fault(const std::string& file, std::uint64_t size_bytes,
                                               const std::string& fault);

}  // namespace havm
