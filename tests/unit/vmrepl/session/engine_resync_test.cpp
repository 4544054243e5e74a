// What a resync between two real engines copies: after an outage or a crash only what may differ,
// and never over what somebody else may need.
#include <future>

#include <gmock/gmock.h>

#include "tests/unit/vmrepl/session/engine_pair.hpp"
#include "vmrepl/bitmap/activity_log_core.hpp"

namespace havm {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

constexpr std::uint64_t mib = 1ULL << 20;

class EngineResyncTest : public EnginePair {
 protected:
  void SetUp() override {
    HAVM_NEED_PROGRAM("qemu-io");
    HAVM_NEED_PROGRAM("nbdcopy");
    start_live_and_filled();
  }
  static std::uint64_t resynced(EngineProcess& owner) {
    return owner.status()["sync"]["total_bytes"].get<std::uint64_t>();
  }
};

TEST_F(EngineResyncTest, AReturnedPartnerGetsOnlyWhatItLacks) {
  b.kill();
  a.wait_for_session("none");
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_EQ(qemu_io(a, {"write -P 0x11 1M 1M", "write -P 0x12 40M 4k", "discard 8M 1M", "flush"}),
            0);
  b.start();
  grow(a, 3);
  EXPECT_TRUE(same_images());
  EXPECT_GE(resynced(a), 2 * mib + 65536);
  EXPECT_LE(resynced(a), 3 * mib);
  EXPECT_EQ(a.status()["dirty_bytes"], 0);
}

TEST_F(EngineResyncTest, WhatThePartnerHadAckedAndNotFlushedIsCopiedAgain) {
  EXPECT_EQ(qemu_io(a, {"write -P 0x21 16M 64k", "flush"}), 0);
  // qemu-io flushes when it closes; a client that is killed does not
  auto guest = std::async(std::launch::async, [this] {
    return run_program({"qemu-io", "-f", "raw", "-t", "none", "-c", "write -P 0x22 24M 64k", "-c",
                        "sleep 60000", nbd_uri(a.nbd_socket(), "vda")},
                       {}, std::chrono::seconds(3));
  });
  (void)guest.get();
  b.kill();
  a.wait_for_session("none");
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_GE(a.status()["dirty_bytes"].get<std::uint64_t>(), 65536u);
  b.start();
  grow(a, 3);
  EXPECT_TRUE(same_images());
  EXPECT_LE(resynced(a), mib);
}

TEST_F(EngineResyncTest, AKilledOwnersEngineComparesOnlyTheExtentsInUse) {
  a.kill();
  a.start();
  a.ok("serve", {{"epoch", 3}});
  grow(a, 3);
  EXPECT_TRUE(same_images());
  b.terminate();
  EXPECT_EQ(b.wait_for_exit(), 0);
  a.wait_for_session("none");
  a.ok("shrink", {{"epoch", 5}});
  EXPECT_EQ(qemu_io(a, {"write -P 0x31 1M 4k", "flush"}), 0);
  a.ok("quit");
  EXPECT_EQ(a.wait_for_exit(), 0);
  // After an end in order the log is empty: only what was written is left.
  a.start();
  EXPECT_EQ(a.status()["dirty_bytes"], 65536);
  a.ok("serve", {{"epoch", 5}});
  EXPECT_EQ(qemu_io(a, {"write -P 0x32 33M 4k", "flush"}), 0);
  a.kill();
  a.start();
  EXPECT_LE(a.status()["dirty_bytes"].get<std::uint64_t>(),
            65536 + 2 * ActivityLogCore::extent_bytes);
  b.start();
  a.ok("serve", {{"epoch", 6}});
  grow(a, 6);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineResyncTest, AFormerOwnerTellsWhatItAloneMayHave) {
  a.ok("freeze");
  b.ok("promise", {{"epoch", 3}});
  // In the hands of the old owner this write reaches at most its own image.
  auto guest =
      std::async(std::launch::async, [this] { return qemu_io(a, {"write -P 0x99 4M 64k"}); });
  a.wait_until("a held request", [](const Json& s) { return s["held"]["requests"] == 1; });
  b.ok("serve", {{"epoch", 3}});
  EXPECT_EQ(qemu_io(b, {"write -P 0x41 50M 64k", "flush"}), 0);
  a.kill();
  EXPECT_NE(guest.get(), 0);
  a.start();
  grow(b, 3);
  EXPECT_TRUE(same_images());
  EXPECT_EQ(qemu_io(b, {"read -P 0x41 50M 64k"}), 0);
  EXPECT_EQ(a.status()["dirty_bytes"], 0);
}

TEST_F(EngineResyncTest, AResyncThatWasCutOffGoesOnWhereItWas) {
  b.kill();
  a.wait_for_session("none");
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_EQ(qemu_io(a, {"write -P 0x51 0 32M", "flush"}), 0);
  for (int i = 0; i < 3; ++i) {
    b.start();
    a.ok("connect");
    a.wait_until("a session", [](const Json& s) {
      return s["session"]["state"] == "syncing" || s["session"]["state"] == "synced";
    });
    b.kill();
    a.wait_until("its loss", [](const Json& s) { return s["session"]["state"] == "connecting"; });
  }
  b.start();
  grow(a, 3);
  EXPECT_LE(resynced(a), 33 * mib);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineResyncTest, TwoHistoriesAreNeverMerged) {
  b.kill();
  a.wait_for_session("none");
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_EQ(qemu_io(a, {"write -P 0x61 1M 64k", "flush"}), 0);
  a.kill();
  // What no arbiter would allow: the other one goes on from the old state.
  b.start();
  b.ok("promise", {{"epoch", 4}});
  b.ok("serve", {{"epoch", 4}});
  EXPECT_EQ(qemu_io(b, {"write -P 0x62 1M 64k", "flush"}), 0);
  a.start();
  b.ok("connect");
  EXPECT_THAT(b.wait_for_event("split-brain")["reason"].get<std::string>(),
              HasSubstr("a person must choose"));
  b.ok("disconnect");
  EXPECT_EQ(
      run_program({"qemu-io", "-U", "-f", "raw", "-r", "-c", "read -P 0x61 1M 64k", a.image()})
          .exit_code,
      0);
  EXPECT_EQ(a.status()["record"]["state"], "uptodate");
}

TEST_F(EngineResyncTest, DamagedMarksMeanThatEverythingIsCopied) {
  b.kill();
  a.wait_for_session("none");
  a.ok("shrink", {{"epoch", 3}});
  a.ok("quit");
  EXPECT_EQ(a.wait_for_exit(), 0);
  const std::string log = a.config["record"].get<std::string>() + ".activity-log";
  ASSERT_EQ(
      run_program({"dd", "if=/dev/urandom", "of=" + log, "bs=4096", "count=1", "conv=notrunc"})
          .exit_code,
      0);
  a.start();
  EXPECT_EQ(a.status()["dirty_bytes"], pair_disk_bytes);
  b.start();
  a.ok("serve", {{"epoch", 3}});
  grow(a, 3);
  EXPECT_EQ(resynced(a), pair_disk_bytes);
  EXPECT_TRUE(same_images());
}

}  // namespace
}  // namespace havm
