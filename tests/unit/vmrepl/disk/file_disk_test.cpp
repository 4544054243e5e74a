// FileDisk on real files of the build's filesystem.
#include "vmrepl/disk/file_disk.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/unit/vmrepl/disk/disk_fixture.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20;

class FileDiskTest : public DiskFixture {
 protected:
  void SetUp() override {
    auto loop = UringLoop::create(io_.get_executor());
    ASSERT_TRUE(loop) << loop.error().message;
    loop_ = std::move(loop).value();
  }

  std::unique_ptr<FileDisk> open(const std::string& path, const FileDiskOptions& options = {}) {
    auto disk = FileDisk::open(loop_, path, options);
    EXPECT_TRUE(disk) << disk.error().message;
    return disk ? std::move(disk).value() : nullptr;
  }
  std::string open_error(const std::string& path, int code, const FileDiskOptions& options = {}) {
    const auto disk = FileDisk::open(loop_, path, options);
    if (disk) {
      ADD_FAILURE() << "opened what must be refused";
      return {};
    }
    EXPECT_EQ(disk.error().code, code) << disk.error().message;
    EXPECT_NE(disk.error().message.find(path), std::string::npos) << disk.error().message;
    return disk.error().message;
  }
  static std::uint64_t allocated(const std::string& path) {
    struct stat st {};
    EXPECT_EQ(::stat(path.c_str(), &st), 0);
    return static_cast<std::uint64_t>(st.st_blocks) * 512;
  }

  std::shared_ptr<UringLoop> loop_;
};

class BothCaches : public FileDiskTest, public testing::WithParamInterface<bool> {
 protected:
  FileDiskOptions options_{.expected_size_bytes = std::nullopt, .direct = GetParam()};
};
INSTANTIATE_TEST_SUITE_P(, BothCaches, testing::Bool(),
                         [](const auto& i) { return i.param ? "direct" : "page_cache"; });

TEST_F(FileDiskTest, UsesDirectIoWhereTheFilesystemHasIt) {
  const std::string path = make_file("disk", mib);
  const UniqueFd probe(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_DIRECT));
  const auto disk = open(path);
  ASSERT_TRUE(disk);
  EXPECT_EQ(disk->direct(), probe.valid());
  EXPECT_EQ(disk->size_bytes(), mib);
  EXPECT_TRUE(disk->alignment_bytes() == 512 || disk->alignment_bytes() == 4096);
  EXPECT_EQ(disk->path(), path);
}

TEST_P(BothCaches, WritesAreReadAgainAndAreInTheFile) {
  const std::string path = make_file("disk", 8 * mib);
  const auto disk = open(path, options_);
  ASSERT_TRUE(disk);
  const Buffer data = filled(mib + 4096, 1);
  EXPECT_EQ(write(*disk, 3 * mib, data.span()), 0);
  EXPECT_EQ(write(*disk, 0, data.span().first(4096), true), 0);
  EXPECT_EQ(flush(*disk), 0);
  Buffer seen(mib + 4096);
  EXPECT_EQ(read(*disk, 3 * mib, seen.span()), 0);
  EXPECT_TRUE(equal(seen.span(), data.span()));
  const auto file = content_of(path);
  EXPECT_TRUE(equal(std::span(file).subspan(3 * mib, data.size()), data.span()));
  EXPECT_TRUE(equal(std::span(file).first(4096), data.span().first(4096)));
}

TEST_P(BothCaches, MemoryNeedNotBeAligned) {
  const auto disk = open(make_file("disk", mib), options_);
  ASSERT_TRUE(disk);
  Buffer data = filled(3 * 4096, 2);
  const auto odd = data.span().subspan(13, 8192);
  EXPECT_EQ(write(*disk, 4096, odd), 0);
  Buffer seen(3 * 4096);
  EXPECT_EQ(read(*disk, 4096, seen.span().subspan(7, 8192)), 0);
  EXPECT_TRUE(equal(seen.span().subspan(7, 8192), odd));
}

