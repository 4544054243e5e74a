#include "agent/guard/guard_server.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

namespace havm {
namespace {

constexpr std::size_t clients_max = 4096;
constexpr std::size_t vms_max = 4096;
constexpr Duration confirm_interval = std::chrono::milliseconds(1);
constexpr int tick_fraction = 50;  // of the lease: how often processes are looked at anyway

bool awaits_confirmation(const GuardVm& vm) {
  return vm.phase == GuardPhase::Stopping || vm.phase == GuardPhase::Killing;
}

GuardEventKind event_of(GuardProcess::Seen seen) {
  if (seen == GuardProcess::Seen::Gone) return GuardEventKind::SeenGone;
  return seen == GuardProcess::Seen::Stopped ? GuardEventKind::SeenStopped
                                             : GuardEventKind::SeenRunning;
}

}  // namespace

void guard_log(const std::string& line) {
  pollfd writable{STDERR_FILENO, POLLOUT, 0};
  const std::string text = "havm-guard: " + line + "\n";
  if (::poll(&writable, 1, 0) == 1 && ::write(STDERR_FILENO, text.data(), text.size()) < 0) return;
}

GuardServer::GuardServer(UniqueFd listener, UniqueFd timer, UniqueFd signals, GuardTimes times)
    : listener_(std::move(listener)),
      timer_(std::move(timer)),
      signals_(std::move(signals)),
      times_(times),
      loop_at_(BootClock::now()) {}

void GuardServer::run() {
  while (wait_for_events()) {
  }
}

// Counted from the last look, not from now: commands that keep coming must not put a look off.
void GuardServer::arm_timer() {
  wake_at_ = looked_at_ + times_.lease / tick_fraction;
  for (const auto& [name, watched] : watched_) {
    wake_at_ = std::min(wake_at_, guard_deadline(watched.vm, times_));
    if (awaits_confirmation(watched.vm))
      wake_at_ = std::min(wake_at_, looked_at_ + confirm_interval);
  }
  itimerspec spec{};
  spec.it_value.tv_sec = to_ns(wake_at_) / 1'000'000'000;
  spec.it_value.tv_nsec = to_ns(wake_at_) % 1'000'000'000;
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &spec, nullptr);
}

// One turn of the loop; false at the end. The gap rule comes before any command that waited
// meanwhile.
bool GuardServer::wait_for_events() {
  std::vector<pollfd> fds{
      {signals_.get(), POLLIN, 0}, {timer_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
  for (const auto& [fd, client] : clients_) {
    const int in = client.waits_for.empty() && client.out.empty() ? POLLIN : 0;
    fds.push_back({fd, static_cast<short>(in | (client.out.empty() ? 0 : POLLOUT)), 0});
  }
  arm_timer();
  if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) return false;
  const TimePoint now = BootClock::now();
  const bool gap = now - loop_at_ > times_.gap_limit();
  loop_at_ = now;
  if (gap || now >= wake_at_) look_at_all(gap);
  for (std::size_t i = 3; i < fds.size(); ++i)
    if (fds[i].revents != 0 && !serve_client(clients_.at(fds[i].fd))) clients_.erase(fds[i].fd);
  answer_waiting();
  if (fds[2].revents != 0) accept_client();
  return fds[0].revents == 0;
}

void GuardServer::look_at_all(bool after_gap) {
  looked_at_ = BootClock::now();
  for (auto& [name, watched] : watched_) {
    const GuardPhase phase = watched.vm.phase;
    if (after_gap) step(name, watched, {GuardEventKind::Gap, BootClock::now(), {}, {}});
    if (phase == GuardPhase::Running && watched.process.gone())
      step(name, watched, {GuardEventKind::SeenGone, BootClock::now(), {}, {}});
    step(name, watched, {GuardEventKind::Tick, BootClock::now(), {}, {}});
    if (watched.vm.phase != GuardPhase::Running && watched.vm.phase != GuardPhase::Gone) {
      const GuardEventKind seen = event_of(watched.process.look());
      step(name, watched, {seen, BootClock::now(), {}, {}});
    }
  }
}

void GuardServer::accept_client() {
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd.valid() || clients_.size() >= clients_max) return;
  const int key = fd.get();
  clients_[key].fd = std::move(fd);
}

// Sends what is due, then reads one command. False when the client is gone.
bool GuardServer::serve_client(Client& client) {
  while (!client.out.empty()) {
    const std::string& packet = client.out.front();
    if (::send(client.fd.get(), packet.data(), packet.size(), MSG_NOSIGNAL) < 0)
      return errno == EAGAIN || errno == EINTR;
    client.out.pop_front();
  }
  if (!client.waits_for.empty()) return false;  // only a hang-up is reported while it waits
  char packet[guard_packet_bytes_max + 1];
  const ssize_t n = ::recv(client.fd.get(), packet, sizeof packet, 0);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) return false;
  const auto command = parse_guard_command({packet, static_cast<std::size_t>(n)});
  if (command)
    execute(client, command.value());
  else
    client.out.push_back("error " + command.error().message);
  return true;
}

