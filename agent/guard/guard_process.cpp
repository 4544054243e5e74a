#include "agent/guard/guard_process.hpp"

#include <cerrno>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>

namespace havm {
namespace {

// What follows "PID (name) " in a stat file; empty when it cannot be read. The name may contain
// ')'.
std::string read_stat(int directory, const std::string& path) {
  const UniqueFd fd(::openat(directory, path.c_str(), O_RDONLY | O_CLOEXEC));
  char text[1024];
  const ssize_t n = fd.valid() ? ::read(fd.get(), text, sizeof text) : 0;
  const std::string all(text, n > 0 ? static_cast<std::size_t>(n) : 0);
  const std::size_t end = all.rfind(") ");
  return end == std::string::npos ? "" : all.substr(end + 2);
}

std::uint64_t start_ticks_of(int pid) {
  std::istringstream fields(read_stat(AT_FDCWD, "/proc/" + std::to_string(pid) + "/stat"));
  std::string skipped;
  for (int field = 3; field < 22; ++field)
    fields >> skipped;
  std::uint64_t ticks = 0;
  fields >> ticks;
  return ticks;
}

}  // namespace

Result<GuardProcess> GuardProcess::open(int pid, std::uint64_t start_ticks) {
  GuardProcess process;
  process.pid_ = pid;
  process.start_ticks_ = start_ticks;
  process.pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process.pidfd_.valid()) return errno_error("process " + std::to_string(pid), errno);
  if (start_ticks_of(pid) != start_ticks)
    return Error("process " + std::to_string(pid) + " did not start at that time", ESRCH);
  return process;
}

bool GuardProcess::gone() const {
  pollfd event{pidfd_.get(), POLLIN, 0};
  return ::poll(&event, 1, 0) == 1;
}

// A new thread cannot slip by: once one thread is stopped, fork and clone of the others fail.
GuardProcess::Seen GuardProcess::look() const {
  const std::string path = "/proc/" + std::to_string(pid_) + "/task";
  const std::unique_ptr<DIR, int (*)(DIR*)> tasks(::opendir(path.c_str()), ::closedir);
  bool stopped = tasks != nullptr;
  while (const dirent* entry = stopped ? ::readdir(tasks.get()) : nullptr) {
    if (entry->d_name[0] == '.') continue;
    const std::string stat = read_stat(::dirfd(tasks.get()), std::string(entry->d_name) + "/stat");
    stopped = stat.empty() || std::strchr("TtZX", stat[0]) != nullptr;  // empty: the thread ended
  }
  if (gone())
    return Seen::Gone;  // asked last: the number may have gone to another process meanwhile
  return stopped ? Seen::Stopped : Seen::Running;
}

bool GuardProcess::signal(int number) const {
  return ::syscall(SYS_pidfd_send_signal, pidfd_.get(), number, nullptr, 0) == 0;
}

}  // namespace havm
