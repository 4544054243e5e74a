// Resyncs that wait: paused by a person, queued by the agent. Two real engines.
#include <gmock/gmock.h>

#include "tests/unit/vmrepl/session/engine_pair.hpp"

namespace havm {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

constexpr std::uint64_t mib = 1ULL << 20;

class EngineResyncPauseTest : public EnginePair {
 protected:
  // An owner alone at epoch 3, whose partner lacks 32 MiB and is away.
  void SetUp() override {
    HAVM_NEED_PROGRAM("qemu-io");
    HAVM_NEED_PROGRAM("nbdcopy");
    start_live_and_filled();
    b.kill();
    a.wait_for_session("none");
    a.ok("shrink", {{"epoch", 3}});
    EXPECT_EQ(qemu_io(a, {"write -P 0x51 0 32M", "flush"}), 0);
  }
  // Under way: writes are streamed from here on.
  Json wait_for_resync() {
    return a.wait_until("a resync", [](const Json& s) { return s["sync"]["active"] == true; });
  }
  void start_waiting_resync(const std::string& state) {
    b.start();
    a.ok("connect");
    EXPECT_EQ(wait_for_resync()["sync"]["state"], state);
  }
  // Of the image itself.
  testing::AssertionResult partner_has(const std::string& pattern) {
    const ProgramRun run =
        run_program({"qemu-io", "-U", "-f", "raw", "-r", "-c", "read -P " + pattern, b.image()});
    if (run.exit_code == 0 && run.output.find("Pattern verification failed") == std::string::npos)
      return testing::AssertionSuccess();
    return testing::AssertionFailure() << run.output << run.errors;
  }
};

TEST_F(EngineResyncPauseTest, APausedResyncStreamsWritesAndCopiesNothing) {
  a.ok("resync-pause", {{"reason", "backup runs"}});
  start_waiting_resync("paused");
  EXPECT_EQ(qemu_io(a, {"write -P 0x52 50M 64k", "write -P 0x53 1M 64k", "flush"}), 0);
  EXPECT_TRUE(partner_has("0x52 50M 64k"));
  EXPECT_TRUE(partner_has("0x53 1M 64k"));
  const Json paused = a.status();
  EXPECT_EQ(paused["session"]["state"], "syncing");
  EXPECT_EQ(paused["sync"]["reason"], "backup runs");
  EXPECT_EQ(paused["sync"]["done_bytes"], 0);
  EXPECT_EQ(paused["sync"]["rate_bytes_per_s"], 0);
  EXPECT_TRUE(paused["sync"]["left_s"].is_null());
  EXPECT_GE(paused["dirty_bytes"].get<std::uint64_t>(), 32 * mib);
  EXPECT_EQ(b.status()["record"]["state"], "inconsistent");

  a.forget_events();
  a.ok("resync-resume");
  EXPECT_TRUE(a.wait_for_event("resync")["reason"].is_null());
  grow(a, 3);
  EXPECT_EQ(a.status()["sync"]["state"], "none");
  EXPECT_TRUE(same_images());
}

TEST_F(EngineResyncPauseTest, APauseOutlivesBothEngines) {
  a.ok("resync-pause", {{"reason", "until the new disk is there"}});
  start_waiting_resync("paused");
  b.kill();
  a.wait_for_session("connecting");
  b.start();
  EXPECT_EQ(wait_for_resync()["sync"]["state"], "paused");
  a.kill();
  a.start();
  EXPECT_EQ(a.status()["sync"]["reason"], "until the new disk is there");
  a.ok("serve", {{"epoch", 3}});
  a.ok("connect");
  const Json again = wait_for_resync();
  EXPECT_EQ(again["sync"]["state"], "paused");
  EXPECT_EQ(again["sync"]["done_bytes"], 0);
  a.ok("resync-resume");
  grow(a, 3);
  EXPECT_TRUE(same_images());
  a.ok("quit");
  EXPECT_EQ(a.wait_for_exit(), 0);
  a.start();
  EXPECT_EQ(a.status()["sync"]["state"], "none");
}

TEST_F(EngineResyncPauseTest, TheQueuesHoldEndsByItselfWhenNobodyRenewsIt) {
  a.ok("resync-pause", {{"by", "queue"}, {"reason", "db is before it"}, {"for_ms", 600000}});
  start_waiting_resync("queued");
  EXPECT_EQ(a.status()["sync"]["reason"], "db is before it");
  EXPECT_GT(a.status()["sync"]["queued_for_ms"].get<std::int64_t>(), 300'000);
  a.ok("resync-pause", {{"by", "queue"}, {"reason", "for the last time"}, {"for_ms", 1}});
  grow(a, 3);  // waits until it is synced
  EXPECT_TRUE(same_images());
}

TEST_F(EngineResyncPauseTest, APersonsPauseStaysWhenTheQueueLetsGo) {
  a.ok("resync-pause", {{"by", "queue"}, {"reason", "db is before it"}, {"for_ms", 60000}});
  a.ok("resync-pause", {{"reason", "no"}});
  start_waiting_resync("paused");
  a.ok("resync-resume", {{"by", "queue"}});
  const Json s = a.status();
  EXPECT_EQ(s["sync"]["state"], "paused");
  EXPECT_TRUE(s["sync"]["queued_for_ms"].is_null());
  // Who is owner later begins without it.
  a.ok("stand-by", {{"epoch", 3}});
  EXPECT_EQ(a.status()["sync"]["state"], "none");
}

TEST_F(EngineResyncPauseTest, WhatMakesNoSenseIsRefused) {
  EXPECT_THAT(a.refused("resync-pause"), HasSubstr("'reason'"));
  EXPECT_THAT(a.refused("resync-pause", {{"reason", ""}}), HasSubstr("'reason'"));
  EXPECT_THAT(a.refused("resync-pause", {{"reason", std::string(2000, 'x')}}),
              HasSubstr("'reason'"));
  EXPECT_THAT(a.refused("resync-pause", {{"reason", "x"}, {"for_ms", 5}}), HasSubstr("for_ms"));
  EXPECT_THAT(a.refused("resync-pause", {{"reason", "x"}, {"by", "queue"}}), HasSubstr("for_ms"));
  EXPECT_THAT(a.refused("resync-pause", {{"reason", "x"}, {"by", "me"}}), HasSubstr("'by'"));
  EXPECT_THAT(a.refused("resync-pause", {{"reason", "x"}, {"for", 1}}), HasSubstr("unknown"));
  EXPECT_THAT(a.refused("resync-resume", {{"by", 7}}), HasSubstr("'by'"));
  EXPECT_EQ(a.status()["sync"]["state"], "none");
  b.start();
  EXPECT_THAT(b.refused("resync-pause", {{"reason", "x"}}), HasSubstr("owner role"));
}

TEST_F(EngineResyncPauseTest, ADamagedPauseFileStillMeansPaused) {
  a.kill();
  std::ofstream(a.config["record"].get<std::string>() + ".resync-pause") << "{";
  a.start();
  const Json s = a.status();
  EXPECT_EQ(s["sync"]["state"], "paused");
  EXPECT_THAT(s["sync"]["reason"].get<std::string>(), HasSubstr("damaged"));
}

}  // namespace
}  // namespace havm
