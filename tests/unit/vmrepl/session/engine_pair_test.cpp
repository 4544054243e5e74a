// Two real engines over loopback, with real clients at the NBD sockets: the story of one VM from
// its first write to the change of owner, and everything that must be refused on the way.
#include "tests/unit/vmrepl/session/engine_pair.hpp"

#include <filesystem>
#include <functional>
#include <future>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace havm {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

class EnginePairTest : public EnginePair {
 protected:
  void SetUp() override {
    HAVM_NEED_PROGRAM("qemu-io");
    HAVM_NEED_PROGRAM("nbdcopy");
    start_pair();
  }
};

TEST_F(EnginePairTest, AloneThenSyncedThenLiveTheImagesAreTheSame) {
  serve(a, 1);
  fill(a);
  grow(a, 1);
  EXPECT_TRUE(same_images());
  const Json owner = a.status();
  EXPECT_EQ(owner["record"]["in_sync"], "both");
  EXPECT_EQ(owner["record"]["epoch"], 2);
  EXPECT_EQ(owner["sync"]["done_bytes"], pair_disk_bytes);
  const Json secondary =
      b.wait_until("epoch 2", [](const Json& s) { return s["record"]["epoch"] == 2; });
  EXPECT_EQ(secondary["role"], "secondary");
  EXPECT_EQ(secondary["record"]["state"], "uptodate");
  EXPECT_EQ(secondary["session"]["state"], "secondary");
  EXPECT_EQ(a.wait_for_event("synced")["epoch"], 1);
}

TEST_F(EnginePairTest, EveryJudgeFindsTheLiveEngineRightAndTheReplicasEqual) {
  HAVM_NEED_PROGRAM("fio");
  HAVM_NEED_PROGRAM("nbdinfo");
  serve(a, 1);
  grow(a, 1);
  NbdExpected expected;
  expected.size_bytes = pair_disk_bytes;
  expected.minimum_block_bytes = 512;
  expected.export_name = expected.asked_name = "vda";
  EXPECT_TRUE(judge_nbdinfo(a.nbd_socket(), expected));
  EXPECT_TRUE(judge_qemu_io_patterns(a.nbd_socket()));
  EXPECT_TRUE(same_images());
  EXPECT_TRUE(judge_copy_both_ways(a.nbd_socket(), pair_disk_bytes, plan.directory));
  EXPECT_TRUE(same_images());
  EXPECT_TRUE(judge_fio_verify(a.nbd_socket(), pair_disk_bytes, plan.directory));
  EXPECT_TRUE(same_images());
  EXPECT_TRUE(judge_same_content(a.nbd_socket(), b.image()));
}

TEST_F(EnginePairTest, AFullSyncUnderGuestWritesEndsWithEqualImages) {
  HAVM_NEED_PROGRAM("fio");
  serve(a, 1);
  fill(a);
  auto guest = std::async(std::launch::async, [this] {
    return judge_fio_verify(a.nbd_socket(), pair_disk_bytes, plan.directory);
  });
  a.wait_until("a client", [](const Json& s) { return s["clients"] > 0; });
  grow(a, 1);
  EXPECT_TRUE(guest.get());
  EXPECT_TRUE(same_images());
}

TEST_F(EnginePairTest, TheDeathOfThePartnerHoldsTheGuestUntilTheShrink) {
  serve(a, 1);
  grow(a, 1);
  b.kill();
  a.wait_for_session("none");
  auto guest = std::async(std::launch::async, [this] {
    return qemu_io(a, {"write -P 0x5a 0 64k", "flush"});
  });
  a.wait_until("a held request", [](const Json& s) { return s["held"]["requests"] == 1; });
  EXPECT_EQ(guest.wait_for(std::chrono::milliseconds(500)), std::future_status::timeout);
  a.ok("flush");
  EXPECT_THAT(a.refused("shrink", {{"epoch", 2}}), HasSubstr("higher epoch"));
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_EQ(guest.get(), 0);
  EXPECT_EQ(a.status()["record"]["in_sync"], "self");
  EXPECT_EQ(qemu_io(a, {"read -P 0x5a 0 64k"}), 0);
}

TEST_F(EnginePairTest, AReturnedPartnerIsResynced) {
  serve(a, 1);
  grow(a, 1);
  b.kill();
  a.wait_for_session("none");
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_EQ(qemu_io(a, {"write -P 0x11 1M 1M", "discard 8M 1M", "flush"}), 0);
  b.start();
  grow(a, 3);
  EXPECT_TRUE(same_images());
  EXPECT_EQ(a.status()["record"]["epoch"], 4);
}

