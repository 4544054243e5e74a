// When a partner is slow, and when it may come back: with simulated latencies, on a clock of the
// test's own.
#include <cstdint>
#include <optional>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vmrepl/session/slow_partner_core.hpp"

namespace havm {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::HasSubstr;

// ---- the meter -------------------------------------------------------------------------------

TEST(LatencyMeter, KnowsTheOldestThatIsNotFinished) {
  LatencyMeter meter;
  EXPECT_EQ(meter.oldest(from_ns(5)), Duration{0});
  meter.begin(1, from_ns(10));
  meter.begin(2, from_ns(20));
  EXPECT_EQ(meter.oldest(from_ns(50)), Duration{40});
  EXPECT_TRUE(meter.end(1, from_ns(50)));
  EXPECT_EQ(meter.oldest(from_ns(50)), Duration{30});
  EXPECT_FALSE(meter.end(1, from_ns(60)));
  EXPECT_EQ(meter.open(), 1U);
}

TEST(LatencyMeter, APercentileIsNeverBelowTheTrueOneAndAtMostAQuarterAbove) {
  for (std::int64_t us = 1; us < 100'000'000; us = us * 5 / 4 + 1) {
    LatencyMeter meter;
    const TimePoint start = from_ns(0);
    const TimePoint end = start + std::chrono::microseconds(us);
    const TimePoint far = end + std::chrono::microseconds(us);
    // 200 of this length and two of twice that, which are more than a hundredth.
    for (std::uint64_t i = 0; i < 200; ++i) {
      meter.begin(i, start);
      meter.end(i, end);
    }
    const auto p = meter.percentile_99(end);
    EXPECT_GE(p, end - start);
    EXPECT_LE(p, (end - start) * 5 / 4 + std::chrono::microseconds(1));
    meter.begin(1000, end);
    EXPECT_TRUE(meter.end(1000, end + (far - end)));
  }
}

TEST(LatencyMeter, OneInAHundredIsNoPercentile) {
  LatencyMeter meter;
  const TimePoint start = from_ns(0);
  const TimePoint now = start + milliseconds(900);
  meter.begin(0, start);
  meter.end(0, now);
  for (std::uint64_t i = 1; i < 100; ++i) {
    meter.begin(i, now - milliseconds(1));
    meter.end(i, now);
  }
  EXPECT_LT(meter.percentile_99(now), milliseconds(2));
  meter.begin(100, start);
  meter.end(100, now);
  EXPECT_EQ(meter.percentile_99(now), milliseconds(900));
}

TEST(LatencyMeter, ForgetsWhatFinishedLongAgo) {
  LatencyMeter meter;
  meter.begin(1, from_ns(0));
  meter.end(1, from_ns(0) + milliseconds(500));
  EXPECT_EQ(meter.percentile_99(from_ns(0) + milliseconds(1999)), milliseconds(500));
  EXPECT_EQ(meter.percentile_99(from_ns(0) + milliseconds(2000)), Duration{0});
}

// ---- the verdict -----------------------------------------------------------------------------

class SlowPartner : public testing::Test {
 protected:
  static constexpr milliseconds tick{250};

  SlowPartner() { core.session_opened(now); }

  // The guest writes every `tick`; the legs answer a write so long after it. No answer: never.
  struct Pattern {
    std::optional<Duration> partner;
    Duration own{milliseconds(1)};
  };
  // Each write ends within the call, or stays open when the partner does not answer.
  void one(const Pattern& p) {
    now += tick;
    core.sent(Sequence(next), now);
    const auto own = core.own_began(now);
    pending.push_back({next, own, now, p});
    ++next;
    std::erase_if(pending, [&](Write& w) {
      if (w.own && now >= w.at + w.pattern.own) {
        core.own_ended(*w.own, now);
        w.own.reset();
      }
      if (w.partner && w.pattern.partner && now >= w.at + *w.pattern.partner) {
        core.answered(Sequence(w.number), now);
        w.partner = false;
      }
      return !w.own && !w.partner;
    });
    core.judge(now);
  }
  void run(Duration time, const Pattern& p) {
    for (Duration d{0}; d < time; d += tick)
      one(p);
  }
  // Until it is slow; the time that took.
  std::optional<Duration> until_slow(Duration at_most, const Pattern& p) {
    const TimePoint began = now;
    while (now - began < at_most) {
      one(p);
      if (core.is_slow()) return now - began;
    }
    return std::nullopt;
  }
  void leave_and_return() {
    core.left_behind(now);
    core.session_ended();
    pending.clear();
    now += core.backoff_left(now);
    core.session_opened(now);
  }

