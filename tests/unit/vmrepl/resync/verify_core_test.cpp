// VerifyCore: everything once, what differs twice, never faster than allowed, exact counts.
#include "vmrepl/resync/verify_core.hpp"

#include <cerrno>
#include <deque>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace havm {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::uint64_t grain = DirtyBitmap::grain_bytes;
constexpr std::uint64_t check_bytes = VerifyCore::check_bytes_max;
constexpr std::uint64_t fast = 1ULL << 50;
const TimePoint start = from_ns(1'000'000'000);

CheckOutcome differing(std::uint32_t bits) {
  CheckOutcome o;
  o.differing = bits;
  return o;
}

// Runs to the end; `outcome` judges each check.
template <class Judge>
void run(VerifyCore& core, Judge outcome) {
  TimePoint now = start;
  for (int i = 0; i < 100000 && !core.finished(); ++i) {
    now += milliseconds(1);
    if (const auto check = core.next(now, false)) core.done(*check, outcome(*check));
  }
  ASSERT_TRUE(core.finished());
}

TEST(VerifyCoreTest, HandsOutEveryByteOnceInOrderWithinTheWindow) {
  const std::vector<std::uint64_t> sizes{0, 5 * check_bytes + 4096, 0, 512, 0};
  VerifyCore core(sizes, fast, start);
  EXPECT_EQ(core.total_bytes(), sizes[1] + sizes[3]);
  std::vector<std::uint64_t> next(sizes.size(), 0);
  std::deque<VerifyCheck> flying;
  std::uint64_t flying_bytes = 0;
  while (!core.finished()) {
    while (const auto check = core.next(start + milliseconds(1), false)) {
      EXPECT_FALSE(check->again);
      EXPECT_EQ(check->offset, next[check->disk]);
      next[check->disk] += check->length;
      flying_bytes += check->length;
      EXPECT_LE(flying_bytes, VerifyCore::in_flight_bytes_max);
      flying.push_back(*check);
    }
    ASSERT_FALSE(flying.empty());
    EXPECT_FALSE(core.finished());
    core.done(flying.front(), {});
    flying_bytes -= flying.front().length;
    flying.pop_front();
  }
  EXPECT_EQ(next, sizes);
  EXPECT_EQ(core.done_bytes(), core.total_bytes());
  EXPECT_EQ(core.mismatch_count(), 0U);
}

TEST(VerifyCoreTest, WhatDifferedOnceOnlyIsNoMismatch) {
  VerifyCore core({4 * grain}, fast, start);
  int again = 0;
  run(core, [&](const VerifyCheck& c) {
    again += c.again ? 1 : 0;
    return c.again ? CheckOutcome{} : differing(0b1011);
  });
  EXPECT_EQ(again, 2) << "each run once";
  EXPECT_EQ(core.mismatch_bytes(), 0U);
  EXPECT_EQ(core.done_bytes(), 4 * grain) << "the second look is no progress";
}

TEST(VerifyCoreTest, TheSecondLookIsAtWhatDifferedOnlyAndComesNext) {
  VerifyCore core({8 * check_bytes}, fast, start);
  const auto first = core.next(start, false);
  core.done(*first, differing(0b0110));
  const auto second = core.next(start, false);
  EXPECT_TRUE(second->again);
  EXPECT_EQ(second->offset, grain);
  EXPECT_EQ(second->length, 2 * grain);
}

TEST(VerifyCoreTest, AMismatchIsCountedAndNamed) {
  VerifyCore core({grain, 20 * grain + 512}, fast, start);
  run(core, [](const VerifyCheck& c) {
    // The last, short grain of disk 1, and its third.
    const std::uint64_t wanted[] = {2 * grain, 20 * grain};
    std::uint32_t bits = 0;
    for (const std::uint64_t at : wanted)
      if (c.disk == 1 && at >= c.offset && at < c.offset + c.length)
        bits |= 1U << ((at - c.offset) / grain);
    return differing(bits);
  });
  EXPECT_THAT(core.mismatches(),
              ElementsAre(VerifyMismatch{1, 2 * grain, grain, MismatchReason::different, false},
                          VerifyMismatch{1, 20 * grain, 512, MismatchReason::different, false}));
  EXPECT_EQ(core.mismatch_bytes(), grain + 512);
  EXPECT_EQ(core.mismatch_count(), 2U);
  EXPECT_EQ(core.repaired_bytes(), 0U);
}

TEST(VerifyCoreTest, NeighboursAreOneAndTheListIsBoundedTheCountIsNot) {
  VerifyCore whole({100 * check_bytes}, fast, start);
  run(whole, [](const VerifyCheck&) { return differing(0xff); });
  EXPECT_THAT(whole.mismatches(), ElementsAre(VerifyMismatch{0, 0, 100 * check_bytes,
                                                             MismatchReason::different, false}));
  EXPECT_EQ(whole.mismatch_bytes(), 100 * check_bytes);

  VerifyCore every_other({100 * check_bytes}, fast, start);
  run(every_other, [](const VerifyCheck& c) { return differing(c.again ? 1U : 0b01010101U); });
  EXPECT_EQ(every_other.mismatches().size(), VerifyCore::mismatches_max);
  EXPECT_EQ(every_other.mismatch_count(), 400U);
  EXPECT_EQ(every_other.mismatch_bytes(), 400 * grain);
}

TEST(VerifyCoreTest, RepairedIsWhatWasRepairedAndNoMore) {
  VerifyCore core({2 * check_bytes}, fast, start);
  run(core, [](const VerifyCheck& c) {
    CheckOutcome o = differing(c.again ? 1U : 0b10001U);
    o.repaired = c.again && c.offset == 0;
    return o;
  });
  EXPECT_EQ(core.mismatch_bytes(), 4 * grain);
  EXPECT_EQ(core.repaired_bytes(), grain);
}

TEST(VerifyCoreTest, WhatCannotBeReadIsAMismatchWithItsReason) {
  VerifyCore core({3 * check_bytes}, fast, start);
  run(core, [](const VerifyCheck& c) {
    CheckOutcome o;
    if (c.offset < check_bytes) o.local_error = EIO;
    if (c.offset >= 2 * check_bytes) {
      o.partner_error = EIO;
      o.differing = 0xff;
    }
    return o;
  });
  EXPECT_THAT(core.mismatches(),
              ElementsAre(VerifyMismatch{0, 0, check_bytes, MismatchReason::unreadable_here, false},
                          VerifyMismatch{0, 2 * check_bytes, check_bytes,
                                         MismatchReason::unreadable_there, false}));
}

// Bytes handed out in the second after `start`, when everything ends at once.
std::uint64_t in_one_second(std::uint64_t rate, bool busy) {
  VerifyCore core({1ULL << 40}, rate, start);
  std::uint64_t bytes = 0;
  for (int ms = 0; ms < 1000; ++ms)
    while (const auto check = core.next(start + milliseconds(ms), busy)) {
      bytes += check->length;
      core.done(*check, {});
    }
  return bytes;
}

TEST(VerifyCoreTest, TheRateIsKeptAndATenthOfItWhileTheGuestIsBusy) {
  const std::uint64_t rate = 100U << 20;
  EXPECT_LE(in_one_second(rate, false), rate + 5 * check_bytes);
  EXPECT_GE(in_one_second(rate, false), rate - 2 * check_bytes);
  EXPECT_LE(in_one_second(rate, true), rate / 10 + 2 * check_bytes);
  EXPECT_GE(in_one_second(rate, true), rate / 10 - 2 * check_bytes);
  EXPECT_EQ(in_one_second(1, true), check_bytes);
}

TEST(VerifyCoreTest, ALongPauseIsNotMadeUpFor) {
  const std::uint64_t rate = 100U << 20;
  VerifyCore core({1ULL << 40}, rate, start);
  std::uint64_t bytes = 0;
  while (const auto check = core.next(start + std::chrono::hours(1), false)) {
    bytes += check->length;
    core.done(*check, {});
  }
  EXPECT_LE(bytes, rate / 50 + 2 * check_bytes);
}

TEST(VerifyCoreTest, WhileTheGuestIsBusyOneCheckAtATime) {
  VerifyCore core({1ULL << 30}, fast, start);
  const auto first = core.next(start, true);
  ASSERT_TRUE(first);
  EXPECT_FALSE(core.next(start + std::chrono::hours(1), true));
  core.done(*first, {});
  EXPECT_TRUE(core.next(start + std::chrono::hours(1), true));
}

}  // namespace
}  // namespace havm
