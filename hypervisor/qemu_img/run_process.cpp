#include "hypervisor/qemu_img/run_process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/unique_fd.hpp"

extern char** environ;

namespace havm {
namespace {

using Clock = std::chrono::steady_clock;

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

Result<Pipe> make_pipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return errno_error("cannot make a pipe", errno);
  Pipe made;
  made.read_end.reset(fds[0]);
  made.write_end.reset(fds[1]);
  // Only our end is non-blocking: the flag belongs to the open file, not shared between the two
  // ends.
  ::fcntl(fds[0], F_SETFL, O_NONBLOCK);
  return made;
}

// glibc 2.36 declares pidfd_open() without extern "C", so that C++ cannot link it.
int open_pidfd(pid_t pid) {
  return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}

// posix_spawn's settings; the destructor frees them.
struct SpawnSettings {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;

  SpawnSettings() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }

  void prepare(int out, int err) {
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }
};

// Our environment with LC_ALL=C, so that messages are in one language.
std::vector<std::string> child_environment() {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!text.starts_with("LC_ALL=") && !text.starts_with("LANGUAGE=")) result.push_back(text);
  }
  result.emplace_back("LC_ALL=C");
  return result;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts)
    result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

Result<pid_t> spawn(const std::vector<std::string>& argv, int out, int err) {
  std::vector<std::string> arguments = argv;
  std::vector<std::string> environment = child_environment();
  const std::vector<char*> argument_pointers = pointers_to(arguments);
  const std::vector<char*> environment_pointers = pointers_to(environment);
  SpawnSettings settings;
  settings.prepare(out, err);
  pid_t pid = -1;
  const int failed = ::posix_spawnp(&pid, argv[0].c_str(), &settings.actions, &settings.attributes,
                                    argument_pointers.data(), environment_pointers.data());
  if (failed != 0) return errno_error("cannot run " + argv[0], failed);
  return pid;
}

// One of the two output streams of the child.
struct Capture {
  UniqueFd fd;
  std::string* text;
  bool* truncated;
  std::size_t max_bytes;

  // Reads what is there; closes at the end of the stream.
  void drain() {
    std::array<char, 65536> chunk;
    while (fd.valid()) {
      const ssize_t n = ::read(fd.get(), chunk.data(), chunk.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n <= 0) return fd.reset();
      const std::size_t got = static_cast<std::size_t>(n);
      const std::size_t kept = std::min(got, max_bytes - text->size());
      text->append(chunk.data(), kept);
      if (kept < got) *truncated = true;
    }
  }
};

// Reads both streams until the child has ended (true) or `until` has passed (false).
bool wait_for_end(int pidfd, std::array<Capture*, 2> captures, Clock::time_point until) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return false;
    std::array<pollfd, 3> polled{pollfd{pidfd, POLLIN, 0}, pollfd{captures[0]->fd.get(), POLLIN, 0},
                                 pollfd{captures[1]->fd.get(), POLLIN, 0}};
    const int timeout_ms = static_cast<int>(std::min<long long>(left, 60'000));
    if (::poll(polled.data(), polled.size(), timeout_ms) < 0 && errno != EINTR) return false;
    for (Capture* capture : captures)
      capture->drain();
    if ((polled[0].revents & POLLIN) != 0) return true;
  }
}

void reap(pid_t pid, ProcessOutcome& outcome) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR)
    continue;
  if (WIFEXITED(status)) outcome.exit_status = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
}

}  // namespace

Result<ProcessOutcome> run_process(const std::vector<std::string>& argv,
                                   const ProcessLimits& limits) {
  HAVM_ASSERT(!argv.empty() && !argv[0].empty(), "a program must be named");
  BOOST_OUTCOME_TRY(Pipe out, make_pipe());
  BOOST_OUTCOME_TRY(Pipe err, make_pipe());
  const Clock::time_point until = Clock::now() + limits.deadline;
  BOOST_OUTCOME_TRY(const pid_t pid, spawn(argv, out.write_end.get(), err.write_end.get()));
  out.write_end.reset();
  err.write_end.reset();

  ProcessOutcome outcome;
  Capture out_capture{std::move(out.read_end), &outcome.out, &outcome.out_truncated,
                      limits.stdout_max_bytes};
  Capture err_capture{std::move(err.read_end), &outcome.err, &outcome.err_truncated,
                      limits.stderr_max_bytes};
  const std::array<Capture*, 2> captures{&out_capture, &err_capture};
  // Not reaped yet, so the id cannot belong to anybody else.
  const UniqueFd pidfd(open_pidfd(pid));
  const int pidfd_errno = errno;
  const bool ended = pidfd.valid() && wait_for_end(pidfd.get(), captures, until);
  if (!ended) {
    ::kill(-pid, SIGKILL);
    if (!pidfd.valid() || wait_for_end(pidfd.get(), captures, Clock::now() + kill_grace))
      reap(pid, outcome);
    else  // stuck in the kernel: somebody has to wait for it, but not the caller
      std::thread([pid] { ::waitpid(pid, nullptr, 0); }).detach();
    if (!pidfd.valid()) return errno_error("cannot watch " + argv[0], pidfd_errno);
    return Error(argv[0] + " was killed: it had not ended after " +
                     std::to_string(limits.deadline.count()) + " ms",
                 ETIMEDOUT);
  }
  for (Capture* capture : captures)
    capture->drain();
  reap(pid, outcome);
  return outcome;
}

}  // namespace havm
