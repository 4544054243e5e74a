// havm-guard itself, with real processes in the place of QEMU. Every wait is for a condition; what
// must not have happened is judged from an answer of the guard that could not have come before it.
#include <array>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <optional>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "agent/guard/guard_client.hpp"
#include "agent/guard/guard_process.hpp"
#include "tests/unit/agent/guard/child_process.hpp"
#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Seen = GuardProcess::Seen;

std::uint64_t start_ticks(int pid) {
  const std::string stat = read_file("/proc/" + std::to_string(pid) + "/stat").value();
  std::istringstream fields(stat.substr(stat.rfind(')') + 2));
  std::string field;
  for (int i = 3; i <= 22; ++i)
    fields >> field;
  return std::stoull(field);
}

struct FakeQemu {
  std::filesystem::path counters;
  ChildProcess process;
  GuardProcess view;

  FakeQemu(const std::filesystem::path& dir, const std::string& name, bool unstoppable = false)
      : counters(make_file(dir / name)),
        process(arguments(counters, unstoppable), dir / (name + ".log")),
        view(open_when_up()) {}
  static std::filesystem::path make_file(const std::filesystem::path& path) {
    std::ofstream(path) << std::string(4096, '\0');
    return path;
  }
  static std::vector<std::string> arguments(const std::filesystem::path& path, bool unstoppable) {
    std::vector<std::string> argv{HAVM_FAKE_QEMU, path};
    if (unstoppable) argv.emplace_back("unstoppable");
    return argv;
  }
  GuardProcess open_when_up() {
    EXPECT_TRUE(eventually([this] { return count()[0] > 0; })) << "fake QEMU did not start";
    return std::move(GuardProcess::open(process.pid(), start_ticks(process.pid())).value());
  }
  [[nodiscard]] std::array<std::uint64_t, 4> count() const {
    std::array<std::uint64_t, 4> values{};
    const std::string bytes = read_file(counters).value();
    std::memcpy(values.data(), bytes.data(), sizeof values);
    return values;
  }
  bool comes_to_run() {
    const auto before = count();
    return eventually([&] {
      const auto now = count();
      return now[0] > before[0] && now[1] > before[1] && now[2] > before[2] && now[3] > before[3];
    });
  }
  [[nodiscard]] std::string name() const {
    return std::to_string(process.pid()) + " " + std::to_string(start_ticks(process.pid()));
  }
};

struct GuardProgram : ::testing::Test {
  std::filesystem::path dir;
  std::unique_ptr<ChildProcess> guard;
  std::unique_ptr<GuardClient> client;

  GuardProgram() {
    std::string name = (std::filesystem::temp_directory_path() / "havm-guard-XXXXXX").string();
    dir = ::mkdtemp(name.data());
  }
  ~GuardProgram() override {
    guard.reset();
    std::filesystem::remove_all(dir);
  }
  [[nodiscard]] std::string socket_path() const { return dir / "guard.sock"; }
  std::vector<std::string> guard_argv(long lease_ms) const {
    return {HAVM_GUARD, "--socket", socket_path(), "--lease-ms", std::to_string(lease_ms)};
  }
  void start_guard(long lease_ms) {
    guard = std::make_unique<ChildProcess>(guard_argv(lease_ms), dir / "guard.log");
    client = std::make_unique<GuardClient>(socket_path(), 20s);
    ASSERT_TRUE(eventually([this] { return client->command("status").has_value(); }))
        << guard->log();
  }
  std::string ask(const std::string& command) {
    auto answer = client->command(command);
    return answer ? answer.value() : "error: " + answer.error().message;
  }
  std::string watch(const FakeQemu& vm, long long sent, int epoch = 1) {
    return ask("watch v " + vm.name() + " " + std::to_string(epoch) + " " + std::to_string(sent));
  }
  std::string renew(long long sent, int epoch = 1) {
    return ask("renew v " + std::to_string(epoch) + " " + std::to_string(sent));
  }
  static long long now_ns() { return to_ns(BootClock::now()); }
  // Field `state` of the only VM.
  std::string state() {
    const auto lines = client->status();
    if (!lines || lines.value().size() != 1) return "?";
    std::istringstream fields(lines.value()[0]);
    std::string field;
    for (int i = 0; i < 5; ++i)
      fields >> field;
    return field;
  }
  void expect_standing_still(const FakeQemu& vm) {
    EXPECT_EQ(vm.view.look(), Seen::Stopped);
    const auto before = vm.count();
    std::this_thread::sleep_for(5ms);
    EXPECT_EQ(vm.count(), before);
  }
};

