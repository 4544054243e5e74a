// The job of ChildProcess: one program under test, started with its stderr in a file, killed and
// reaped at the end of the test whatever happens (also when the test itself dies). One thread.
#pragma once

#include <chrono>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace havm {

// Polls until `done` is true; false when that did not happen within a deadline that is generous
// enough for a loaded machine.
template <class Done>
bool eventually(Done done) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!done()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

class ChildProcess {
 public:
  ChildProcess(std::vector<std::string> argv, std::string stderr_path)
      : stderr_path_(std::move(stderr_path)) {
    std::vector<char*> pointers;
    for (std::string& argument : argv)
      pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    const int log = ::open(stderr_path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::dup2(log, STDERR_FILENO);
      ::execv(pointers[0], pointers.data());
      ::_exit(127);
    }
    ::close(log);
  }
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess() {
    if (reaped_) return;
    signal(SIGKILL);
    wait();
  }

  [[nodiscard]] int pid() const { return pid_; }
  void signal(int number) const { ::kill(pid_, number); }
  // The status of waitpid; blocks until the process ended.
  int wait() {
    if (!reaped_) ::waitpid(pid_, &status_, 0);
    reaped_ = true;
    return status_;
  }
  [[nodiscard]] bool ended() {
    if (!reaped_) reaped_ = ::waitpid(pid_, &status_, WNOHANG) == pid_;
    return reaped_;
  }
  [[nodiscard]] std::string log() const {
    std::ifstream file(stderr_path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  std::string stderr_path_;
  int pid_ = -1;
  int status_ = 0;
  bool reaped_ = false;
};

}  // namespace havm
