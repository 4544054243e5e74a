// The target's state before a resync, on a real XFS: two engines, the owner dies in the middle.
// Needs root, loop devices and mkfs.xfs; skipped, loudly, where one of them is missing.
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/vmrepl/session/engine_pair.hpp"
#include "vmrepl/disk/image_snapshot.hpp"

namespace havm {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

// A file system in a file; unmounted with it.
class LoopXfs {
 public:
  // The reason why it cannot be had; empty: it is mounted at `directory`.
  std::string mount(const std::string& directory, bool reflink) {
    if (::geteuid() != 0) return "mounting needs root";
    const std::string file = directory + ".img";
    std::filesystem::create_directory(directory);
    std::ofstream(file).close();
    std::filesystem::resize_file(file, 8ULL << 30);
    for (const std::vector<std::string>& argv :
         {std::vector<std::string>{"mkfs.xfs", "-q", "-m", reflink ? "reflink=1" : "reflink=0",
                                   file},
          std::vector<std::string>{"mount", "-o", "loop", file, directory}}) {
      const ProgramRun run = run_program(argv);
      if (run.exit_code != 0) return run.command + ": " + run.errors + run.output;
    }
    directory_ = directory;
    return {};
  }
  void unmount() {
    if (directory_.empty()) return;
    EXPECT_EQ(run_program({"umount", directory_}).exit_code, 0);
    directory_.clear();
  }
  ~LoopXfs() { unmount(); }

 private:
  std::string directory_;
};

class EngineSnapshotTest : public EnginePair {
 protected:
  void start(bool reflink) {
    const std::string why = xfs.mount(plan.directory + "/xfs", reflink);
    if (!why.empty()) GTEST_SKIP() << "NOT JUDGED: no XFS on a loop device: " << why;
    image = plan.directory + "/xfs/vda.raw";
    std::ofstream(image).close();
    std::filesystem::resize_file(image, plan.disk_bytes);
    b.config["disks"][0]["path"] = image;
    start_live_and_filled();
    // Then the partner is away, and lacks 32 MiB.
    b.kill();
    a.wait_for_session("none");
    a.ok("shrink", {{"epoch", 3}});
    EXPECT_EQ(qemu_io(a, {"write -P 0x51 0 32M", "flush"}), 0);
  }
  void TearDown() override {
    a.kill();
    b.kill();
    xfs.unmount();
    EnginePair::TearDown();
  }
  // Under way: writes are streamed from here on.
  void wait_for_resync() {
    a.wait_until("a resync", [](const Json& s) { return s["sync"]["active"] == true; });
  }
  static bool same(const std::string& one, const std::string& other) {
    return run_program({"cmp", "-s", one, other}).exit_code == 0;
  }
  static Json wait_for_snapshot(EngineProcess& e, const std::string& state) {
    return e.wait_until("snapshot " + state,
                        [&](const Json& s) { return s["snapshot"]["state"] == state; });
  }

  LoopXfs xfs;
  std::string image;
};

TEST_F(EngineSnapshotTest, TheOwnersDeathInTheMiddleLeavesTheStateBefore) {
  HAVM_NEED_PROGRAM("qemu-io");
  HAVM_NEED_PROGRAM("nbdcopy");
  HAVM_NEED_PROGRAM("mkfs.xfs");
  start(true);
  if (IsSkipped()) return;
  const std::string before = plan.directory + "/before.raw";
  ASSERT_EQ(run_program({"cp", image, before}).exit_code, 0);
  a.ok("resync-pause", {{"reason", "so that there is a middle"}});
  b.start();
  a.ok("connect");
  wait_for_resync();
  // Streamed to the partner: its image is neither the old nor the new state now.
  EXPECT_EQ(qemu_io(a, {"write -P 0x52 50M 64k", "flush"}), 0);
  const Json s = wait_for_snapshot(b, "kept");
  EXPECT_EQ(s["snapshot"]["files"][0]["path"], snapshot_path(image));
  EXPECT_TRUE(same(snapshot_path(image), before));
  EXPECT_FALSE(same(image, before));

  a.kill();
  b.wait_until("the loss", [](const Json& now) { return now["role"] == "none"; });
  b.kill();
  b.start();
  EXPECT_EQ(wait_for_snapshot(b, "kept")["record"]["state"], "inconsistent");

  // The resync goes on: what is kept is still the state before, not this half.
  a.start();
  a.ok("serve", {{"epoch", 3}});
  a.ok("connect");
  wait_for_resync();
  EXPECT_EQ(qemu_io(a, {"write -P 0x53 51M 64k", "flush"}), 0);
  EXPECT_TRUE(same(snapshot_path(image), before));
  a.ok("resync-resume");
  grow(a, 3);
  wait_for_snapshot(b, "none");
  EXPECT_FALSE(std::filesystem::exists(snapshot_path(image)));
  EXPECT_TRUE(same(a.image(), image));
}

TEST_F(EngineSnapshotTest, WithoutReflinksTheStatusSaysSoAndTheResyncGoesOn) {
  HAVM_NEED_PROGRAM("qemu-io");
  HAVM_NEED_PROGRAM("nbdcopy");
  HAVM_NEED_PROGRAM("mkfs.xfs");
  start(false);
  if (IsSkipped()) return;
  a.ok("resync-pause", {{"reason", "so that there is a middle"}});
  b.start();
  a.ok("connect");
  wait_for_resync();
  const Json s = wait_for_snapshot(b, "impossible");
  EXPECT_THAT(s["snapshot"]["reason"].get<std::string>(), HasSubstr("has no reflinks"));
  a.ok("resync-resume");
  grow(a, 3);
  EXPECT_TRUE(same(a.image(), image));
}

}  // namespace
}  // namespace havm
