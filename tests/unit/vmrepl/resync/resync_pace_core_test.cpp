// The pace of a resync on a simulated link: what the guest notices, how fast it ends, and that no
// course of events leads below the floor.
#include "vmrepl/resync/resync_pace_core.hpp"

#include <algorithm>
#include <cstdlib>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "vmrepl/resync/resync_core.hpp"

namespace havm {
namespace {

using std::chrono::duration_cast;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t mib = 1ULL << 20;
constexpr std::uint64_t copy_bytes = 512ULL << 10;

// A link that carries one thing after the other; a guest with one write of 4 KiB at a time, each
// `every` after the answer to the one before.
struct World {
  explicit World(double link_bytes_per_s, std::optional<Duration> target = std::nullopt)
      : link(link_bytes_per_s), pace(now, target) {}

  TimePoint now{seconds(100)};
  double link;
  ResyncPaceCore pace;
  Duration own_latency{microseconds(200)};  // of a write on an idle link
  std::optional<Duration> every;            // nothing: no guest
  std::vector<Duration> latencies;
  std::uint64_t done = 0;
  std::uint64_t lowest_limit = UINT64_MAX;
  TimePoint link_free{};
  TimePoint write_at{};    // when the next is sent
  TimePoint write_sent{};  // in flight since
  TimePoint write_ends{};
  bool writing = false;
  std::vector<TimePoint> copies;  // when each ends

  Duration carry(std::uint64_t bytes) {
    link_free = std::max(link_free, now);
    link_free +=
        duration_cast<Duration>(std::chrono::duration<double>(static_cast<double>(bytes) / link));
    return link_free - now;
  }