GuardDecision GuardServer::step(const std::string& name, Watched& watched,
                                const GuardEvent& event) {
  GuardDecision decision = guard_step(watched.vm, event, times_);
  watched.vm = decision.vm;
  const char* what = nullptr;
  int signal = 0;
  switch (decision.action) {
    case GuardAction::None:
      return decision;
    case GuardAction::Pause:
      what = "paused", signal = SIGSTOP;
      break;
    case GuardAction::Resume:
      what = "resumed", signal = SIGCONT;
      break;
    case GuardAction::Kill:
      what = "killed", signal = SIGKILL;
      break;
    case GuardAction::Alarm:
      what = "ALARM";
      break;
  }
  // A signal that failed is not confirmed: the phase and its deadline deal with it.
  const bool failed = signal != 0 && !watched.process.signal(signal) && errno != ESRCH;
  guard_log("VM " + name + " " + what + ": " + decision.reason +
            (failed ? std::string(" (signal failed: ") + std::strerror(errno) + ")" : ""));
  return decision;
}

// Makes sure that the VM is watched with the process of the command; else answers and returns
// false.
bool GuardServer::open_process(Client& client, const GuardCommand& command) {
  const auto known = watched_.find(command.vm);
  if (known != watched_.end()) {
    const GuardProcess& process = known->second.process;
    if (process.pid() == command.pid && process.start_ticks() == command.start_ticks) return true;
    if (!process.gone()) {
      client.out.push_back("error " + command.vm + " is watched as process " +
                           std::to_string(process.pid()) + ", which still lives");
      return false;
    }
  }
  auto opened = GuardProcess::open(command.pid, command.start_ticks);
  if (!opened || (known == watched_.end() && watched_.size() >= vms_max)) {
    client.out.push_back("error " + (opened ? "too many VMs are watched" : opened.error().message));
    return false;
  }
  GuardVm vm;
  vm.epoch = command.event.epoch;
  if (opened.value().look() ==
      GuardProcess::Seen::Stopped) {  // perhaps by this guard's predecessor
    vm.phase = GuardPhase::Paused;
    vm.paused_at = BootClock::now();
  }
  watched_.insert_or_assign(command.vm, Watched{vm, std::move(opened.value())});
  return true;
}

void GuardServer::execute(Client& client, const GuardCommand& command) {
  if (command.verb == GuardCommand::Verb::Status) {
    client.out.push_back("ok " + std::to_string(watched_.size()));
    for (const auto& [name, watched] : watched_)
      client.out.push_back(format_guard_status(name, watched.process.pid(), watched.vm));
    return;
  }
  const bool forget = command.verb == GuardCommand::Verb::Forget;
  const GuardEventKind kind = command.event.kind;
  if (kind == GuardEventKind::Watch && !open_process(client, command)) return;
  const auto found = watched_.find(command.vm);
  if (found == watched_.end()) {
    const bool harmless = forget || kind == GuardEventKind::Renew;
    return client.out.push_back(harmless ? "ok unknown"
                                         : "error " + command.vm + " is not watched");
  }
  if (forget) {
    watched_.erase(found);
    return client.out.push_back("ok");
  }
  GuardEvent event = command.event;
  event.now = BootClock::now();
  const GuardDecision decision = step(command.vm, found->second, event);
  if (decision.answer == GuardAnswer::Now) return client.out.push_back(decision.reply);
  client.waits_for = command.vm;
  client.wait = decision.answer;
}

void GuardServer::answer_waiting() {
  for (auto& [fd, client] : clients_) {
    if (client.waits_for.empty()) continue;
    const auto found = watched_.find(client.waits_for);
    const GuardPhase phase = found == watched_.end() ? GuardPhase::Gone : found->second.vm.phase;
    if (phase == GuardPhase::Gone)
      client.out.push_back(client.wait == GuardAnswer::WhenGone ? "ok" : "ok gone");
    else if (found->second.vm.alarmed)
      client.out.push_back("error " + client.waits_for + ": it could not be confirmed in time");
    else if (phase == GuardPhase::Paused && client.wait == GuardAnswer::WhenPaused)
      client.out.push_back("ok paused");
    else if (phase == GuardPhase::Running)
      client.out.push_back("ok running");
    else
      continue;
    client.waits_for.clear();
  }
}

}  // namespace havm