TEST_P(BothCaches, ManyConcurrentRandomWritesEndInThatImage) {
  constexpr std::size_t block = 4096;
  constexpr std::size_t blocks = 2048;
  const std::string path = make_file("disk", blocks * block);
  const auto disk = open(path, options_);
  ASSERT_TRUE(disk);
  Buffer model = filled(blocks * block, 3);
  std::vector<std::size_t> order(blocks);
  for (std::size_t i = 0; i < blocks; ++i)
    order[i] = i;
  std::ranges::shuffle(order, std::mt19937(4));
  std::size_t ended = 0;
  for (const std::size_t i : order)  // all at once: twice what the ring takes
    disk->write(i * block, model.span().subspan(i * block, block), i % 50 == 0, [&](int error) {
      EXPECT_EQ(error, 0);
      ++ended;
    });
  ASSERT_TRUE(run_until([&] { return ended == blocks; }));
  EXPECT_EQ(flush(*disk), 0);
  EXPECT_TRUE(equal(content_of(path), model.span()));
}

TEST_P(BothCaches, ZeroReadsAsZeroesAndUnmapsWhenItMay) {
  for (const bool may_unmap : {true, false}) {
    SCOPED_TRACE(may_unmap);
    const std::string path = make_file(may_unmap ? "unmap" : "keep", 4 * mib);
    const auto disk = open(path, options_);
    ASSERT_TRUE(disk);
    const Buffer data = filled(4 * mib, 5);
    ASSERT_EQ(write(*disk, 0, data.span()), 0);
    ASSERT_EQ(flush(*disk), 0);
    const std::uint64_t before = allocated(path);
    ASSERT_EQ(zero(*disk, mib + 4096, 2 * mib, may_unmap), 0);
    ASSERT_EQ(flush(*disk), 0);
    auto expected = std::vector<std::byte>(data.span().begin(), data.span().end());
    std::fill_n(expected.begin() + mib + 4096, 2 * mib, std::byte{0});
    EXPECT_TRUE(equal(content_of(path), expected));
    Buffer seen(4 * mib);
    EXPECT_EQ(read(*disk, 0, seen.span()), 0);
    EXPECT_TRUE(equal(seen.span(), expected));
    EXPECT_EQ(std::filesystem::file_size(path), 4 * mib);
    if (may_unmap) {
      EXPECT_LE(allocated(path), before - mib);
    } else {
      EXPECT_GE(allocated(path) + 65536, before);
    }
  }
}

TEST_P(BothCaches, ExtentsCoverTheRangeAndTellHolesTruly) {
  const std::string path = make_file("disk", 16 * mib);
  const auto disk = open(path, options_);
  ASSERT_TRUE(disk);
  const Buffer data = filled(mib, 6);
  for (const std::uint64_t at : {2 * mib, 3 * mib, 9 * mib})
    ASSERT_EQ(write(*disk, at, data.span()), 0);
  ASSERT_EQ(zero(*disk, 9 * mib, 4096, true), 0);
  ASSERT_EQ(flush(*disk), 0);
  const auto file = content_of(path);
  bool some_hole = false;
  for (const auto& [offset, length] :
       {std::pair{std::uint64_t{0}, 16 * mib}, {2 * mib + 512, 8 * mib}, {15 * mib, mib}}) {
    const auto extents = disk->extents(offset, length);
    ASSERT_TRUE(extents);
    std::uint64_t at = offset;
    for (std::size_t i = 0; i < extents.value().size(); ++i) {
      const Extent& extent = extents.value()[i];
      ASSERT_EQ(extent.offset, at);
      ASSERT_GT(extent.length, 0U);
      if (i > 0) {
        EXPECT_NE(extent.hole, extents.value()[i - 1].hole);
      }
      some_hole |= extent.hole;
      const auto bytes = std::span(file).subspan(extent.offset, extent.length);
      if (extent.hole) {
        EXPECT_TRUE(std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; }));
      }
      at += extent.length;
    }
    EXPECT_EQ(at, offset + length);
  }
  EXPECT_TRUE(some_hole);
}

