// Two real engines and a partner that is heard, but answers late: the guest must not wait for it
// for ever. The tests play the agent.
#include <future>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/vmrepl/session/engine_pair.hpp"
#include "tests/unit/vmrepl/session/tcp_proxy.hpp"
#include "vmrepl/base/clock.hpp"

namespace havm {
namespace {

using Json = nlohmann::json;
using Way = TcpProxy::Way;
using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr int probation_ms = 1500;

class EngineSlowPartner : public EnginePair {
 protected:
  EngineSlowPartner() : EnginePair(4U << 20), to_b(plan.port_b) {
    a.config["partner_addresses"][0]["port"] = to_b.port();
    for (EngineProcess* e : {&a, &b}) {
      e->config["timing"] = {
          {"keepalive_ms", 50}, {"session_timeout_ms", 5000}, {"lease_ms", 6000}};
      e->config["slow_partner"] = {{"limit_ms", 200},
                                   {"patience_ms", 500},
                                   {"probation_ms", probation_ms},
                                   {"backoff_ms", 500}};
    }
  }
  void SetUp() override { HAVM_NEED_PROGRAM("qemu-io"); }
  void start_live() {
    start_pair();
    serve(a, 1);
    grow(a, 1);
  }
  void slow_down() {
    for (const Way way : {Way::to_server, Way::to_client})
      to_b.delay(way, milliseconds(300));
  }
  // Writes one after the other; each waits for both replicas.
  static std::vector<std::string> writes(int count) {
    std::vector<std::string> commands;
    for (int i = 0; i < count; ++i)
      commands.push_back("write -P " + std::to_string(i + 1) + " " + std::to_string(i * 64) +
                         "k 64k");
    return commands;
  }
  static bool is_slow(const Json& status) { return status["session"]["slow"]["is_slow"]; }

  TcpProxy to_b;
};

TEST_F(EngineSlowPartner, IsReportedAndLeftInTheOrderOfALoss) {
  start_live();
  EXPECT_THAT(a.refused("leave-slow-partner"), HasSubstr("not slow"));
  slow_down();
  auto waiting = guest(a, writes(30));
  const Json event = a.wait_for_event("partner-slow");
  EXPECT_EQ(event["slow"], true);
  EXPECT_THAT(event["reason"].get<std::string>(), HasSubstr("above the limit of 200 ms"));
  // The partner may be in-sync: only the agent knows whether the arbiter answers.
  EXPECT_EQ(a.status()["session"]["state"], "live");
  a.ok("leave-slow-partner");
  a.wait_for_session("none");
  EXPECT_TRUE(is_held(a, waiting));
  b.wait_until("the reason in its log", [this](const Json&) {
    return b.log().find("the owner ends the session: slow partner: ") != std::string::npos;
  });
  a.ok("flush");
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_EQ(waiting.get(), 0);
  const Json alone = a.status();
  EXPECT_THAT(alone["session"]["slow"]["reason"].get<std::string>(), HasSubstr("slow partner: "));
  EXPECT_EQ(alone["session"]["slow"]["times_left"], 1);
  to_b.heal();
  grow(a, 3);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineSlowPartner, IsNotAskedForWhileTheOwnerIsAloneAndComesBackOnProbation) {
  start_pair();
  serve(a, 1);
  slow_down();
  a.ok("connect");
  a.wait_for_session("synced");
  auto waiting = guest(a, writes(30));
  a.wait_for_event("partner-slow");
  a.wait_until("the end of the session",
               [](const Json& s) { return s["session"]["slow"]["times_left"].get<int>() > 0; });
  to_b.heal();
  a.wait_for_session("syncing");
  const auto back = BootClock::now();
  a.wait_for_session("synced");
  EXPECT_GE(to_ms(BootClock::now() - back), probation_ms / 2) << "it grew without a probation";
  EXPECT_FALSE(is_slow(a.status()));
  EXPECT_EQ(waiting.get(), 0);
  grow(a, 1);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineSlowPartner, IsWaitedForWhereThatIsSwitchedOff) {
  a.config["slow_partner"]["limit_ms"] = 0;
  start_live();
  slow_down();
  EXPECT_EQ(qemu_io(a, writes(4)), 0);
  const Json status = a.status();
  EXPECT_EQ(status["session"]["state"], "live");
  EXPECT_FALSE(is_slow(status));
  EXPECT_EQ(status["session"]["slow"]["bad_ms"], 0);
  EXPECT_TRUE(same_images());
}

}  // namespace
}  // namespace havm
