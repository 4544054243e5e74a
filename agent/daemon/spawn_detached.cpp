#include "agent/daemon/spawn_detached.hpp"

#include <cerrno>
#include <csignal>

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

// Runs in a forked child of a process with threads: async-signal-safe calls only.
[[noreturn]] void become(char* const* argv, int log, int report) {
  ::setsid();
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  const int null = ::open("/dev/null", O_RDONLY);
  ::dup2(null, 0);
  ::dup2(log, 1);
  ::dup2(log, 2);
  // Asio's sockets are not close-on-exec: an engine that kept one would hold havmd's ports for
  // ever.
  ::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
  if (::fork() != 0) ::_exit(0);
  ::execv(argv[0], argv);
  const int error = errno;
  [[maybe_unused]] const ssize_t n = ::write(report, &error, sizeof error);
  ::_exit(127);
}

}  // namespace

Result<void> spawn_detached(const std::vector<std::string>& arguments,
                            const std::string& log_path) {
  HAVM_ASSERT(!arguments.empty(), "a program to start");
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& a : arguments)
    argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);

  const UniqueFd log(::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640));
  if (!log.valid()) return errno_error("cannot open log " + log_path, errno);
  int pipe_ends[2];
  if (::pipe2(pipe_ends, O_CLOEXEC) != 0) return errno_error("cannot create a pipe", errno);
  const UniqueFd report_in(pipe_ends[0]);
  UniqueFd report_out(pipe_ends[1]);

  const pid_t child = ::fork();
  if (child < 0) return errno_error("cannot start " + arguments[0], errno);
  if (child == 0) become(argv.data(), log.get(), report_out.get());
  report_out.reset();
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  int error = 0;
  ssize_t n = 0;
  do {
    n = ::read(report_in.get(), &error, sizeof error);
  } while (n < 0 && errno == EINTR);
  if (n == sizeof error) return errno_error("cannot start " + arguments[0], error);
  return success();
}

}  // namespace havm
