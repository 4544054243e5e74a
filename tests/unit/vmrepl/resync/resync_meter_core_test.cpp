// Progress as people see it, latencies, and who holds a resync.
#include "vmrepl/resync/resync_meter_core.hpp"

#include <algorithm>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "vmrepl/resync/latency_window_core.hpp"
#include "vmrepl/resync/resync_holds_core.hpp"

namespace havm {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t mib = 1ULL << 20;

struct Course {
  TimePoint now{seconds(10)};
  ResyncMeter meter;
  std::uint64_t done = 0;

  explicit Course(std::uint64_t total) { meter.begin(now, total); }
  void go(Duration time, std::uint64_t bytes_per_s, bool moves = true) {
    for (Duration passed{0}; passed < time; passed += milliseconds(250)) {
      now += milliseconds(250);
      done += bytes_per_s / 4;
      meter.look(now, done, moves);
    }
  }
};

TEST(ResyncMeterTest, TellsRateAndTimeLeft) {
  Course c(1000 * mib);
  c.go(milliseconds(500), 10 * mib);
  EXPECT_FALSE(c.meter.left());
  c.go(seconds(10), 10 * mib);
  EXPECT_NEAR(static_cast<double>(c.meter.rate_bytes_per_s()), 10.0 * mib, 0.1 * mib);
  const std::uint64_t left = (1000 * mib - c.done) / (10 * mib);
  ASSERT_TRUE(c.meter.left());
  EXPECT_NEAR(static_cast<double>(c.meter.left()->count()), static_cast<double>(left), 2);
}

TEST(ResyncMeterTest, AShortStallDoesNotMakeItJump) {
  Course c(100'000 * mib);
  c.go(seconds(30), 100 * mib);
  c.go(milliseconds(1000), 0);
  EXPECT_GT(c.meter.rate_bytes_per_s(), 80 * mib);
  c.go(seconds(60), 20 * mib);
  EXPECT_LT(c.meter.rate_bytes_per_s(), 22 * mib);
}

TEST(ResyncMeterTest, APauseIsNoSlowness) {
  Course c(100'000 * mib);
  c.go(seconds(30), 100 * mib);
  c.go(seconds(300), 0, false);
  EXPECT_EQ(c.meter.rate_bytes_per_s(), 0U);
  EXPECT_FALSE(c.meter.left());
  c.go(seconds(2), 100 * mib);
  EXPECT_GT(c.meter.rate_bytes_per_s(), 90 * mib);
  EXPECT_TRUE(c.meter.left());
  c.meter.end();
  EXPECT_EQ(c.meter.rate_bytes_per_s(), 0U);
  EXPECT_FALSE(c.meter.left());
}

TEST(LatencyWindowTest, QuantilesAreThoseOfASortedListOrAnEighthMore) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    LatencyWindow window;
    std::vector<microseconds> all;
    const unsigned spread = 1U << (1 + random() % 30);
    for (unsigned i = 0; i < 1 + random() % 500; ++i) {
      all.emplace_back(1 + random() % spread);
      window.add(all.back());
    }
    std::sort(all.begin(), all.end());
    for (const unsigned percent : {1U, 50U, 99U, 100U}) {
      const std::size_t at = std::max<std::size_t>(1, (all.size() * percent + 99) / 100) - 1;
      EXPECT_GE(window.quantile(percent), all[at]);
      EXPECT_LE(window.quantile(percent), all[at] * 9 / 8 + microseconds(1));
    }
  }
}

TEST(LatencyWindowTest, TakesWhatIsOutsideAsTheNearest) {
  LatencyWindow window;
  EXPECT_EQ(window.quantile(99), Duration{0});
  window.add(Duration{-5});
  window.add(Duration{0});
  EXPECT_LE(window.quantile(100), microseconds(2));
  window.add(std::chrono::hours(100));
  EXPECT_GE(window.quantile(100), std::chrono::hours(1));
  window.clear();
  EXPECT_EQ(window.count(), 0U);
}

TEST(ResyncHoldsTest, TheQueuesHoldEndsByItselfTheAdministratorsDoesNot) {
  const TimePoint now(seconds(5));
  ResyncHolds holds;
  EXPECT_FALSE(holds.held(now));
  holds.hold(HoldBy::queue, {"waits for db", now + seconds(30)});
  EXPECT_TRUE(holds.held(now));
  EXPECT_FALSE(holds.held(now + seconds(30)));
  EXPECT_EQ(holds.find(HoldBy::queue, now + seconds(30)), nullptr);
  holds.hold(HoldBy::administrator, {"backup", std::nullopt});
  EXPECT_TRUE(holds.held(now + std::chrono::hours(1000)));
  ASSERT_NE(holds.find(HoldBy::administrator, now), nullptr);
  EXPECT_EQ(holds.find(HoldBy::administrator, now)->reason, "backup");
  holds.release(HoldBy::administrator);
  EXPECT_TRUE(holds.held(now));
  holds.release(HoldBy::queue);
  EXPECT_FALSE(holds.held(now));
}

}  // namespace
}  // namespace havm
