#include "vmrepl/resync/resync_core.hpp"

#include <deque>
#include <random>

#include <gtest/gtest.h>

namespace havm {
namespace {

TEST(ResyncCoreTest, HandsOutEveryByteOnceInOrderWithinTheWindow) {
  const std::vector<std::uint64_t> sizes{20 << 20, (3 << 20) + 512};
  ResyncCore core(all_of(sizes));
  EXPECT_EQ(core.total_bytes(), sizes[0] + sizes[1]);
  std::deque<ResyncCopy> flying;
  std::vector<std::uint64_t> next{0, 0};
  std::uint64_t flying_bytes = 0;
  while (!core.finished()) {
    while (const auto peeked = core.peek()) {
      const ResyncCopy c = core.take(*peeked, peeked->length, false);
      EXPECT_LE(c.length, ResyncCore::data_bytes_max);
      EXPECT_EQ(c.offset, next[c.disk]);
      next[c.disk] += c.length;
      flying_bytes += c.length;
      EXPECT_LE(flying_bytes, ResyncCore::in_flight_bytes_max);
      flying.push_back(c);
    }
    ASSERT_FALSE(flying.empty());
    EXPECT_FALSE(core.finished());
    core.done(flying.front());
    flying_bytes -= flying.front().length;
    flying.pop_front();
  }
  EXPECT_EQ(next, sizes);
  EXPECT_EQ(core.done_bytes(), core.total_bytes());
}

TEST(ResyncCoreTest, HolesGoInLargePiecesAndDoNotFillTheWindow) {
  ResyncCore core(all_of({1ULL << 30}));
  std::size_t taken = 0;
  while (const auto peeked = core.peek()) {
    const ResyncCopy c = core.take(*peeked, peeked->length, true);
    EXPECT_EQ(c.length, ResyncCore::hole_bytes_max);
    ++taken;
  }
  EXPECT_EQ(taken, ResyncCore::copies_max);
}

TEST(ResyncCoreTest, ACopyEndsAtAGrainEvenWhenTheExtentDoesNot) {
  ResyncCore core(all_of({1 << 20}));
  const ResyncCopy c = core.take(*core.peek(), 4096, false);
  EXPECT_EQ(c.length, DirtyBitmap::grain_bytes);
  EXPECT_EQ(core.peek()->offset, DirtyBitmap::grain_bytes);
}

TEST(ResyncCoreTest, WhatFailedIsHandedOutAgain) {
  ResyncCore core(all_of({1 << 20}));
  const ResyncCopy first = core.take(*core.peek(), 65536, false);
  const ResyncCopy second = core.take(*core.peek(), 65536, false);
  core.failed(first);
  core.done(second);
  EXPECT_EQ(core.peek()->offset, 0u);
}

TEST(ResyncCoreTest, CopiesOnlyTheSetItWasGiven) {
  DirtyBitmap dirty(1 << 20);
  dirty.set_range(128 << 10, 1);
  dirty.set_range(700 << 10, 100 << 10);
  ResyncCore core({DirtyBitmap(1 << 20), dirty});
  EXPECT_EQ(core.total_bytes(), dirty.set_bytes());
  std::uint64_t copied = 0;
  while (!core.finished()) {
    const ResyncCopy c = core.take(*core.peek(), 1 << 20, false);
    EXPECT_EQ(c.disk, 1);
    EXPECT_TRUE(dirty.any_in(c.offset, c.length));
    copied += c.length;
    core.done(c);
  }
  EXPECT_EQ(copied, dirty.set_bytes());
}

TEST(ResyncCoreTest, RandomEndsAndFailuresCopyEverything) {
  std::mt19937 random(7);
  ResyncCore core(all_of({5 << 20, 1 << 20}));
  std::vector<DirtyBitmap> missing = all_of({5 << 20, 1 << 20});
  std::vector<ResyncCopy> flying;
  while (!core.finished()) {
    const auto peeked = core.peek();
    if (peeked && random() % 2 == 0) {
      flying.push_back(core.take(*peeked, 1 + random() % peeked->length, random() % 4 == 0));
      continue;
    }
    if (flying.empty()) continue;
    const std::size_t i = random() % flying.size();
    const ResyncCopy c = flying[i];
    flying.erase(flying.begin() + static_cast<std::ptrdiff_t>(i));
    if (random() % 5 == 0) {
      core.failed(c);
      continue;
    }
    missing[c.disk].clear_range(c.offset, c.length);
    core.done(c);
  }
  EXPECT_TRUE(missing[0].empty());
  EXPECT_TRUE(missing[1].empty());
}

}  // namespace
}  // namespace havm
