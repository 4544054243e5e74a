#include "agent/daemon/guard_link.hpp"

#include <cerrno>
#include <sstream>
#include <thread>

#include <spdlog/spdlog.h>

#include "agent/daemon/spawn_detached.hpp"
#include "agent/guard/guard_client.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds start_poll{20};
constexpr milliseconds start_patience{1000};
constexpr milliseconds confirm_deadline{5000};

// Field 22 of /proc/PID/stat: with the pid it names one process for ever.
Result<std::string> start_ticks(int pid) {
  BOOST_OUTCOME_TRY(auto stat, read_file("/proc/" + std::to_string(pid) + "/stat"));
  const auto after_name = stat.rfind(')');
  if (after_name == std::string::npos)
    return Error("/proc/" + std::to_string(pid) + "/stat is malformed", EPROTO);
  std::istringstream fields(stat.substr(after_name + 1));
  std::string field;
  constexpr int fields_after_name = 20;  // state is field 3, starttime field 22
  for (int i = 0; i < fields_after_name; ++i)
    fields >> field;
  return field;
}

std::string number(Epoch epoch) {
  return std::to_string(epoch.value);
}

}  // namespace

GuardLink::GuardLink(std::string program, std::string socket, std::string log, Duration lease)
    : program_(std::move(program)),
      socket_(std::move(socket)),
      log_(std::move(log)),
      lease_(lease),
      client_(std::make_unique<GuardClient>(socket_)) {}

GuardLink::~GuardLink() = default;

Result<bool> GuardLink::ensure() {
  if (client_->status()) return false;
  const std::vector<std::string> argv{program_, "--socket", socket_, "--lease-ms",
                                      std::to_string(to_ms(lease_))};
  BOOST_OUTCOME_TRY(spawn_detached(argv, log_));
  spdlog::warn("started havm-guard");
  const TimePoint end = BootClock::now() + start_patience;
  while (BootClock::now() < end) {
    if (client_->status()) return true;
    std::this_thread::sleep_for(start_poll);
  }
  return Error("havm-guard does not answer on " + socket_ + "; see " + log_, ETIMEDOUT);
}

Result<std::string> GuardLink::command(const std::string& text) {
  auto reply = client_->command(text, confirm_deadline);
  const bool no_guard = !reply && reply.error().code != EINVAL && reply.error().code != ETIMEDOUT;
  if (no_guard) return Error(reply.error().message, ENOTCONN);
  if (!reply && reply.error().message.find("is not watched") != std::string::npos)
    return Error(reply.error().message, ENOENT);
  return reply;
}

Result<void> GuardLink::watch(const std::string& vm, int pid, Epoch epoch, TimePoint lease_sent) {
  BOOST_OUTCOME_TRY(auto ticks, start_ticks(pid));
  BOOST_OUTCOME_TRY(command("watch " + vm + " " + std::to_string(pid) + " " + ticks + " " +
                            number(epoch) + " " + std::to_string(to_ns(lease_sent))));
  return success();
}

Result<void> GuardLink::renew(const std::string& vm, Epoch epoch, TimePoint sent) {
  BOOST_OUTCOME_TRY(
      auto reply, command("renew " + vm + " " + number(epoch) + " " + std::to_string(to_ns(sent))));
  if (reply == "unknown") return Error("havm-guard does not know VM '" + vm + "'", ENOENT);
  return success();
}

Result<void> GuardLink::alone(const std::string& vm, Epoch epoch) {
  BOOST_OUTCOME_TRY(command("alone " + vm + " " + number(epoch)));
  return success();
}

Result<void> GuardLink::require_lease(const std::string& vm, Epoch epoch) {
  BOOST_OUTCOME_TRY(command("lease " + vm + " " + number(epoch)));
  return success();
}

Result<void> GuardLink::stop(const std::string& vm) {
  BOOST_OUTCOME_TRY(command("stop " + vm));
  return success();
}

Result<void> GuardLink::kill(const std::string& vm) {
  BOOST_OUTCOME_TRY(command("kill " + vm));
  return success();
}

Result<void> GuardLink::forget(const std::string& vm) {
  BOOST_OUTCOME_TRY(command("forget " + vm));
  return success();
}

}  // namespace havm
