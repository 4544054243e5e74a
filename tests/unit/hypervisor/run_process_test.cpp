#include "hypervisor/qemu_img/run_process.hpp"

#include <cerrno>
#include <thread>

#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

#include "tests/unit/hypervisor/test_files.hpp"

namespace havm {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

Result<ProcessOutcome> shell(const std::string& script, const ProcessLimits& limits = {}) {
  return run_process({"sh", "-c", script}, limits);
}

TEST(RunProcess, gives_output_and_exit_status) {
  const auto outcome = shell("echo out; echo err >&2; exit 3");
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome.value().out, "out\n");
  EXPECT_EQ(outcome.value().err, "err\n");
  EXPECT_EQ(outcome.value().exit_status, 3);
  EXPECT_EQ(outcome.value().signal, 0);
}

TEST(RunProcess, passes_arguments_untouched) {
  const auto outcome = run_process({"printf", "%s|", "a b", "$HOME", "`id`", "'\"\\", "*", ""});
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome.value().out, "a b|$HOME|`id`|'\"\\|*||");
}

TEST(RunProcess, tells_the_signal) {
  const auto outcome = shell("kill -TERM $$");
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome.value().signal, SIGTERM);
  EXPECT_EQ(outcome.value().exit_status, -1);
}

TEST(RunProcess, a_missing_program_is_an_error) {
  const auto outcome = run_process({"havm-no-such-program"});
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, ENOENT);
  EXPECT_THAT(outcome.error().message, HasSubstr("cannot run havm-no-such-program"));
}

TEST(RunProcess, kills_at_the_deadline_with_all_children) {
  const TemporaryDirectory directory;
  const std::string pids = directory / "pids";
  ProcessLimits limits;
  limits.deadline = 300ms;
  const auto before = std::chrono::steady_clock::now();
  const auto outcome = shell(
      "trap '' TERM; sleep 60 & echo $! $$ > " + pids + "; while :; do sleep 60; done", limits);
  const auto took = std::chrono::steady_clock::now() - before;
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, ETIMEDOUT);
  EXPECT_THAT(outcome.error().message, HasSubstr("sh was killed: it had not ended after 300 ms"));
  EXPECT_GE(took, 300ms);
  EXPECT_LT(took, 3s);
  std::istringstream ids(read_text(pids));
  int count = 0;
  for (pid_t pid = 0; ids >> pid; ++count) {
    // The child is reaped by init a moment later; a zombie is dead enough.
    for (int i = 0; i < 100 && ::kill(pid, 0) == 0; ++i) {
      if (read_text("/proc/" + std::to_string(pid) + "/stat").find(") Z ") != std::string::npos)
        break;
      std::this_thread::sleep_for(10ms);
    }
    const std::string stat = read_text("/proc/" + std::to_string(pid) + "/stat");
    EXPECT_TRUE(stat.empty() || stat.find(") Z ") != std::string::npos) << stat;
  }
  EXPECT_EQ(count, 2);
}

TEST(RunProcess, does_not_wait_for_children_that_keep_the_output_open) {
  const auto before = std::chrono::steady_clock::now();
  const auto outcome = shell("sleep 5 & echo done");
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome.value().out, "done\n");
  EXPECT_LT(std::chrono::steady_clock::now() - before, 4s);
}

TEST(RunProcess, keeps_no_more_than_asked) {
  ProcessLimits limits;
  limits.stdout_max_bytes = 1000;
  limits.stderr_max_bytes = 10;
  const auto outcome = shell("yes | head -c 3000000; echo 0123456789abc >&2", limits);
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome.value().out.size(), 1000U);
  EXPECT_TRUE(outcome.value().out_truncated);
  EXPECT_EQ(outcome.value().err, "0123456789");
  EXPECT_TRUE(outcome.value().err_truncated);
  EXPECT_EQ(outcome.value().exit_status, 0);
}

TEST(RunProcess, much_output_on_both_streams_does_not_block) {
  const auto outcome = shell("head -c 2000000 /dev/zero; head -c 60000 /dev/zero >&2");
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome.value().out.size(), 2000000U);
  EXPECT_EQ(outcome.value().err.size(), 60000U);
  EXPECT_FALSE(outcome.value().out_truncated);
}

TEST(RunProcess, the_child_gets_empty_input_and_none_of_our_descriptors) {
  const int open_here = ::dup(STDERR_FILENO);
  const auto outcome = shell("cat; ls /proc/self/fd; echo $LC_ALL");
  ::close(open_here);
  ASSERT_TRUE(outcome);
  // 3 is the directory that ls reads.
  EXPECT_EQ(outcome.value().out, "0\n1\n2\n3\nC\n");
}

TEST(RunProcess, works_while_signals_are_blocked_or_ignored_here) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  ::signal(SIGPIPE, SIG_IGN);
  const auto outcome = shell("grep -E 'Sig(Blk|Ign)' /proc/self/status");
  ::signal(SIGPIPE, SIG_DFL);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ASSERT_TRUE(outcome);
  // Bits 32 and 33 are glibc's own signals, which posix_spawn leaves ignored.
  EXPECT_EQ(outcome.value().out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000180000000\n");
}

}  // namespace
}  // namespace havm
