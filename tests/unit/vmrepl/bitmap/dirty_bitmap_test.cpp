// DirtyBitmap: the rounding rules by hand, everything else against a naive model at random.
#include "vmrepl/bitmap/dirty_bitmap.hpp"

#include <algorithm>
#include <chrono>
#include <random>

#include <gtest/gtest.h>

namespace havm {
namespace {

constexpr std::uint64_t grain = DirtyBitmap::grain_bytes;

TEST(DirtyBitmap, StartsClear) {
  const DirtyBitmap bitmap(10 * grain);
  EXPECT_TRUE(bitmap.empty());
  EXPECT_EQ(bitmap.grains(), 10U);
  EXPECT_EQ(bitmap.set_bytes(), 0U);
  EXPECT_EQ(bitmap.next_set(0, grain), std::nullopt);
}

TEST(DirtyBitmap, SetRoundsOutwards) {
  DirtyBitmap bitmap(10 * grain);
  bitmap.set_range(grain - 512, 1024);
  EXPECT_EQ(bitmap.next_set(0, 10 * grain), (ByteRange{0, 2 * grain}));
  EXPECT_TRUE(bitmap.any_in(2 * grain - 512, 512));
  EXPECT_FALSE(bitmap.any_in(2 * grain, 512));
}

TEST(DirtyBitmap, ClearRoundsInwards) {
  DirtyBitmap bitmap(10 * grain);
  bitmap.set_all();
  bitmap.clear_range(grain - 512, 2 * grain);  // only grain 1 is wholly inside
  EXPECT_EQ(bitmap.set_grains(), 9U);
  EXPECT_FALSE(bitmap.any_in(grain, grain));
  bitmap.clear_range(5 * grain + 512, grain - 512);  // no grain is
  EXPECT_EQ(bitmap.set_grains(), 9U);
}

TEST(DirtyBitmap, LastShortGrainEndsWithTheDisk) {
  DirtyBitmap bitmap(2 * grain + 512);
  EXPECT_EQ(bitmap.grains(), 3U);
  bitmap.set_all();
  EXPECT_EQ(bitmap.set_bytes(), 2 * grain + 512);
  EXPECT_EQ(bitmap.next_set(2 * grain, 100 * grain), (ByteRange{2 * grain, 512}));
  EXPECT_EQ(bitmap.next_set(2 * grain + 512, grain), std::nullopt);  // a walk ends
  bitmap.clear_range(2 * grain, 512);
  EXPECT_EQ(bitmap.set_bytes(), 2 * grain);
}

TEST(DirtyBitmap, NextSetIsBoundedButGivesAGrain) {
  DirtyBitmap bitmap(100 * grain);
  bitmap.set_range(10 * grain, 70 * grain);
  EXPECT_EQ(bitmap.next_set(0, 5 * grain), (ByteRange{10 * grain, 5 * grain}));
  EXPECT_EQ(bitmap.next_set(0, 1), (ByteRange{10 * grain, grain}));
  EXPECT_EQ(bitmap.next_set(20 * grain + 7, 500 * grain), (ByteRange{20 * grain, 60 * grain}));
  EXPECT_EQ(bitmap.next_set(80 * grain, grain), std::nullopt);
  EXPECT_EQ(bitmap.next_set(5000 * grain, grain), std::nullopt);
  EXPECT_EQ(bitmap.next_set(0, UINT64_MAX), (ByteRange{10 * grain, 70 * grain}));
}

TEST(DirtyBitmap, EmptyRangesChangeNothing) {
  DirtyBitmap bitmap(4 * grain);
  bitmap.set_range(4 * grain, 0);
  EXPECT_TRUE(bitmap.empty());
  bitmap.set_all();
  bitmap.clear_range(grain, 0);
  EXPECT_EQ(bitmap.set_grains(), 4U);
}

TEST(DirtyBitmap, WordsGoRoundAndForeignWordsAreRefused) {
  DirtyBitmap from(70 * grain);
  from.set_range(3 * grain, grain);
  from.set_range(69 * grain, grain);
  DirtyBitmap to(70 * grain);
  ASSERT_TRUE(to.assign_words(from.words()));
  EXPECT_EQ(to.set_grains(), 2U);
  EXPECT_TRUE(to.any_in(69 * grain, 1));

  const std::vector<std::uint64_t> too_few(1, 1);
  EXPECT_FALSE(to.assign_words(too_few));
  const std::vector<std::uint64_t> beyond{0, std::uint64_t{1} << 6};
  EXPECT_FALSE(to.assign_words(beyond));
  EXPECT_EQ(to.set_grains(), 2U);
}

TEST(DirtyBitmap, MergeIsUnion) {
  DirtyBitmap a(130 * grain);
  DirtyBitmap b(130 * grain);
  a.set_range(0, 3 * grain);
  b.set_range(2 * grain, 2 * grain);
  b.set_range(129 * grain, grain);
  a.merge(b);
  EXPECT_EQ(a.set_grains(), 5U);
}

TEST(DirtyBitmapDeathTest, ARangeBeyondTheDiskIsABug) {
  DirtyBitmap bitmap(4 * grain);
  EXPECT_DEATH(bitmap.set_range(4 * grain, 1), "must lie on the disk");
  EXPECT_DEATH(bitmap.set_range(grain, UINT64_MAX), "must lie on the disk");
}

// One bool per 512-byte sector: "this sector must be seen dirty".
class NaiveBitmap {
 public:
  explicit NaiveBitmap(std::uint64_t size) : size_(size), grains_((size + grain - 1) / grain) {}
  void set(std::uint64_t offset, std::uint64_t length) {
    for (std::uint64_t g = 0; g < grains_.size(); ++g)
      if (length > 0 && offset < end_of(g) && g * grain < offset + length) grains_[g] = true;
  }
  void clear(std::uint64_t offset, std::uint64_t length) {
    for (std::uint64_t g = 0; g < grains_.size(); ++g)
      if (length > 0 && offset <= g * grain && end_of(g) <= offset + length) grains_[g] = false;
  }
  [[nodiscard]] std::optional<ByteRange> next(std::uint64_t cursor, std::uint64_t most) const {
    for (std::uint64_t g = cursor / grain; g < grains_.size(); ++g) {
      if (!grains_[g]) continue;
      std::uint64_t end = g;
      while (end < grains_.size() && grains_[end] &&
             end - g < std::max<std::uint64_t>(most / grain, 1))
        ++end;
      return ByteRange{g * grain, end_of(end - 1) - g * grain};
    }
    return std::nullopt;
  }
  [[nodiscard]] std::uint64_t count() const {
    return static_cast<std::uint64_t>(std::ranges::count(grains_, true));
  }