TEST_F(EnginePairTest, APromiseDeposesTheOwnerAndThePartnerTakesOver) {
  serve(a, 1);
  grow(a, 1);
  EXPECT_EQ(qemu_io(a, {"write -P 0x77 4M 64k", "flush"}), 0);
  const Json promised = b.ok("promise", {{"epoch", 3}});
  EXPECT_EQ(promised["state"], "uptodate");
  EXPECT_EQ(promised["suspect"], false);
  EXPECT_LT(promised["grant_age_ms"].get<long long>(), 2000);
  EXPECT_EQ(a.wait_for_event("deposed")["promised_epoch"], 3);
  auto guest =
      std::async(std::launch::async, [this] { return qemu_io(a, {"write -P 0x99 4M 64k"}); });
  a.wait_until("a held request", [](const Json& s) { return s["held"]["requests"] == 1; });
  EXPECT_THAT(a.refused("serve", {{"epoch", 9}}), HasSubstr("owner at epoch 2"));
  b.ok("serve", {{"epoch", 3}});
  EXPECT_EQ(qemu_io(b, {"read -P 0x77 4M 64k"}), 0);
  a.ok("stand-by", {{"epoch", 3}, {"outdated", true}});
  EXPECT_NE(guest.get(), 0) << "the guest of the old owner was told that its write is done";
  EXPECT_FALSE(std::filesystem::exists(a.nbd_socket()));
  EXPECT_EQ(a.status()["record"]["state"], "outdated");
  grow(b, 3);
  EXPECT_TRUE(same_images());
  EXPECT_EQ(a.status()["role"], "secondary");
}

TEST_F(EnginePairTest, FreezeHoldsAndTheSessionSurvives) {
  serve(a, 1);
  grow(a, 1);
  a.ok("freeze");
  auto guest = std::async(std::launch::async, [this] { return qemu_io(a, {"write -P 1 0 4k"}); });
  a.wait_until("a held request", [](const Json& s) { return s["held"]["requests"] == 1; });
  EXPECT_EQ(a.status()["session"]["state"], "live");
  a.ok("flush");
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_EQ(guest.get(), 0);
}

TEST_F(EnginePairTest, LeasesAreGrantedWhileTheSessionIsUp) {
  serve(a, 1);
  grow(a, 1);
  const Json first = a.status();
  const Json later = a.wait_until("a later grant", [&](const Json& s) {
    return s["grant"]["received_sent_ns"] > first["grant"]["received_sent_ns"];
  });
  EXPECT_GT(first["grant"]["received_sent_ns"].get<long long>(), 0);
  EXPECT_LT(b.status()["grant"]["given_age_ms"].get<long long>(), 1000);
}

TEST_F(EnginePairTest, AKilledOwnerServesAgainOnlyAtAHigherEpoch) {
  serve(a, 1);
  grow(a, 1);
  a.kill();
  a.start();
  EXPECT_EQ(a.status()["role"], "none");
  EXPECT_FALSE(a.status()["record"]["suspect"].get<bool>());  // the same boot
  EXPECT_THAT(a.refused("serve", {{"epoch", 2}}), HasSubstr("may be in-sync"));
  a.ok("serve", {{"epoch", 3}});
  grow(a, 3);
  EXPECT_TRUE(same_images());
}

TEST_F(EnginePairTest, WhatMustBeRefusedIsRefused) {
  EXPECT_THAT(b.refused("serve", {{"epoch", 1}}), HasSubstr("inconsistent"));
  EXPECT_THAT(a.refused("connect"), HasSubstr("owner role"));
  EXPECT_THAT(a.refused("freeze"), HasSubstr("owner role"));
  EXPECT_THAT(a.refused("shrink", {{"epoch", 2}}), HasSubstr("owner role"));
  a.ok("promise", {{"epoch", 5}});
  EXPECT_THAT(a.refused("promise", {{"epoch", 4}}), HasSubstr("lower than the promised"));
  EXPECT_THAT(a.refused("serve", {{"epoch", 4}}), HasSubstr("lower than the promised"));
  a.ok("serve", {{"epoch", 5}});
  a.ok("serve", {{"epoch", 5}});  // idempotent
  EXPECT_THAT(a.refused("grow-prepare", {{"epoch", 5}}), HasSubstr("not synced"));
  EXPECT_THAT(a.refused("grow-commit", {{"epoch", 6}}), HasSubstr("without grow-prepare"));
  EXPECT_THAT(a.refused("nonsense"), HasSubstr("unknown command"));
  EXPECT_THAT(a.refused("serve", {{"epoch", "five"}}), HasSubstr("epoch"));
  EXPECT_THAT(a.refused("serve", {{"epoch", 5}, {"force", true}}), HasSubstr("force"));
  grow(a, 5);
  EXPECT_THAT(a.refused("disconnect"), HasSubstr("shrink before"));
}

