// When a hand-over that its partner does not take up may be called off.
#include <gtest/gtest.h>

#include "agent/failover/failover_core.hpp"

namespace havm {
namespace {

class HandoverRuleTest : public testing::Test {
 protected:
  HandoverRuleTest() {
    FailoverConfig config;
    config.self = "a";
    config.partner = "b";
    config.lease = std::chrono::seconds(6);
    config.handover_timeout = std::chrono::seconds(10);
    state = make_state(config, from_ns(0));
    state.reg = RegisterView{Epoch(4), Side::self, true, true};
    state.engine.emplace();
    state.engine->role = EngineRole::owner;
    state.engine->epoch = Epoch(4);
    state.engine->state = ReplicaState::uptodate;
    state.engine->in_sync = RecordedSet::both;
    state.engine->session = SessionState::live;
    state.partner_alive = true;
    state.handover = Handover{Epoch(4), from_ns(0), false, {}, false, false};
    state.now = from_ns(0) + std::chrono::seconds(11);
  }
  State state;
};

// A trace that lost a completed write: the hand-over begins, the guest cannot be stopped in time,
// the own replica is flushed, the guest writes (both replicas have it, nobody flushed it), the
// register is swapped to this node alone, its host loses its power.
TEST_F(HandoverRuleTest, IsNeverCalledOffWhileTheGuestMayRun) {
  for (const VmState vm :
       {VmState::running, VmState::paused, VmState::paused_by_error, VmState::unknown}) {
    state.vm = vm;
    for (const bool flushed : {false, true}) {
      state.handover->flushed = flushed;
      const Verdict verdict = decide_owner(state);
      EXPECT_FALSE(verdict.decision.action.has_value()) << verdict.decision.kind;
      EXPECT_NE(verdict.decision.reason.find("the VM does not stop"), std::string::npos);
      EXPECT_TRUE(state.handover.has_value());
    }
  }
}

TEST_F(HandoverRuleTest, IsCalledOffByFlushAndSwapWhenTheGuestIsGone) {
  state.vm = VmState::off;
  const Verdict flush = decide_owner(state);
  ASSERT_TRUE(flush.decision.action.has_value());
  EXPECT_TRUE(std::holds_alternative<EngineFlush>(*flush.decision.action));
  state.handover->flushed = true;
  const Verdict swap = decide_owner(state);
  ASSERT_TRUE(swap.decision.action.has_value());
  EXPECT_EQ(swap.decision.kind, "handover-failed");
  EXPECT_FALSE(state.handover.has_value());
}

}  // namespace
}  // namespace havm
