#include "vmrepl/resync/resync_core.hpp"

#include <deque>
#include <random>

#include <gtest/gtest.h>

namespace havm {
namespace {

std::vector<DirtyBitmap> all_of(const std::vector<std::uint64_t>& sizes) {
  std::vector<DirtyBitmap> all;
  for (const std::uint64_t size : sizes)
    all.emplace_back(size).set_all();
  return all;
}

std::vector<const DirtyBitmap*> pointers(const std::vector<DirtyBitmap>& bitmaps) {
  std::vector<const DirtyBitmap*> all;
  for (const DirtyBitmap& b : bitmaps)
    all.push_back(&b);
  return all;
}

TEST(ResyncCoreTest, HandsOutEveryByteOnceInOrderWithinTheWindow) {
  const std::vector<std::uint64_t> sizes{20 << 20, (3 << 20) + 512};
  const std::vector<DirtyBitmap> dirty = all_of(sizes);
  ResyncCore core(pointers(dirty));
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
  const std::vector<DirtyBitmap> dirty = all_of({1ULL << 30});
  ResyncCore core(pointers(dirty));
  std::size_t taken = 0;
  while (const auto peeked = core.peek()) {
    const ResyncCopy c = core.take(*peeked, peeked->length, true);
    EXPECT_EQ(c.length, ResyncCore::hole_bytes_max);
    ++taken;
  }
  EXPECT_EQ(taken, ResyncCore::copies_max);
}

TEST(ResyncCoreTest, ACopyEndsAtAGrainEvenWhenTheExtentDoesNot) {
  const std::vector<DirtyBitmap> dirty = all_of({1 << 20});
  ResyncCore core(pointers(dirty));
  const ResyncCopy c = core.take(*core.peek(), 4096, false);
  EXPECT_EQ(c.length, DirtyBitmap::grain_bytes);
  EXPECT_EQ(core.peek()->offset, DirtyBitmap::grain_bytes);
}

TEST(ResyncCoreTest, CopiesOnlyTheSetItWasGiven) {
  std::vector<DirtyBitmap> bitmaps{DirtyBitmap(1 << 20), DirtyBitmap(1 << 20)};
  DirtyBitmap& dirty = bitmaps[1];
  dirty.set_range(128 << 10, 1);
  dirty.set_range(700 << 10, 100 << 10);
  ResyncCore core(pointers(bitmaps));
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

// As a session does it: what was copied is cleared later, behind the walk.
TEST(ResyncCoreTest, RandomEndsAndClearsCopyEverythingOnce) {
  std::mt19937 random(7);
  std::vector<DirtyBitmap> dirty = all_of({5 << 20, (1 << 20) + 512});
  ResyncCore core(pointers(dirty));
  std::vector<DirtyBitmap> missing = dirty;
  std::vector<ResyncCopy> flying;
  std::vector<ResyncCopy> copied;
  while (!core.finished()) {
    const auto peeked = core.peek();
    if (peeked && random() % 2 == 0) {
      flying.push_back(core.take(*peeked, 1 + random() % peeked->length, random() % 4 == 0));
      ASSERT_TRUE(missing[flying.back().disk].any_in(flying.back().offset, flying.back().length));
      continue;
    }
    if (random() % 3 == 0) {
      for (const ResyncCopy& c : copied)
        dirty[c.disk].clear_range(c.offset, c.length);
      copied.clear();
    }
    if (flying.empty()) continue;
    const std::size_t i = random() % flying.size();
    const ResyncCopy c = flying[i];
    flying.erase(flying.begin() + static_cast<std::ptrdiff_t>(i));
    missing[c.disk].clear_range(c.offset, c.length);
    copied.push_back(c);
    core.done(c);
  }
  EXPECT_TRUE(missing[0].empty());
  EXPECT_TRUE(missing[1].empty());
  EXPECT_EQ(core.done_bytes(), core.total_bytes());
}

}  // namespace
}  // namespace havm