  void step() {
    for (auto it = copies.begin(); it != copies.end();) {
      if (*it > now) {
        ++it;
        continue;
      }
      pace.copied(copy_bytes);
      done += copy_bytes;
      it = copies.erase(it);
    }
    if (writing && write_ends <= now) {
      writing = false;
      latencies.push_back(write_ends - write_sent);
      pace.guest_write(now, write_ends - write_sent, 4096);
      write_at = now + every.value_or(Duration{0});
    }
    if (every && !writing && write_at <= now) {
      writing = true;
      write_sent = now;
      write_ends = now + carry(4096) + own_latency;
    }
    const auto oldest = writing ? std::optional<Duration>(now - write_sent) : std::nullopt;
    pace.look(now, oldest);
    while (copies.size() * copy_bytes < ResyncCore::in_flight_bytes_max && pace.may_start(now)) {
      pace.started(copy_bytes);
      copies.push_back(now + carry(copy_bytes));
    }
    if (pace.limit()) lowest_limit = std::min(lowest_limit, *pace.limit());
    now += microseconds(200);
  }
  void run(Duration time) {
    for (const TimePoint end = now + time; now < end;)
      step();
  }
  // MiB/s of copies over this time.
  double rate_over(Duration time) {
    const std::uint64_t before = done;
    run(time);
    return static_cast<double>(done - before) / static_cast<double>(mib) /
           std::chrono::duration<double>(time).count();
  }
  Duration p99() {
    std::sort(latencies.begin(), latencies.end());
    return latencies.at(latencies.size() * 99 / 100);
  }
};

// Of a range that is compared first little or nothing goes over the link, however good it is.
TEST(ResyncPaceCoreTest, WhatWasEqualThereSaysNothingAboutTheLink) {
  TimePoint now{seconds(100)};
  ResyncPaceCore pace(now);
  const auto window = [&](std::uint64_t bytes, bool whole) {
    pace.copied(bytes, whole);
    now += ResyncPaceCore::window_min;
    pace.look(now, std::nullopt);
    return pace.link();
  };
  const std::uint64_t link = window(64 * mib, true);
  EXPECT_EQ(link, 256 * mib);
  EXPECT_EQ(window(64 << 10, false), link);
  EXPECT_EQ(window(0, false), link);
  EXPECT_LT(window(64 << 10, true), link);
}

TEST(ResyncPaceCoreTest, WithoutAGuestThereIsNoLimit) {
  World w(100.0 * mib);
  EXPECT_GT(w.rate_over(seconds(5)), 95.0);
  EXPECT_FALSE(w.pace.limit());
  EXPECT_EQ(w.pace.phase(), ResyncPaceCore::Phase::idle);
}

TEST(ResyncPaceCoreTest, ABusyGuestKeepsItsLatencyAndTheResyncItsFloor) {
  World w(100.0 * mib);
  w.every = microseconds(500);
  w.run(seconds(10));
  w.latencies.clear();
  const double rate = w.rate_over(seconds(30));
  // With all of the window in flight a write would wait behind 4 MiB, which is 40 ms.
  EXPECT_LE(w.p99(), 2 * *w.pace.target());
  EXPECT_LE(w.p99(), milliseconds(15));
  EXPECT_GE(rate, 4.0);
  EXPECT_GE(w.lowest_limit, ResyncPaceCore::floor_min);
}

TEST(ResyncPaceCoreTest, AGuestThatDoesNotSufferDoesNotSlowItDown) {
  World w(1000.0 * mib);
  w.own_latency = milliseconds(10);  // a slow disk: the link adds 4 ms at most
  w.every = milliseconds(1);
  w.run(seconds(20));
  EXPECT_GT(w.rate_over(seconds(10)), 600.0);
}

TEST(ResyncPaceCoreTest, ThatTheGuestFellSilentIsSeenWithinSeconds) {
  World w(100.0 * mib);
  w.every = microseconds(500);
  w.run(seconds(10));
  w.every.reset();
  w.run(seconds(3));
  EXPECT_FALSE(w.pace.limit());
  EXPECT_GT(w.rate_over(seconds(2)), 95.0);
}

TEST(ResyncPaceCoreTest, AConfiguredTargetCountsInsteadOfTheBase) {
  World strict(100.0 * mib, milliseconds(1));
  World lax(100.0 * mib, milliseconds(100));
  strict.every = lax.every = microseconds(500);
  strict.run(seconds(10));
  lax.run(seconds(10));
  EXPECT_EQ(strict.pace.target(), Duration(milliseconds(1)));
  EXPECT_GT(lax.rate_over(seconds(10)), 2 * strict.rate_over(seconds(10)));
}

TEST(ResyncPaceCoreTest, AStrayAmongFewWritesDoesNotSlowItDown) {
  ResyncPaceCore pace(TimePoint(seconds(1)), milliseconds(10));
  TimePoint now(seconds(1));
  // Twenty writes a second, the slowest of which takes a second.
  const auto run = [&](int strays) {
    for (int window = 0; window < 8; ++window) {
      for (int i = 0; i < 20; ++i) {
        now += milliseconds(50);
        pace.guest_write(now, i < strays ? seconds(1) : milliseconds(2), 4096);
        while (pace.may_start(now)) {
          pace.started(copy_bytes);
          pace.copied(copy_bytes);
        }
      }
      pace.look(now, std::nullopt);
    }
    return pace.limit().value_or(0);
  };
  const std::uint64_t after_one_each = run(1);
  EXPECT_GT(after_one_each, ResyncPaceCore::floor_min + 4 * mib);
  EXPECT_LT(run(2), after_one_each);
}

// What went wrong elsewhere: the limit lowered what was taken for the link, the link the floor, and
// so on to nothing.
TEST(ResyncPaceCoreTest, SlowingDownDoesNotLowerTheFloor) {
  World w(200.0 * mib);
  w.run(seconds(5));
  const std::uint64_t floor = w.pace.floor();
  EXPECT_GE(floor, 19 * mib);
  w.own_latency = milliseconds(1);
  w.every = microseconds(100);
  w.run(seconds(2));
  w.own_latency = milliseconds(500);  // whatever the resync does, the guest is not content
  w.run(seconds(50));
  EXPECT_GE(w.pace.floor(), floor * 9 / 10);
  EXPECT_GE(w.rate_over(seconds(5)), 15.0);
}

TEST(ResyncPaceCoreTest, AWriteThatHangsIsNoGoodLatency) {
  ResyncPaceCore pace(TimePoint(seconds(1)), milliseconds(10));
  TimePoint now(seconds(1));
  const auto window = [&](std::optional<Duration> oldest) {
    pace.copied(25 * mib);
    now += milliseconds(250);
    pace.look(now, oldest);
  };
  window(std::nullopt);
  window(std::nullopt);
  EXPECT_FALSE(pace.limit());
  pace.guest_write(now, milliseconds(1), 4096);
  ASSERT_TRUE(pace.limit());
  const std::uint64_t before = *pace.limit();
  for (int i = 1; i <= 12; ++i)
    window(milliseconds(250 * i));
  EXPECT_LT(*pace.limit(), before);
  EXPECT_GE(*pace.limit(), pace.floor());
}

TEST(ResyncPaceCoreTest, TheLimitIsKeptOverAnyTime) {
  ResyncPaceCore pace(TimePoint(seconds(1)), milliseconds(10));
  TimePoint now(seconds(1));
  pace.guest_write(now, milliseconds(1), 4096);
  ASSERT_EQ(pace.limit(), ResyncPaceCore::floor_min);
  std::uint64_t handed_out = 0;
  const TimePoint begin = now;
  while (now - begin < milliseconds(200)) {
    if (pace.may_start(now)) {
      pace.started(copy_bytes);
      handed_out += copy_bytes;
      continue;
    }
    EXPECT_GT(pace.next_start(), now);
    now = pace.next_start();
    EXPECT_TRUE(pace.may_start(now));
  }
  EXPECT_LE(handed_out, ResyncPaceCore::floor_min / 5 + 2 * copy_bytes);
  EXPECT_GE(handed_out, ResyncPaceCore::floor_min / 5 - copy_bytes);
}

TEST(ResyncPaceCoreTest, WhateverHappensItIsNeverBelowTheFloor) {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    std::mt19937 random(seed);
    const auto upto = [&random](unsigned n) { return random() % n; };
    TimePoint now(seconds(1));
    ResyncPaceCore pace(now,
                        seed % 2 == 0 ? std::optional<Duration>(milliseconds(5)) : std::nullopt);
    for (int i = 0; i < 2000; ++i) {
      now += microseconds(upto(200'000));
      if (upto(3) != 0) pace.guest_write(now, microseconds(upto(1'000'000)), upto(1 << 20));
      pace.copied(upto(4) == 0 ? 0 : upto(8 << 20));
      pace.look(now,
                upto(4) == 0 ? std::optional<Duration>(milliseconds(upto(5000))) : std::nullopt);
      if (pace.may_start(now)) pace.started(copy_bytes);
      if (upto(50) == 0) pace.restart_window(now);
      ASSERT_GE(pace.floor(), ResyncPaceCore::floor_min);
      ASSERT_GE(pace.limit().value_or(UINT64_MAX), pace.floor()) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace havm
