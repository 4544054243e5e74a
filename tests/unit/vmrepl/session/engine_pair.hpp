// The job of EnginePair: the fixture of tests with two real engines and clients at their NBD
// sockets.
#pragma once

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/vmrepl/nbd/nbd_judges.hpp"
#include "tests/unit/vmrepl/session/engine_process.hpp"

namespace havm {

constexpr std::uint64_t pair_disk_bytes = 64ULL << 20;

class EnginePair : public testing::Test {
 protected:
  explicit EnginePair(std::uint64_t disk_bytes = pair_disk_bytes)
      : plan(make_pair_plan(disk_bytes)) {}

  // After changes of the configurations, if any.
  void start_pair() {
    ASSERT_EQ(a.create("uptodate"), 0) << a.log();
    ASSERT_EQ(b.create("inconsistent"), 0) << b.log();
    a.start();
    b.start();
  }
  // `a` is live at epoch 2 with random contents on both replicas.
  void start_live_and_filled() {
    start_pair();
    serve(a, 1);
    fill(a);
    grow(a, 1);
  }
  void TearDown() override {
    a.kill();
    b.kill();
    if (!HasFailure()) std::filesystem::remove_all(plan.directory);
  }

  void serve(EngineProcess& e, std::uint64_t epoch) {
    e.ok("promise", {{"epoch", epoch}});
    e.ok("serve", {{"epoch", epoch}});
  }
  // From alone at `epoch` to live at epoch + 1.
  void grow(EngineProcess& owner, std::uint64_t epoch) {
    owner.ok("connect");
    owner.wait_for_session("synced");
    owner.ok("grow-prepare", {{"epoch", epoch}});
    owner.ok("grow-commit", {{"epoch", epoch + 1}});
    owner.wait_for_session("live");
  }
  // qemu-io makes each write a FUA write, unless it is told that there is a write cache.
  static int qemu_io(const EngineProcess& e, const std::vector<std::string>& commands,
                     const std::string& cache = "writethrough") {
    std::vector<std::string> argv{"qemu-io", "-t", cache, "-f", "raw"};
    for (const auto& c : commands) {
      argv.push_back("-c");
      argv.push_back(c);
    }
    argv.push_back(nbd_uri(e.nbd_socket(), "vda"));
    const ProgramRun run = run_program(argv);
    if (run.output.find("Pattern verification failed") != std::string::npos) return 99;
    return run.exit_code;
  }
  // The same while the test goes on, with plain writes; its result, or that it is still waiting.
  static std::future<int> guest(const EngineProcess& e, const std::vector<std::string>& commands) {
    return std::async(std::launch::async,
                      [&e, commands] { return qemu_io(e, commands, "writeback"); });
  }
  static testing::AssertionResult is_held(EngineProcess& e, const std::future<int>& guest,
                                          std::size_t requests = 1) {
    e.wait_until("held requests", [&](const EngineProcess::Json& s) {
      return s["held"]["requests"].get<std::size_t>() == requests;
    });
    if (guest.wait_for(std::chrono::milliseconds(300)) == std::future_status::timeout)
      return testing::AssertionSuccess();
    return testing::AssertionFailure() << "the guest was answered";
  }
  static void touch(const std::string& path) { std::ofstream(path).close(); }
  void fill(const EngineProcess& e) {
    const std::string file = plan.directory + "/random";
    ASSERT_EQ(run_program({"dd", "if=/dev/urandom", "of=" + file, "bs=1M",
                           "count=" + std::to_string(plan.disk_bytes >> 20)})
                  .exit_code,
              0);
    ASSERT_EQ(run_program({"nbdcopy", "--flush", file, nbd_uri(e.nbd_socket(), "vda")}).exit_code,
              0);
  }
  // Byte by byte, in the two image files.
  testing::AssertionResult same_images() {
    const ProgramRun run = run_program({"cmp", a.image(), b.image()});
    if (run.exit_code == 0) return testing::AssertionSuccess();
    return testing::AssertionFailure() << run.output << run.errors;
  }

  PairPlan plan;
  EngineProcess a{plan, "a"};
  EngineProcess b{plan, "b"};
};

}  // namespace havm
