#include "vmrepl/bitmap/cover_ranges.hpp"

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace havm {
namespace {

constexpr std::uint64_t grain = DirtyBitmap::grain_bytes;

TEST(CoverRangesTest, NothingDirtyIsNoRange) {
  EXPECT_TRUE(cover_ranges(DirtyBitmap(10 * grain), 4).empty());
}

TEST(CoverRangesTest, WithRoomEnoughTheRangesAreExact) {
  DirtyBitmap dirty(10 * grain + 512);
  dirty.set_range(0, 1);
  dirty.set_range(3 * grain, 2 * grain);
  dirty.set_range(10 * grain, 512);
  EXPECT_THAT(cover_ranges(dirty, 3),
              testing::ElementsAre(ByteRange{0, grain}, ByteRange{3 * grain, 2 * grain},
                                   ByteRange{10 * grain, 512}));
}

TEST(CoverRangesTest, WithLessRoomNeighboursBecomeOne) {
  DirtyBitmap dirty(100 * grain);
  dirty.set_range(0, grain);
  dirty.set_range(2 * grain, grain);
  dirty.set_range(90 * grain, grain);
  EXPECT_THAT(cover_ranges(dirty, 2),
              testing::ElementsAre(ByteRange{0, 3 * grain}, ByteRange{90 * grain, grain}));
  EXPECT_THAT(cover_ranges(dirty, 1), testing::ElementsAre(ByteRange{0, 91 * grain}));
}

TEST(CoverRangesTest, NeverLessThanWhatIsDirtyAndNeverTooMany) {
  std::mt19937 random(11);
  for (int round = 0; round < 200; ++round) {
    DirtyBitmap dirty((1 + random() % 300) * grain - random() % 2 * 512);
    for (auto i = random() % 60; i > 0; --i)
      dirty.set_range(random() % dirty.disk_size_bytes(), 1);
    const std::size_t most = 1 + random() % 8;
    DirtyBitmap left = dirty;
    const auto ranges = cover_ranges(dirty, most);
    ASSERT_LE(ranges.size(), most);
    for (const ByteRange& r : ranges) {
      ASSERT_LE(r.offset + r.length, dirty.disk_size_bytes());
      left.clear_range(r.offset, r.length);
    }
    ASSERT_TRUE(left.empty());
  }
}

}  // namespace
}  // namespace havm
