#include <gtest/gtest.h>

#include "agent/policy/timing.hpp"
#include "tests/unit/agent/policy/finding_matchers.hpp"

namespace havm {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;

std::vector<Finding> check(const Timing& timing) {
  Findings findings;
  check_timing(timing, "/timing", findings);
  return findings.list();
}

TEST(Timing, ProfilesKeepTheInequality) {
  EXPECT_THAT(check(*timing_profile("default")), ElementsAre());
  EXPECT_THAT(check(*timing_profile("slow")), ElementsAre());
  EXPECT_EQ(timing_profile("fast"), std::nullopt);
}

TEST(Timing, SlowIsFourTimesDefault) {
  const Timing slow = *timing_profile("slow");
  EXPECT_EQ(slow.lease, milliseconds(24'000));
  EXPECT_EQ(slow.heartbeat_interval, milliseconds(1000));
  EXPECT_EQ(slow.session_timeout, milliseconds(8000));
  EXPECT_EQ(slow.boot_grace, milliseconds(120'000));
  EXPECT_EQ(slow.drift_ppm, 10'000);
}

TEST(Timing, DeadlinesOfTheDefaultLease) {
  const Timing timing;
  EXPECT_EQ(timing.pause_after(), milliseconds(1800));
  EXPECT_EQ(timing.kill_after(), milliseconds(2700));
  EXPECT_EQ(timing.gone_after(), milliseconds(3600));
  EXPECT_EQ(timing.successor_wait(), milliseconds(6060));
}

TEST(Timing, SuccessorWaitIsRoundedUp) {
  Timing timing;
  timing.lease = milliseconds(1001);
  timing.drift_ppm = 1;
  EXPECT_EQ(timing.successor_wait(), milliseconds(1002));
}

TEST(Timing, LateRenewalMustNotPauseAHealthyVm) {
  Timing timing;
  timing.lease = milliseconds(2000);
  EXPECT_THAT(
      check(timing),
      ElementsAre(finding("/timing/lease",
                          "0.3 × lease = 0.3 × 2s = 600ms after its last grant, but a renewal "
                          "may take 2 × 250ms + 250ms = 750ms")));
  timing.lease = milliseconds(2501);  // 0.3 T = 750.3 ms, rounded to 750: not more than 750
  EXPECT_EQ(check(timing).size(), 1U);
  timing.lease = milliseconds(2504);
  EXPECT_THAT(check(timing), ElementsAre());
}

TEST(Timing, TheSlowerOfBothRenewalsCounts) {
  Timing timing;
  timing.session_keepalive = milliseconds(500);
  timing.lease = milliseconds(4000);  // 1.2 s < 2 × 500 ms + 250 ms
  EXPECT_THAT(check(timing), ElementsAre(finding("/timing/lease", "2 × 500ms + 250ms = 1250ms")));
}

TEST(Timing, DriftMustLeaveTimeBeforeTheLeaseEnds) {
  Timing timing;
  timing.drift_ppm = 400'000;
  EXPECT_THAT(check(timing), ElementsAre(finding("/timing/drift_ppm", "400000 ppm")));
  timing.drift_ppm = 399'999;
  EXPECT_THAT(check(timing), ElementsAre());
}

TEST(Timing, FewLostMessagesAreNoFailure) {
  Timing timing;
  timing.peer_timeout = milliseconds(999);
  timing.session_timeout = milliseconds(500);
  EXPECT_THAT(check(timing), ElementsAre(finding("/timing/peer_timeout",
                                                 "4 × 250ms = 1s is more than peer_timeout"),
                                         finding("/timing/session_timeout", "4 × 250ms = 1s")));
}

TEST(Timing, GraceCoversThePeerTimeout) {
  Timing timing;
  timing.boot_grace = milliseconds(1999);
  EXPECT_THAT(check(timing),
              ElementsAre(finding("/timing/boot_grace", "less than peer_timeout = 2s")));
}

TEST(Timing, EveryDurationHasARange) {
  Timing timing;
  timing.heartbeat_interval = milliseconds(9);
  timing.lease = milliseconds(600'001);
  EXPECT_THAT(check(timing), ElementsAre(finding("/timing/heartbeat_interval",
                                                 "9ms is out of range: expected 10ms"),
                                         finding("/timing/lease", "to 10min")));
}

}  // namespace
}  // namespace havm