  struct Write {
    std::uint64_t number;
    std::optional<std::uint64_t> own;
    TimePoint at;
    Pattern pattern;
    bool partner = true;
  };
  const Pattern fast{milliseconds(5)};
  const Pattern stalled{};
  TimePoint now = from_ns(0) + seconds(1000);
  std::uint64_t next = 2;
  std::vector<Write> pending;
  SlowPartnerCore core{SlowPartnerLimits{}};
};

TEST_F(SlowPartner, AFastOneIsNotSlow) {
  EXPECT_EQ(until_slow(minutes(10), fast), std::nullopt);
  EXPECT_EQ(core.bad_time(), Duration{0});
  EXPECT_TRUE(core.may_end_resync(now));
  EXPECT_TRUE(core.may_connect(now));
}

TEST_F(SlowPartner, AStalledOneIsSlowAfterLimitAndPatience) {
  run(minutes(1), fast);
  const auto took = until_slow(minutes(1), stalled);
  ASSERT_TRUE(took);
  EXPECT_GE(*took, seconds(7));
  EXPECT_LE(*took, seconds(8));
  EXPECT_THAT(core.reason(), HasSubstr("slow partner: "));
  EXPECT_THAT(core.reason(), HasSubstr("5000 ms above the limit of 2000 ms"));
}

TEST_F(SlowPartner, OneThatAnswersEachWriteLateIsSlow) {
  EXPECT_TRUE(until_slow(seconds(12), {seconds(3)}));
}

TEST_F(SlowPartner, OneBelowTheLimitIsNeverSlow) {
  EXPECT_EQ(until_slow(minutes(10), {milliseconds(1500)}), std::nullopt);
}

TEST_F(SlowPartner, OneHiccupIsNoReason) {
  run(minutes(1), fast);
  run(seconds(5), stalled);
  for (const Write& w : pending)
    if (w.partner) core.answered(Sequence(w.number), now);
  pending.clear();
  EXPECT_EQ(until_slow(minutes(1), fast), std::nullopt);
  EXPECT_EQ(core.bad_time(), Duration{0});
}

TEST_F(SlowPartner, FlappingIsSlowInTheEnd) {
  bool found = false;
  for (int i = 0; i < 20 && !found; ++i) {
    found = until_slow(seconds(4), {seconds(3)}).has_value() || until_slow(seconds(2), fast);
  }
  EXPECT_TRUE(found);
}

TEST_F(SlowPartner, HiccupsThatAreRareAreForgiven) {
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(until_slow(seconds(3), {milliseconds(2600)}), std::nullopt);
    EXPECT_EQ(until_slow(seconds(30), fast), std::nullopt);
  }
}

TEST_F(SlowPartner, AtTheEdgeNothingChanges) {
  run(seconds(1), {milliseconds(2600)});
  run(seconds(3), fast);
  const Duration before = core.bad_time();
  EXPECT_GT(before, Duration{0});
  run(seconds(3), fast);  // what was late is answered
  const Duration after = core.bad_time();
  run(minutes(1), {milliseconds(1500)});
  EXPECT_LE(core.bad_time(), after);
  EXPECT_FALSE(core.is_slow());
}

// Both disks on one busy array, or this host under load: leaving the partner would not help.
TEST_F(SlowPartner, IsNotSlowWhenTheOwnDiskIsAsSlow) {
  EXPECT_EQ(until_slow(minutes(5), {seconds(4), seconds(3)}), std::nullopt);
  EXPECT_TRUE(until_slow(minutes(5), {seconds(4), milliseconds(500)}));
}

