#include "agent/liveness/peer_liveness_core.hpp"

#include <gtest/gtest.h>

namespace havm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const TimePoint start = TimePoint(seconds(100));

LivenessConfig config() {
  LivenessConfig c;
  c.tick = milliseconds(250);
  c.timeout = milliseconds(2000);
  c.boot_grace = milliseconds(30000);
  c.links = 2;
  return c;
}

// Ticks until the state changes or `limit` has passed; returns the time that took.
Duration ticks_until_change(PeerLiveness& l, TimePoint& now, Duration limit) {
  const TimePoint from = now;
  while (now - from < limit) {
    now += milliseconds(250);
    if (l.tick(now) != LivenessChange::none) return now - from;
  }
  return limit;
}

TEST(PeerLiveness, A_partner_is_silent_after_the_timeout_and_not_before) {
  PeerLiveness l(config(), start);
  TimePoint now = start;
  EXPECT_EQ(LivenessChange::heard, l.heartbeat(0, "boot1", 1, now));
  EXPECT_EQ(Duration(milliseconds(2000)), ticks_until_change(l, now, seconds(10)));
  EXPECT_EQ(PeerState::silent, l.state());
  EXPECT_EQ(LivenessChange::heard, l.heartbeat(1, "boot1", 2, now)) << "any link will do";
}

TEST(PeerLiveness, LV1_a_gap_in_which_this_process_did_not_run_proves_nothing) {
  PeerLiveness l(config(), start);
  TimePoint now = start;
  l.heartbeat(0, "boot1", 1, now);
  now += seconds(60);
  EXPECT_EQ(LivenessChange::none, l.tick(now));
  EXPECT_EQ(PeerState::up, l.state());
  EXPECT_EQ(Duration(milliseconds(2000)), ticks_until_change(l, now, seconds(10)));
}

TEST(PeerLiveness, LV2_a_node_never_heard_is_unknown_until_the_boot_grace_is_over) {
  PeerLiveness l(config(), start);
  TimePoint now = start;
  EXPECT_EQ(Duration(seconds(30)), ticks_until_change(l, now, seconds(60)));
}

TEST(PeerLiveness, LV3_a_repeated_counter_is_no_sign_of_life_a_new_boot_is) {
  PeerLiveness l(config(), start);
  TimePoint now = start;
  l.heartbeat(0, "boot1", 5, now);
  for (int i = 0; i < 7; ++i) {
    now += milliseconds(250);
    EXPECT_EQ(LivenessChange::none, l.heartbeat(1, "boot1", 5, now));
    EXPECT_EQ(LivenessChange::none, l.tick(now));
  }
  now += milliseconds(250);
  EXPECT_EQ(LivenessChange::silent, l.tick(now));
  EXPECT_EQ(LivenessChange::rebooted, l.heartbeat(0, "boot2", 1, now));
  EXPECT_EQ(PeerState::up, l.state());
}

TEST(PeerLiveness, tells_the_silence_of_each_link) {
  PeerLiveness l(config(), start);
  l.heartbeat(0, "boot1", 1, start);
  EXPECT_EQ(Duration(seconds(1)), l.link_silent(0, start + seconds(1)));
  EXPECT_FALSE(l.link_silent(1, start).has_value());
}

}  // namespace
}  // namespace havm
