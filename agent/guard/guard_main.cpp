// havm-guard: pauses a VM whose lease was not renewed. See docs/protocol/guard.md and
// guard_core.hpp.
#include <cstdio>
#include <cstring>

#include <CLI/CLI.hpp>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#include "agent/guard/guard_server.hpp"

namespace havm {
namespace {

// Replaces the file of a dead guard; two live guards would each hold half of the deadlines.
Result<UniqueFd> listen_on(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return Error("the path " + path + " is too long");
  std::memcpy(address.sun_path, path.data(), path.size());
  const auto* raw = static_cast<const sockaddr*>(static_cast<const void*>(&address));
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const UniqueFd probe(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (::connect(probe.get(), raw, sizeof address) == 0 || errno == EAGAIN)
    return Error(path + " is in use: another havm-guard is running; stop it first", EADDRINUSE);
  if (errno == ECONNREFUSED) ::unlink(path.c_str());
  if (::fchmod(fd.get(), 0600) != 0 || ::bind(fd.get(), raw, sizeof address) != 0 ||
      ::listen(fd.get(), 128) != 0)
    return errno_error("cannot listen on " + path, errno);
  return fd;
}

// Deadlines are kept better so, but a guard without them is far better than none.
void become_prompt() {
  const sched_param lowest{::sched_get_priority_min(SCHED_FIFO)};
  const bool locked = ::mlockall(MCL_CURRENT | MCL_FUTURE) == 0;
  const bool real_time = ::sched_setscheduler(0, SCHED_FIFO, &lowest) == 0;
  if (!locked || !real_time)
    guard_log(
        "runs without locked memory or real-time priority (not permitted): a loaded host may "
        "delay a pause");
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &files);
  }
}

int run_guard(const std::string& path, std::chrono::milliseconds lease) {
  auto listener = listen_on(path);
  if (!listener) {
    std::fprintf(stderr, "havm-guard: %s\n", listener.error().message.c_str());
    return 1;
  }
  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  sigprocmask(SIG_BLOCK, &ending, nullptr);
  UniqueFd signals(::signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK));
  UniqueFd timer(::timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!signals.valid() || !timer.valid()) {
    std::perror("havm-guard: cannot create its timer");
    return 1;
  }
  become_prompt();
  guard_log("ready, lease " + std::to_string(lease.count()) + " ms");
  GuardServer(std::move(listener.value()), std::move(timer), std::move(signals), {lease}).run();
  ::unlink(path.c_str());
  return 0;
}

}  // namespace
}  // namespace havm

int main(int argc, char** argv) {
  CLI::App app("Pauses VMs whose lease was not renewed", "havm-guard");
  std::string path = "/run/havm/guard.sock";
  long lease_ms = 6000;
  app.add_option("--socket", path, "Unix socket to listen on")->capture_default_str();
  app.add_option("--lease-ms", lease_ms, "The lease T, in milliseconds, the same on both nodes")
      ->check(CLI::Range(200, 600000))
      ->capture_default_str();
  app.set_version_flag("--version", "havm-guard " HAVM_VERSION);
  CLI11_PARSE(app, argc, argv);
  return havm::run_guard(path, std::chrono::milliseconds(lease_ms));
}