 private:
  [[nodiscard]] std::uint64_t end_of(std::uint64_t g) const {
    return std::min(size_, (g + 1) * grain);
  }
  std::uint64_t size_;
  std::vector<bool> grains_;
};

TEST(DirtyBitmap, MatchesTheNaiveModelAtRandom) {
  for (unsigned seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const std::uint64_t size = (1 + random() % 300) * grain - 512 * (random() % 128);
    DirtyBitmap bitmap(size);
    NaiveBitmap naive(size);
    for (int step = 0; step < 300; ++step) {
      const std::uint64_t offset = random() % size / 512 * 512;
      const std::uint64_t most = random() % 4 == 0 ? size : 4 * grain;
      const std::uint64_t length = std::min(size - offset, random() % most / 512 * 512);
      if (random() % 5 < 2) {
        bitmap.set_range(offset, length);
        naive.set(offset, length);
      } else {
        bitmap.clear_range(offset, length);
        naive.clear(offset, length);
      }
      ASSERT_EQ(bitmap.set_grains(), naive.count());
      const std::uint64_t cursor = random() % size;
      const std::uint64_t wish = random() % (20 * grain);
      ASSERT_EQ(bitmap.next_set(cursor, wish), naive.next(cursor, wish));
      ASSERT_EQ(bitmap.any_in(0, size), naive.count() > 0);
    }
    std::uint64_t bytes = 0;  // walking all runs sees every set byte once
    std::optional<ByteRange> run = bitmap.next_set(0, 3 * grain);
    while (run) {
      bytes += run->length;
      run = bitmap.next_set(run->offset + run->length, 3 * grain);
    }
    ASSERT_EQ(bytes, bitmap.set_bytes());
  }
}

TEST(DirtyBitmap, APieceOfWordsIsMerged) {
  DirtyBitmap bitmap(200 * grain);  // 4 words, the last of 8 bits
  bitmap.set_range(70 * grain, 2 * grain);
  EXPECT_TRUE(bitmap.merge_words(1, std::vector<std::uint64_t>{1, 0xff}));
  EXPECT_EQ(bitmap.set_grains(), 2U + 1 + 8);
  EXPECT_TRUE(bitmap.any_in(64 * grain, grain));
  EXPECT_TRUE(bitmap.any_in(71 * grain, grain));
  EXPECT_TRUE(bitmap.any_in(135 * grain, grain));
  EXPECT_TRUE(bitmap.merge_words(4, {}));
  EXPECT_FALSE(bitmap.merge_words(3, std::vector<std::uint64_t>{0x100}));  // beyond the disk
  EXPECT_FALSE(bitmap.merge_words(3, std::vector<std::uint64_t>{0, 0}));
  EXPECT_FALSE(bitmap.merge_words(5, {}));
  EXPECT_EQ(bitmap.set_grains(), 11U);
}

// A full resync asks thousands of times a second. Were each time the rest of a large disk looked
// at, the engine would be silent for so long that its session ends.
TEST(DirtyBitmap, AStepOfAWalkDoesNotLookAtTheWholeDisk) {
  constexpr std::uint64_t size = std::uint64_t{16} << 40;
  DirtyBitmap bitmap(size);
  EXPECT_FALSE(bitmap.any_in(0, size));
  bitmap.set_all();
  const auto began = std::chrono::steady_clock::now();
  std::uint64_t at = 0;
  for (int step = 0; step < 5000; ++step) {
    const auto run = bitmap.next_set(at, 8 * grain);
    ASSERT_EQ(run, (ByteRange{at, 8 * grain}));
    bitmap.clear_range(run->offset, run->length);
    ASSERT_FALSE(bitmap.any_in(at, 8 * grain));
    ASSERT_TRUE(bitmap.any_in(at, 9 * grain));
    at += run->length;
  }
  // Takes milliseconds; looking at all of the bitmap each time, half a minute and more.
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));
}

}  // namespace
}  // namespace havm