TEST_F(FileDiskTest, NothingAsLengthIsAnsweredToo) {
  const auto disk = open(make_file("disk", mib));
  ASSERT_TRUE(disk);
  EXPECT_EQ(write(*disk, 0, {}), 0);
  EXPECT_EQ(read(*disk, mib, {}), 0);
  EXPECT_EQ(zero(*disk, mib, 0, true), 0);
}

TEST_F(FileDiskTest, ASizeOfWholeSectorsIsEnough) {
  const std::string path = make_file("disk", mib + 512);
  const auto disk = open(path);
  ASSERT_TRUE(disk);
  ASSERT_EQ(disk->size_bytes() % disk->alignment_bytes(), 0U);
  const Buffer data = filled(512, 7);
  EXPECT_EQ(write(*disk, mib, data.span()), 0);
  const auto file = content_of(path);
  EXPECT_TRUE(equal(std::span(file).subspan(mib), data.span()));
}

TEST_F(FileDiskTest, WhatCannotBeADiskIsRefusedByName) {
  open_error(directory_ + "/none", ENOENT);
  open_error(directory_, EINVAL);
  open_error("/dev/null", EINVAL);
  EXPECT_NE(open_error(make_file("empty", 0), EINVAL).find("empty"), std::string::npos);
  EXPECT_NE(open_error(make_file("odd", 1000), EINVAL).find("multiple of 512"), std::string::npos);
  const std::string fifo = directory_ + "/fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  open_error(fifo, EINVAL);
}

TEST_F(FileDiskTest, AnotherSizeThanExpectedIsRefused) {
  const std::string path = make_file("disk", mib);
  const FileDiskOptions other{.expected_size_bytes = 2 * mib, .direct = true};
  const std::string text = open_error(path, ESTALE, other);
  EXPECT_NE(text.find("1048576"), std::string::npos);
  EXPECT_NE(text.find("2097152"), std::string::npos);
  const FileDiskOptions smaller{.expected_size_bytes = mib / 2, .direct = true};
  open_error(path, EINVAL, smaller);
  const FileDiskOptions same{.expected_size_bytes = mib, .direct = true};
  EXPECT_TRUE(open(path, same));  // and the refusal left no lock behind
}

TEST_F(FileDiskTest, WrongPermissionsAreExplained) {
  const std::string path = make_file("disk", mib);
  ASSERT_EQ(::chmod(path.c_str(), 0444), 0);
  ASSERT_EQ(::chmod(directory_.c_str(), 0755), 0);
  const uid_t me = ::geteuid();
  ASSERT_TRUE(me != 0 || ::seteuid(65534) == 0);
  // The scratch directory itself may be out of reach for that user: also "permission denied".
  const std::string text = open_error(path, EACCES);
  ASSERT_TRUE(me != 0 || ::seteuid(me) == 0);
  EXPECT_NE(text.find("Permission denied"), std::string::npos) << text;
}

TEST_F(FileDiskTest, AFileCutBehindOurBackIsAnError) {
  const std::string path = make_file("disk", mib);
  const auto disk = open(path);
  ASSERT_TRUE(disk);
  std::filesystem::resize_file(path, 4096);
  Buffer seen(8192);
  EXPECT_EQ(read(*disk, 0, seen.span()), ESTALE);
  EXPECT_EQ(read(*disk, 0, seen.span().first(4096)), 0);
  EXPECT_NE(disk->trouble().find(path + " was cut to 4096 of 1048576 bytes"), std::string::npos);
}

// A write behind the end would give the file its length back, with zeroes where data was.
TEST_P(BothCaches, NothingIsWrittenToAFileThatWasCut) {
  const std::string path = make_file("disk", mib);
  const auto disk = open(path, options_);
  ASSERT_TRUE(disk);
  std::filesystem::resize_file(path, 4096);
  const Buffer data = filled(4096, 1);
  EXPECT_EQ(write(*disk, mib / 2, data.span()), ESTALE);
  EXPECT_EQ(zero(*disk, mib / 2, 4096, true), ESTALE);
  EXPECT_EQ(zero(*disk, mib / 2, 4096, false), ESTALE);
  EXPECT_EQ(flush(*disk), ESTALE);
  EXPECT_EQ(std::filesystem::file_size(path), 4096U);
  std::filesystem::resize_file(path, mib);
  EXPECT_EQ(write(*disk, 0, data.span()), ESTALE) << "its length alone makes it no replica again";
}

