// What programs of others find at a live pair, also when either engine is killed under them: libnbd
// scripts, qemu-io, fio's own verification and e2fsck. A disk is a file, or an NBD export.
#include <filesystem>
#include <fstream>
#include <future>
#include <optional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/vmrepl/disk/nbdkit.hpp"
#include "tests/unit/vmrepl/session/engine_pair.hpp"

namespace havm {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;
using Words = std::vector<std::string>;

constexpr std::uint64_t mib = 1U << 20;

class EngineConformance : public EnginePair {
 protected:
  EngineConformance() : EnginePair(48 * mib) {
    for (EngineProcess* e : {&a, &b})
      e->config["timing"] = {
          {"keepalive_ms", 50}, {"session_timeout_ms", 1000}, {"lease_ms", 6000}};
  }
  void SetUp() override {
    HAVM_NEED_PROGRAM("qemu-io");
    HAVM_NEED_PROGRAM("nbdcopy");
    HAVM_NEED_PROGRAM("fio");
  }
  void start_live() {
    start_pair();
    serve(a, 1);
    grow(a, 1);
  }
  // One job of fio on [offset, offset + size) of an engine's disk. Every block is written once.
  ProgramRun fio(const EngineProcess& e, std::uint64_t offset, std::uint64_t size,
                 const Words& more) {
    Words words{"fio",
                "--name=job",
                "--ioengine=nbd",
                "--uri=" + nbd_uri(e.nbd_socket(), "vda"),
                "--rw=randwrite",
                "--bs=16k",
                "--offset=" + std::to_string(offset),
                "--size=" + std::to_string(size),
                "--iodepth=16",
                "--fsync=64",
                "--verify=crc32c",
                "--verify_fatal=1",
                "--verify_state_save=0",
                "--randseed=11",
                "--output-format=json"};
    words.insert(words.end(), more.begin(), more.end());
    return run_program(words, plan.directory);
  }
  // fio has been seen to end well without having done anything: count.
  static testing::AssertionResult fio_did(const ProgramRun& run, const char* what,
                                          std::uint64_t bytes) {
    const std::size_t start = run.output.find('{');
    const Json report =
        start == std::string::npos ? Json() : Json::parse(run.output.substr(start), nullptr, false);
    if (run.exit_code == 0 && report.is_object() && report["jobs"][0]["error"] == 0 &&
        report["jobs"][0][what]["io_bytes"].get<std::uint64_t>() >= bytes)
      return testing::AssertionSuccess();
    return testing::AssertionFailure() << run.command << "\n" << run.output << run.errors;
  }
  // Writes at random behind `offset` until its server is gone.
  std::future<ProgramRun> endless_writer(const EngineProcess& e, std::uint64_t offset) {
    return std::async(std::launch::async, [this, &e, offset] {
      return fio(e, offset, plan.disk_bytes - offset,
                 {"--time_based", "--runtime=60", "--do_verify=0", "--norandommap"});
    });
  }
  void wait_for_client(EngineProcess& e) {
    e.wait_until("a client", [](const Json& s) { return s["clients"] > 0; });
  }
};

class ByLibnbd : public EngineConformance, public testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(, ByLibnbd, testing::Bool(),
                         [](const auto& p) { return p.param ? "nbd_store" : "file_store"; });

TEST_P(ByLibnbd, AndQemuIoALivePairAnswersAsTheProtocolSays) {
  std::optional<Nbdkit> store;
  if (GetParam()) {
    store.emplace(Words{"file", a.image()});
    a.config["disks"][0]["path"] = store->uri();
  }
  start_live();
  const ProgramRun run = run_program(
      {"/usr/bin/python3", "-B", HAVM_CONFORMANCE_SCRIPT, nbd_uri(a.nbd_socket(), "vda")});
  EXPECT_EQ(run.exit_code, 0) << run.output << run.errors;
  EXPECT_THAT(run.output, HasSubstr("checks="));
  EXPECT_TRUE(same_images());
  EXPECT_TRUE(judge_qemu_io_patterns(a.nbd_socket()));
  EXPECT_TRUE(same_images());
}

TEST_F(EngineConformance, FioVerifiesAcrossTheDeathOfTheSecondarysEngine) {
  start_live();
  auto running = std::async(std::launch::async, [this] {
    return judge_fio_verify(a.nbd_socket(), plan.disk_bytes, plan.directory);
  });
  wait_for_client(a);
  b.kill();
  a.wait_for_session("none");
  EXPECT_EQ(running.wait_for(std::chrono::milliseconds(300)), std::future_status::timeout);
  a.ok("shrink", {{"epoch", 3}});
  b.start();
  grow(a, 3);
  EXPECT_TRUE(running.get());
  EXPECT_TRUE(same_images());
}

// Either the engine comes back, or the partner takes over.
class OwnerKilled : public EngineConformance, public testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(, OwnerKilled, testing::Bool(),
                         [](const auto& p) { return p.param ? "taken_over" : "restarted"; });

TEST_P(OwnerKilled, FioFindsEveryBlockThatItWroteBefore) {
  constexpr std::uint64_t written = 16 * mib;
  start_live();
  EXPECT_TRUE(fio_did(fio(a, 0, written, {"--do_verify=0", "--end_fsync=1"}), "write", written));
  auto endless = endless_writer(a, written);
  wait_for_client(a);
  a.wait_until("writes under way", [this](const Json&) {
    return run_program({"cmp", "--bytes=" + std::to_string(plan.disk_bytes - written),
                        "--ignore-initial=" + std::to_string(written), a.image(), "/dev/zero"})
               .exit_code != 0;
  });
  a.kill();
  EXPECT_NE(endless.get().exit_code, 0);
  EngineProcess& next = GetParam() ? b : a;
  if (!GetParam()) a.start();
  serve(next, 3);
  EXPECT_TRUE(fio_did(fio(next, 0, written, {"--verify_only=1"}), "read", written));
  if (GetParam()) a.start();
  grow(next, 3);
  EXPECT_TRUE(same_images());
  EXPECT_TRUE(fio_did(fio(next, 0, written, {"--verify_only=1"}), "read", written));
}

TEST_F(EngineConformance, FioNoticesABlockThatIsNotWhatItWrote) {
  constexpr std::uint64_t written = 4 * mib;
  start_pair();
  serve(a, 1);
  EXPECT_TRUE(fio_did(fio(a, 0, written, {"--do_verify=0"}), "write", written));
  EXPECT_EQ(qemu_io(a, {"write -P 0x77 1M 4k"}), 0);
  EXPECT_FALSE(fio_did(fio(a, 0, written, {"--verify_only=1"}), "read", written));
}

class EngineFileSystem : public EngineConformance {
 protected:
  static constexpr std::uint64_t fs_bytes = 24 * mib;
  // Not in everybody's PATH.
  static constexpr const char* mkfs = "/usr/sbin/mkfs.ext4";
  static constexpr const char* e2fsck = "/usr/sbin/e2fsck";
  static constexpr const char* debugfs = "/usr/sbin/debugfs";