TEST_F(EnginePairTest, QuitAndSigtermEndInOrderAndMarkTheReplicaClean) {
  serve(a, 1);
  EXPECT_EQ(qemu_io(a, {"write -P 3 0 4k"}), 0);
  a.ok("quit");
  EXPECT_EQ(a.wait_for_exit(), 0);
  b.terminate();
  EXPECT_EQ(b.wait_for_exit(), 0);
  EXPECT_THAT(a.log(), HasSubstr("ended in order"));
  EXPECT_THAT(b.log(), HasSubstr("ended in order"));
  a.start();
  a.ok("serve", {{"epoch", 1}});
  EXPECT_EQ(qemu_io(a, {"read -P 3 0 4k"}), 0);
}

TEST_F(EnginePairTest, TwoEnginesOfOneVmDoNotRun) {
  EngineProcess second(PairPlan{plan.directory + "/b", pair_disk_bytes, 1, 2}, "a");
  second.config = a.config;
  second.config["control_socket"] = second.directory() + "/control.sock";
  EXPECT_NE(second.create("uptodate"), 0);
  EXPECT_THAT(second.log(), HasSubstr("in use"));
}

TEST_F(EnginePairTest, BadConfigurationsEndWithOneClearSentence) {
  const auto complains = [this](const std::string& about, const std::function<void(Json&)>& spoil) {
    const PairPlan own = make_pair_plan(pair_disk_bytes);
    EngineProcess e(own, "a");
    spoil(e.config);
    EXPECT_EQ(e.create("uptodate"), 1);
    EXPECT_THAT(e.log(), HasSubstr(about));
    std::filesystem::remove_all(own.directory);
  };
  complains("unknown key 'colour'", [](Json& c) { c["colour"] = "red"; });
  complains("partner", [](Json& c) { c.erase("partner"); });
  complains("65536", [](Json& c) { c["listen"][0]["port"] = 65536; });
  complains("not a numeric", [](Json& c) { c["listen"][0]["address"] = "localhost"; });
  complains("No such file", [](Json& c) { c["disks"][0]["path"] = "/nonexistent/disk"; });
  complains("size", [](Json& c) { c["disks"][0]["size"] = pair_disk_bytes * 2; });
  complains("at least one disk", [](Json& c) { c["disks"] = Json::array(); });
  complains("session_timeout_ms", [](Json& c) { c["timing"]["session_timeout_ms"] = 10; });
  complains("octal", [](Json& c) { c["nbd_socket_mode"] = "rw"; });
}

TEST_F(EnginePairTest, APortInUseIsToldAtTheStart) {
  const PairPlan own = make_pair_plan(pair_disk_bytes);
  EngineProcess e(own, "a");
  e.config["listen"] = a.config["listen"];
  ASSERT_EQ(e.create("uptodate"), 0);
  // --create does not listen; the start does.
  const ProgramRun run =
      run_program({HAVM_REPL_PROGRAM, "--config", e.directory() + "/config.json"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.errors, HasSubstr("port"));
  std::filesystem::remove_all(own.directory);
}

// The broken build answers the guest before the partner has the data: with a partner that is frozen
// in the middle, the right engine holds the guest and the broken one does not.
class BrokenAckTest : public testing::Test {
 protected:
  // True when a guest write completes although the partner cannot have acked it.
  static bool acks_without_partner(const std::string& program) {
    const PairPlan plan = make_pair_plan(pair_disk_bytes);
    bool acked = false;
    {
      EngineProcess a(plan, "a", program);
      EngineProcess b(plan, "b", program);
      EXPECT_EQ(a.create("uptodate"), 0);
      EXPECT_EQ(b.create("inconsistent"), 0);
      a.start();
      b.start();
      a.ok("promise", {{"epoch", 1}});
      a.ok("serve", {{"epoch", 1}});
      a.ok("connect");
      a.wait_for_session("synced");
      a.ok("grow-prepare", {{"epoch", 1}});
      a.ok("grow-commit", {{"epoch", 2}});
      b.stop();
      const ProgramRun run = run_program(
          {"qemu-io", "-f", "raw", "-c", "write -P 1 0 4k", nbd_uri(a.nbd_socket(), "vda")}, {},
          std::chrono::seconds(4));
      acked = run.exit_code == 0;
    }
    std::filesystem::remove_all(plan.directory);
    return acked;
  }
};

TEST_F(BrokenAckTest, TheRealEngineNeverAcksWithoutThePartner) {
  HAVM_NEED_PROGRAM("qemu-io");
  EXPECT_FALSE(acks_without_partner(HAVM_REPL_PROGRAM));
}

TEST_F(BrokenAckTest, TheBrokenBuildDoes) {
  HAVM_NEED_PROGRAM("qemu-io");
  EXPECT_TRUE(acks_without_partner(HAVM_REPL_BROKEN_PROGRAM));
}

}  // namespace
}  // namespace havm