TEST_P(BothCaches, ADeletedImageTakesNoWrites) {
  const std::string path = make_file("disk", mib);
  const auto disk = open(path, options_);
  ASSERT_TRUE(disk);
  std::filesystem::remove(path);
  const Buffer data = filled(4096, 1);
  EXPECT_EQ(write(*disk, 0, data.span()), ESTALE);
  EXPECT_NE(disk->trouble().find("was deleted"), std::string::npos);
}

TEST_P(BothCaches, AnImageWithAnotherFileInItsPlaceIsNoticedByAFlush) {
  const std::string path = make_file("disk", mib);
  const auto disk = open(path, options_);
  ASSERT_TRUE(disk);
  std::filesystem::rename(path, directory_ + "/moved");
  make_file("disk", mib);
  EXPECT_EQ(flush(*disk), ESTALE);
  EXPECT_NE(disk->trouble().find("is another file now"), std::string::npos);
}

TEST_P(BothCaches, AnImageThatIsMovedGoesOn) {
  const std::string path = make_file("disk", mib);
  const auto disk = open(path, options_);
  ASSERT_TRUE(disk);
  std::filesystem::rename(path, directory_ + "/moved");
  const Buffer data = filled(4096, 1);
  EXPECT_EQ(write(*disk, 0, data.span()), 0);
  EXPECT_EQ(flush(*disk), 0);
  EXPECT_EQ(disk->trouble(), "");
}

// The process may not write beyond the limit: a failure of the kernel that needs no broken disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
};

TEST_P(BothCaches, AFailedWriteIsToldAndAFailedFuaWriteSticksToFlush) {
  const auto disk = open(make_file("disk", mib), options_);
  ASSERT_TRUE(disk);
  const Buffer data = filled(4096, 8);
  {
    const FileSizeLimit limit(8192);
    EXPECT_EQ(write(*disk, 65536, data.span()), EFBIG);
    EXPECT_EQ(flush(*disk), 0);  // a refused write has lost nothing that was promised
    EXPECT_EQ(write(*disk, 65536, data.span(), true), EFBIG);
  }
  EXPECT_EQ(write(*disk, 65536, data.span()), 0);
  EXPECT_EQ(flush(*disk), EFBIG);
  EXPECT_EQ(flush(*disk), EFBIG);
}

TEST_P(BothCaches, AShortWriteIsFinishedOrFailed) {
  const std::string path = make_file("disk", mib);
  const auto disk = open(path, options_);
  ASSERT_TRUE(disk);
  const Buffer data = filled(16384, 9);
  const FileSizeLimit limit(8192);
  EXPECT_EQ(write(*disk, 0, data.span()), EFBIG);  // half is taken, the rest is refused
  const auto file = content_of(path);
  EXPECT_TRUE(equal(std::span(file).first(8192), data.span().first(8192)));
}

TEST_F(FileDiskTest, OperationsInFlightSurviveTheDisk) {
  const std::string path = make_file("disk", 8 * mib);
  auto disk = open(path);
  ASSERT_TRUE(disk);
  const Buffer data = filled(4 * mib, 10);
  int ended = 0;
  disk->write(0, data.span(), false, [&](int error) { ended += error == 0 ? 1 : 100; });
  disk->flush([&](int error) { ended += error == 0 ? 1 : 100; });
  disk.reset();
  ASSERT_TRUE(run_until([&] { return ended >= 2; }));
  EXPECT_EQ(ended, 2);
  const auto file = content_of(path);
  EXPECT_TRUE(equal(std::span(file).first(4 * mib), data.span()));
  EXPECT_TRUE(open(path));  // the lock went with the last operation
}

