// MemoryDisk: other tests trust it, so its faults, holds and power cuts are tested themselves.
#include "vmrepl/disk/memory_disk.hpp"

#include "tests/unit/vmrepl/disk/disk_fixture.hpp"

namespace havm {
namespace {

using Op = MemoryDisk::Op;
using Write = MemoryDisk::UnflushedWrite;

class MemoryDiskTest : public DiskFixture {
 protected:
  MemoryDisk disk_{io_.get_executor(), 64 * 1024};
  Buffer ones_ = of(1);
  Buffer twos_ = of(2);

  static Buffer of(int value) {
    Buffer buffer(512);
    std::ranges::fill(buffer.span(), static_cast<std::byte>(value));
    return buffer;
  }
  int at(std::uint64_t offset) {
    return std::to_integer<int>(std::as_const(disk_).contents()[offset]);
  }
  static bool all(const Write&) { return true; }
  static bool none(const Write&) { return false; }
};

TEST_F(MemoryDiskTest, ReadsWhatWasWritten) {
  EXPECT_EQ(write(disk_, 512, ones_.span()), 0);
  Buffer seen(1024);
  EXPECT_EQ(read(disk_, 512, seen.span()), 0);
  EXPECT_EQ(seen.data()[0], std::byte{1});
  EXPECT_EQ(seen.data()[512], std::byte{0});
  EXPECT_EQ(zero(disk_, 512, 512, true), 0);
  EXPECT_EQ(at(512), 0);
  EXPECT_EQ(disk_.started(Op::write), 1U);
}

TEST_F(MemoryDiskTest, AHeldWriteTakesEffectAtItsRelease) {
  disk_.hold(Op::write);
  int ended = 0;
  disk_.write(0, ones_.span(), false, [&](int error) { ended += error == 0 ? 1 : 100; });
  disk_.write(512, ones_.span(), false, [&](int error) { ended += error == 0 ? 1 : 100; });
  io_.poll();
  EXPECT_EQ(ended, 0);
  EXPECT_EQ(at(0), 0);
  EXPECT_EQ(disk_.held(), 2U);
  EXPECT_EQ(disk_.release(1), 1U);
  ASSERT_TRUE(run_until([&] { return ended == 1; }));
  EXPECT_EQ(at(0), 1);
  EXPECT_EQ(at(512), 0);
  disk_.hold_all(false);
  EXPECT_EQ(disk_.release(), 1U);
  ASSERT_TRUE(run_until([&] { return ended == 2; }));
  EXPECT_EQ(disk_.outstanding(), 0U);
}

TEST_F(MemoryDiskTest, TheNthWriteFailsAndChangesNothing) {
  disk_.fail(Op::write, ENOSPC, 1);
  EXPECT_EQ(write(disk_, 0, ones_.span()), 0);
  EXPECT_EQ(write(disk_, 0, twos_.span()), ENOSPC);
  EXPECT_EQ(at(0), 1);
  EXPECT_EQ(write(disk_, 0, twos_.span()), 0);
  EXPECT_EQ(at(0), 2);
}

TEST_F(MemoryDiskTest, AFailedFlushSticks) {
  disk_.fail(Op::flush, EIO);
  EXPECT_EQ(flush(disk_), EIO);
  EXPECT_EQ(flush(disk_), EIO);
}

TEST_F(MemoryDiskTest, APowerCutKeepsTheFlushedAndAnySubsetOfTheRest) {
  ASSERT_EQ(write(disk_, 0, ones_.span()), 0);
  ASSERT_EQ(flush(disk_), 0);
  ASSERT_EQ(write(disk_, 512, ones_.span()), 0);
  ASSERT_EQ(write(disk_, 1024, ones_.span()), 0);
  ASSERT_EQ(disk_.unflushed().size(), 2U);
  EXPECT_EQ(disk_.crash_image(none)[0], std::byte{1});
  EXPECT_EQ(disk_.crash_image(none)[512], std::byte{0});
  const auto only_third = disk_.crash_image([](const Write& w) { return w.number == 3; });
  EXPECT_EQ(only_third[512], std::byte{0});
  EXPECT_EQ(only_third[1024], std::byte{1});
  disk_.crash(none);
  EXPECT_EQ(at(512), 0);
  EXPECT_TRUE(disk_.unflushed().empty());
}

TEST_F(MemoryDiskTest, FlushCoversOnlyWhatWasDoneBeforeIt) {
  ASSERT_EQ(write(disk_, 0, ones_.span()), 0);
  disk_.hold(Op::flush);
  bool flushed = false;
  disk_.flush([&](int) { flushed = true; });
  ASSERT_EQ(write(disk_, 512, ones_.span()), 0);
  disk_.release();
  ASSERT_TRUE(run_until([&] { return flushed; }));
  const auto image = disk_.crash_image(none);
  EXPECT_EQ(image[0], std::byte{1});
  EXPECT_EQ(image[512], std::byte{0});
}

TEST_F(MemoryDiskTest, FuaIsDurableAndOlderBytesDoNotComeBack) {
  ASSERT_EQ(write(disk_, 0, ones_.span()), 0);
  ASSERT_EQ(write(disk_, 0, twos_.span(), true), 0);
  EXPECT_EQ(disk_.crash_image(none)[0], std::byte{2});
  EXPECT_EQ(disk_.crash_image(all)[0], std::byte{2});
}

TEST_F(MemoryDiskTest, AWriteInFlightMaySurviveACrashButIsNeverAnswered) {
  disk_.hold(Op::write);
  bool ended = false;
  disk_.write(0, ones_.span(), false, [&](int) { ended = true; });
  ASSERT_EQ(disk_.unflushed().size(), 1U);
  EXPECT_FALSE(disk_.unflushed()[0].completed);
  disk_.crash(all);
  EXPECT_EQ(at(0), 1);
  disk_.hold_all(false);
  EXPECT_EQ(disk_.release(), 0U);
  io_.poll();
  EXPECT_FALSE(ended);
  EXPECT_EQ(disk_.outstanding(), 0U);
}

TEST_F(MemoryDiskTest, ExtentsFollowTheBytes) {
  ASSERT_EQ(write(disk_, 1024, ones_.span()), 0);
  const auto extents = disk_.extents(512, 4096);
  ASSERT_TRUE(extents);
  ASSERT_EQ(extents.value().size(), 3U);
  EXPECT_TRUE(extents.value()[0].hole);
  EXPECT_EQ(extents.value()[1].offset, 1024U);
  EXPECT_EQ(extents.value()[1].length, 512U);
  EXPECT_EQ(extents.value()[2].length, 4096U + 512 - 1536);
}

}  // namespace
}  // namespace havm