  void SetUp() override {
    EngineConformance::SetUp();
    for (const char* program : {mkfs, e2fsck, debugfs})
      ASSERT_TRUE(std::filesystem::exists(program)) << program << " is missing; install e2fsprogs";
  }

  // An ext4 file system with these files, as an image file.
  void make_file_system(const std::string& image, const std::string& text) {
    const std::string tree = image + ".d";
    std::filesystem::create_directories(tree + "/deep/er");
    for (int i = 0; i < 200; ++i)
      std::ofstream(tree + "/deep/er/file" + std::to_string(i)) << text << i;
    std::ofstream(tree + "/big") << std::string(6 * mib, text.front());
    const ProgramRun run =
        run_program({mkfs, "-q", "-d", tree, image, std::to_string(fs_bytes / 1024) + "k"});
    ASSERT_EQ(run.exit_code, 0) << run.errors;
  }
  // Through the engine, flushed, while others write behind it.
  void put(const EngineProcess& e, const std::string& image) {
    const ProgramRun run = run_program({"qemu-img", "convert", "-n", "-f", "raw", "-O", "raw",
                                        image, nbd_uri(e.nbd_socket(), "vda")});
    ASSERT_EQ(run.exit_code, 0) << run.errors;
  }
  void expect_clean(const EngineProcess& e, const std::string& text) {
    const std::string copy = plan.directory + "/copy";
    std::filesystem::remove(copy);
    ASSERT_EQ(run_program({"nbdcopy", nbd_uri(e.nbd_socket(), "vda"), copy}).exit_code, 0);
    std::filesystem::resize_file(copy, fs_bytes);
    const ProgramRun fsck = run_program({e2fsck, "-fn", copy});
    EXPECT_EQ(fsck.exit_code, 0) << fsck.output << fsck.errors;
    const ProgramRun cat = run_program({debugfs, "-R", "cat /deep/er/file123", copy});
    EXPECT_EQ(cat.output, text + "123") << cat.errors;
  }
};

TEST_F(EngineFileSystem, E2fsckFindsItCleanAfterEachFailover) {
  start_live();
  make_file_system(plan.directory + "/one", "first");
  make_file_system(plan.directory + "/two", "second");
  {
    auto endless = endless_writer(a, fs_bytes);
    wait_for_client(a);
    put(a, plan.directory + "/one");
    a.kill();
    EXPECT_NE(endless.get().exit_code, 0);
  }
  serve(b, 3);
  expect_clean(b, "first");
  a.start();
  grow(b, 3);
  EXPECT_TRUE(same_images());
  {
    auto endless = endless_writer(b, fs_bytes);
    wait_for_client(b);
    put(b, plan.directory + "/two");
    b.kill();
    EXPECT_NE(endless.get().exit_code, 0);
  }
  serve(a, 5);
  expect_clean(a, "second");
  b.start();
  grow(a, 5);
  EXPECT_TRUE(same_images());
  expect_clean(a, "second");
}

}  // namespace
}  // namespace havm