TEST_F(SlowPartner, AnIdleGuestIsNoEvidence) {
  for (int i = 0; i < 1000; ++i) {
    now += tick;
    core.judge(now);
  }
  EXPECT_FALSE(core.is_slow());
}

TEST_F(SlowPartner, ATimeInWhichThisProcessStoodStillIsNotHeldAgainstIt) {
  run(minutes(1), fast);
  core.sent(Sequence(next), now);
  now += minutes(1);
  core.judge(now);
  EXPECT_FALSE(core.is_slow());
  core.answered(Sequence(next), now);
  ++next;
  EXPECT_EQ(until_slow(minutes(1), fast), std::nullopt);
}

TEST_F(SlowPartner, StaysSlowUntilHalfIsWorkedOff) {
  ASSERT_TRUE(until_slow(minutes(1), stalled));
  for (const Write& w : pending)
    if (w.partner) core.answered(Sequence(w.number), now);
  pending.clear();
  run(seconds(4), fast);
  EXPECT_TRUE(core.is_slow());
  run(seconds(5), fast);
  EXPECT_FALSE(core.is_slow());
  EXPECT_NE(core.reason(), "") << "it stays to be read";
}

TEST_F(SlowPartner, SwitchedOffItIsNeverSlow) {
  SlowPartnerLimits off;
  off.limit = milliseconds(0);
  core = SlowPartnerCore(off);
  core.session_opened(now);
  EXPECT_EQ(until_slow(minutes(5), stalled), std::nullopt);
}

TEST_F(SlowPartner, WhileAResyncCopiesOnlySilenceCounts) {
  core.copying(true);
  for (int i = 0; i < 200; ++i) {
    one({seconds(4)});  // behind copies, which are answered
    core.answered(Sequence(1'000'000), now);
    ASSERT_FALSE(core.is_slow());
  }
  EXPECT_TRUE(until_slow(seconds(12), stalled));
}

// ---- coming back -----------------------------------------------------------------------------

TEST_F(SlowPartner, TheBackOffGrowsAndHasAnEnd) {
  Duration expected = seconds(30);
  for (int i = 0; i < 12; ++i) {
    core.left_behind(now);
    EXPECT_EQ(core.backoff_left(now), expected);
    EXPECT_FALSE(core.may_connect(now + expected - milliseconds(1)));
    EXPECT_TRUE(core.may_connect(now + expected));
    expected = std::min<Duration>(2 * expected, minutes(30));
  }
  EXPECT_EQ(core.times_left(), 12U);
}

TEST_F(SlowPartner, OnProbationTheResyncDoesNotEndBeforeItWasGoodForAWhile) {
  leave_and_return();
  EXPECT_FALSE(core.may_end_resync(now));
  run(seconds(9), fast);
  EXPECT_FALSE(core.may_end_resync(now));
  run(seconds(3), {milliseconds(2300)});
  run(seconds(9), fast);
  EXPECT_FALSE(core.may_end_resync(now)) << "it was bad meanwhile";
  run(seconds(8), fast);
  EXPECT_TRUE(core.may_end_resync(now));
}

TEST_F(SlowPartner, OnProbationASecondIsEnough) {
  leave_and_return();
  const auto took = until_slow(minutes(1), stalled);
  ASSERT_TRUE(took);
  EXPECT_LE(*took, seconds(4));
}

TEST_F(SlowPartner, AnHourWithoutBadTimeForgetsWhatWas) {
  leave_and_return();
  run(minutes(59), fast);
  EXPECT_EQ(core.times_left(), 1U);
  run(minutes(2), fast);
  EXPECT_EQ(core.times_left(), 0U);
  EXPECT_EQ(core.reason(), "");
}

TEST_F(SlowPartner, AnotherSessionStartsWithoutTheRequestsOfTheOld) {
  run(seconds(5), stalled);
  core.session_ended();
  EXPECT_EQ(core.partner_latency(now), Duration{0});
  core.session_opened(now);
  next = 2;
  pending.clear();
  EXPECT_EQ(until_slow(minutes(1), fast), std::nullopt);
}

}  // namespace
}  // namespace havm