TEST_F(GuardProgram, PausesAtTheDeadlineAndResumesOnAFreshGrant) {
  start_guard(600);
  FakeQemu vm(dir, "qemu");
  const TimePoint sent = BootClock::now();
  ASSERT_EQ(watch(vm, to_ns(sent)), "");
  ASSERT_TRUE(eventually([&] { return vm.view.look() == Seen::Stopped; }));
  EXPECT_GE(BootClock::now() - sent, 180ms) << "not before 0.3 T";
  ASSERT_TRUE(eventually([&] { return state() == "paused"; }));
  expect_standing_still(vm);
  EXPECT_THAT(guard->log(), HasSubstr("VM v paused: its lease was not renewed in time"));
  ASSERT_EQ(renew(now_ns()), "");
  EXPECT_TRUE(vm.comes_to_run());
}

TEST_F(GuardProgram, KeepsRunningWhileRenewed) {
  start_guard(20'000);
  FakeQemu vm(dir, "qemu");
  ASSERT_EQ(watch(vm, now_ns()), "");
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(renew(now_ns()), "");
    ASSERT_EQ(state(), "running");
  }
  EXPECT_THAT(guard->log(), ::testing::Not(HasSubstr("paused")));
}

TEST_F(GuardProgram, DoesNotResumeOnAGrantSentBeforeThePause) {
  start_guard(20'000);
  FakeQemu vm(dir, "qemu");
  const long long before = now_ns();
  ASSERT_EQ(watch(vm, 0), "paused");
  expect_standing_still(vm);
  EXPECT_EQ(renew(before), "paused");
  expect_standing_still(vm);
  EXPECT_EQ(renew(now_ns(), 0), "stale");
  expect_standing_still(vm);
  EXPECT_EQ(renew(now_ns()), "");
  EXPECT_TRUE(vm.comes_to_run());
}

TEST_F(GuardProgram, AloneRunsWithoutGrantsAndLeaseIsRefusedWithoutOne) {
  start_guard(400);
  FakeQemu vm(dir, "qemu");
  ASSERT_EQ(watch(vm, 0), "paused");
  ASSERT_EQ(ask("alone v 1"), "");
  EXPECT_TRUE(vm.comes_to_run());
  const TimePoint end = BootClock::now() + 1200ms;  // 10 times the pause deadline
  while (BootClock::now() < end)
    ASSERT_EQ(state(), "running");
  EXPECT_THAT(ask("lease v 1"), HasSubstr("no valid grant"));
  EXPECT_EQ(state(), "running");
}

TEST_F(GuardProgram, StopAndContinue) {
  start_guard(20'000);
  FakeQemu vm(dir, "qemu");
  ASSERT_EQ(watch(vm, now_ns()), "");
  ASSERT_EQ(ask("stop v"), "paused");
  expect_standing_still(vm);
  EXPECT_EQ(renew(now_ns()), "stopped");
  EXPECT_EQ(ask("alone v 1"), "stopped");
  EXPECT_EQ(state(), "stopped");
  expect_standing_still(vm);
  EXPECT_THAT(ask("continue v 0"), HasSubstr("higher epoch"));
  EXPECT_EQ(state(), "stopped");
  EXPECT_EQ(ask("continue v 1"), "");  // alone by now
  EXPECT_TRUE(vm.comes_to_run());
  ASSERT_EQ(renew(now_ns()), "");
  ASSERT_EQ(ask("lease v 1"), "");
  ASSERT_EQ(ask("stop v"), "paused");
  EXPECT_EQ(ask("continue v 1"), "paused");
  expect_standing_still(vm);
  EXPECT_EQ(renew(now_ns()), "");
  EXPECT_TRUE(vm.comes_to_run());
}

TEST_F(GuardProgram, KillAnswersWhenTheProcessIsGone) {
  start_guard(20'000);
  FakeQemu vm(dir, "qemu");
  ASSERT_EQ(watch(vm, now_ns()), "");
  EXPECT_EQ(ask("kill v"), "");
  EXPECT_EQ(vm.view.look(), Seen::Gone);
  EXPECT_EQ(state(), "gone");
  EXPECT_EQ(WTERMSIG(vm.process.wait()), SIGKILL);
  EXPECT_EQ(ask("kill v"), "gone");
  EXPECT_EQ(ask("forget v"), "");
  EXPECT_EQ(ask("forget v"), "unknown");
}

TEST_F(GuardProgram, KillsWhatCannotBeStopped) {
  start_guard(2000);
  FakeQemu vm(dir, "qemu", true);
  const TimePoint before = BootClock::now();
  EXPECT_EQ(watch(vm, 0), "gone");
  EXPECT_GE(BootClock::now() - before, 300ms) << "the pause has 0.15 T to be confirmed";
  EXPECT_EQ(WTERMSIG(vm.process.wait()), SIGKILL);
  EXPECT_THAT(guard->log(), HasSubstr("VM v killed: its pause was not confirmed in time"));
}

TEST_F(GuardProgram, StopOfWhatCannotBeStoppedIsToldAndNotTurnedIntoAKillWhileAlone) {
  start_guard(2000);
  FakeQemu vm(dir, "qemu", true);
  ASSERT_EQ(watch(vm, now_ns()), "");
  ASSERT_EQ(ask("alone v 1"), "");
  EXPECT_THAT(ask("stop v"), HasSubstr("could not be confirmed"));
  EXPECT_FALSE(vm.process.ended());
  EXPECT_EQ(ask("kill v"), "");
  EXPECT_EQ(WTERMSIG(vm.process.wait()), SIGKILL);
}

// Sends without waiting: the guard cannot read it now.
void send_only(int fd, const std::string& text) {
  ASSERT_EQ(::send(fd, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
}

TEST_F(GuardProgram, AGapOfItsOwnLoopPausesDespiteAGrantThatWaited) {
  constexpr auto lease = 8000ms;
  start_guard(lease.count());
  FakeQemu vm(dir, "qemu");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, socket_path().c_str());
  const UniqueFd waiting(::socket(AF_UNIX, SOCK_SEQPACKET, 0));
  ASSERT_EQ(::connect(waiting.get(), static_cast<sockaddr*>(static_cast<void*>(&address)),
                      sizeof address),
            0);
  ASSERT_EQ(watch(vm, now_ns()), "");
  guard->signal(SIGSTOP);
  const TimePoint stopped = BootClock::now();
  ASSERT_TRUE(eventually([&] { return BootClock::now() - stopped > lease / 4 + 50ms; }));
  send_only(waiting.get(), "renew v 1 " + std::to_string(now_ns()));
  guard->signal(SIGCONT);
  char answer[64];
  const ssize_t n = ::recv(waiting.get(), answer, sizeof answer, 0);
  ASSERT_GT(n, 0);
  EXPECT_EQ(std::string(answer, static_cast<std::size_t>(n)), "ok paused");
  ASSERT_TRUE(eventually([&] { return state() == "paused"; }));
  expect_standing_still(vm);
  EXPECT_THAT(guard->log(), HasSubstr("VM v paused: the guard itself was not running"));
  EXPECT_EQ(renew(now_ns()), "");
  EXPECT_TRUE(vm.comes_to_run());
}

TEST_F(GuardProgram, UndoesAResumeBySomebodyElse) {
  start_guard(20'000);
  FakeQemu vm(dir, "qemu");
  ASSERT_EQ(watch(vm, 0), "paused");
  vm.process.signal(SIGCONT);
  ASSERT_TRUE(eventually([&] { return guard->log().find("somebody else") != std::string::npos; }));
  ASSERT_TRUE(eventually([&] { return state() == "paused" && vm.view.look() == Seen::Stopped; }));
  expect_standing_still(vm);
}

TEST_F(GuardProgram, ARestartedGuardTakesOverAPausedVm) {
  start_guard(20'000);
  FakeQemu vm(dir, "qemu");
  const long long before = now_ns();
  ASSERT_EQ(watch(vm, 0), "paused");
  guard->signal(SIGKILL);
  guard->wait();
  start_guard(20'000);  // the socket file of the dead one is in the way
  EXPECT_EQ(renew(now_ns()), "unknown");
  EXPECT_EQ(watch(vm, before), "paused");
  expect_standing_still(vm);
  EXPECT_EQ(renew(now_ns()), "");
  EXPECT_TRUE(vm.comes_to_run());
}

TEST_F(GuardProgram, ChecksWhichProcessItWatches) {
  start_guard(20'000);
  FakeQemu vm(dir, "qemu");
  FakeQemu other(dir, "other");
  const std::string pid = std::to_string(vm.process.pid());
  EXPECT_THAT(ask("watch v " + pid + " 1 1 0"), HasSubstr("did not start at that time"));
  EXPECT_THAT(ask("watch v 4194304 1 1 0"), StartsWith("error"));
  EXPECT_THAT(ask("stop v"), HasSubstr("is not watched"));
  ASSERT_EQ(watch(vm, now_ns()), "");
  EXPECT_THAT(watch(other, now_ns()), HasSubstr("still lives"));
  EXPECT_EQ(other.view.look(), Seen::Running);
  vm.process.signal(SIGKILL);
  vm.process.wait();
  ASSERT_TRUE(eventually([&] { return state() == "gone"; }));
  EXPECT_EQ(watch(other, now_ns()), "") << "its VM was started again as another process";
  EXPECT_EQ(ask("forget v"), "");
  EXPECT_EQ(other.view.look(), Seen::Running) << "forget never signals";
}

TEST_F(GuardProgram, AClientThatLeavesOrTalksNonsenseHurtsNobody) {
  start_guard(20'000);
  FakeQemu vm(dir, "qemu");
  ASSERT_EQ(watch(vm, now_ns()), "");
  EXPECT_THAT(ask("nonsense"), HasSubstr("unknown command"));
  EXPECT_THAT(ask("stop " + std::string(2000, 'x')), HasSubstr("too long"));
  for (int i = 0; i < 50; ++i) {
    GuardClient hasty(socket_path(), 0ms);
    (void)hasty.command(i % 2 == 0 ? "stop v" : "status");
  }
  ASSERT_TRUE(eventually([&] { return state() == "stopped"; }));
  EXPECT_EQ(ask("status"), "1");
  EXPECT_EQ(ask("continue v 1"), "paused");
}

TEST_F(GuardProgram, OneGuardForOneSocketAndACleanEnd) {
  start_guard(20'000);
  ChildProcess second(guard_argv(20'000), dir / "second.log");
  EXPECT_EQ(WEXITSTATUS(second.wait()), 1);
  EXPECT_THAT(second.log(), HasSubstr("is in use"));
  EXPECT_EQ(ask("status"), "0");
  guard->signal(SIGTERM);
  const int status = guard->wait();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << guard->log();
  EXPECT_FALSE(std::filesystem::exists(socket_path()));
  const auto answer = client->command("status");
  ASSERT_FALSE(answer);
}

TEST_F(GuardProgram, LeaseOptionIsChecked) {
  ChildProcess wrong(guard_argv(5), dir / "wrong.log");
  EXPECT_NE(WEXITSTATUS(wrong.wait()), 0);
}

}  // namespace
}  // namespace havm