TEST_F(FileDiskTest, SeveralDisksShareOneLoop) {
  const auto a = open(make_file("a", mib));
  const auto b = open(make_file("b", mib));
  ASSERT_TRUE(a && b);
  const Buffer data = filled(8192, 11);
  ASSERT_EQ(write(*b, 0, data.span()), 0);
  std::vector<Buffer> seen;
  for (int i = 0; i < 128; ++i)
    seen.emplace_back(8192);
  int ended = 0;
  for (std::uint64_t at = 0; at < mib; at += 8192) {
    a->write(at, data.span(), false, [&](int error) { ended += error == 0 ? 1 : 1000000; });
    b->read(at % 16384, seen[at / 8192].span(),
            [&](int error) { ended += error == 0 ? 1 : 1000000; });
  }
  EXPECT_TRUE(run_until([&] { return ended >= 2 * 128; }));
  EXPECT_EQ(ended, 2 * 128);
  EXPECT_TRUE(equal(seen[126].span(), data.span()));
  EXPECT_EQ(seen[127].data()[0], std::byte{0});
}

// A loop device over a file, where this host and user can have one.
class LoopDevice {
 public:
  LoopDevice(const std::string& file, int sector_bytes) {
    const std::string command =
        "losetup -f --show -b " + std::to_string(sector_bytes) + " " + file + " 2>/dev/null";
    std::FILE* pipe = ::popen(command.c_str(), "r");
    for (int c = std::fgetc(pipe); c != EOF && c != '\n'; c = std::fgetc(pipe))
      path_ += static_cast<char>(c);
    ::pclose(pipe);
  }
  ~LoopDevice() {
    if (!path_.empty()) std::system(("losetup -d " + path_).c_str());
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST_F(FileDiskTest, ABlockDeviceIsADiskToo) {
  for (const int sector : {512, 4096}) {
    SCOPED_TRACE(sector);
    const std::string file = make_file("backing" + std::to_string(sector), 4 * mib);
    const LoopDevice device(file, sector);
    if (device.path().empty()) GTEST_SKIP() << "no loop device to be had here";
    auto disk = open(device.path());
    ASSERT_TRUE(disk);
    EXPECT_EQ(disk->size_bytes(), 4 * mib);
    EXPECT_EQ(disk->alignment_bytes(), static_cast<std::uint32_t>(sector));
    open_error(device.path(), EBUSY);
    const Buffer data = filled(mib, 13);
    EXPECT_EQ(write(*disk, mib, data.span(), true), 0);
    EXPECT_EQ(zero(*disk, mib, 65536, true), 0);
    EXPECT_EQ(zero(*disk, mib + 65536, 65536, false), 0);
    EXPECT_EQ(flush(*disk), 0);
    Buffer seen(mib);
    EXPECT_EQ(read(*disk, mib, seen.span()), 0);
    EXPECT_TRUE(std::ranges::all_of(seen.span().first(131072),
                                    [](std::byte b) { return b == std::byte{0}; }));
    EXPECT_TRUE(equal(seen.span().subspan(131072), data.span().subspan(131072)));
    const auto extents = disk->extents(0, 4 * mib);
    ASSERT_TRUE(extents);
    ASSERT_EQ(extents.value().size(), 1U);
    EXPECT_FALSE(extents.value()[0].hole);
    disk.reset();
  }
}

using FileDiskDeathTest = FileDiskTest;

TEST_F(FileDiskDeathTest, RequestsOffTheDiskOrOffTheGridAreBugs) {
  const auto disk = open(make_file("disk", mib));
  ASSERT_TRUE(disk);
  const Buffer data = filled(512, 12);
  EXPECT_DEATH(disk->write(mib, data.span(), false, [](int) {}), "must lie on the disk");
  EXPECT_DEATH(disk->write(100, data.span(), false, [](int) {}), "must be aligned");
  EXPECT_DEATH(disk->zero(0, UINT64_MAX, false, [](int) {}), "must lie on the disk");
}

}  // namespace
}  // namespace havm
