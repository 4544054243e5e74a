// LossyFile: what a reader sees, and what is left on the medium when the process ends at any time.
#include "tests/lab/lossyfs/lossy_file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

namespace havm::lab {
namespace {

using Bytes = std::vector<std::byte>;

constexpr int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

Bytes filled(std::size_t size, unsigned value) {
  return Bytes(size, static_cast<std::byte>(value));
}

class LossyFileTest : public testing::Test {
 protected:
  LossyFileTest() {
    std::string name = std::string(HAVM_TEST_DIR) + "/lossy_XXXXXX";
    directory_ = ::mkdtemp(name.data());
    path_ = directory_ + "/file";
  }
  ~LossyFileTest() override { std::filesystem::remove_all(directory_); }

  void open(double chance = 0.0, std::uint64_t seed = 1, bool honest = false) {
    file_.reset();
    medium_ = std::make_unique<Medium>(honest, chance, seed);
    UniqueFd fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_TRUE(fd.valid());
    struct stat st {};
    ASSERT_EQ(::fstat(fd.get(), &st), 0);
    file_ = std::make_unique<LossyFile>(*medium_, std::move(fd),
                                        static_cast<std::uint64_t>(st.st_size));
  }

  // What a power cut now would leave.
  [[nodiscard]] Bytes medium() const {
    const UniqueFd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    Bytes bytes(std::filesystem::file_size(path_));
    EXPECT_EQ(::pread(fd.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    return bytes;
  }
  Bytes seen() {
    Bytes bytes(file_->size() + 10);
    const std::int64_t n = file_->read(0, bytes);
    EXPECT_EQ(n, static_cast<std::int64_t>(file_->size()));
    bytes.resize(static_cast<std::size_t>(std::max<std::int64_t>(n, 0)));
    return bytes;
  }
  void write(std::uint64_t offset, const Bytes& bytes, bool durable = false) {
    ASSERT_EQ(file_->write(offset, bytes, durable), static_cast<std::int64_t>(bytes.size()));
  }

  std::string directory_;
  std::string path_;
  std::unique_ptr<Medium> medium_;
  std::unique_ptr<LossyFile> file_;
};

TEST_F(LossyFileTest, WhatIsNotFlushedIsLostWithItsSize) {
  open();
  write(0, filled(1000, 1));
  EXPECT_EQ(seen(), filled(1000, 1));
  EXPECT_TRUE(medium().empty());
  EXPECT_TRUE(file_->is_volatile());
  EXPECT_EQ(file_->flush(), 0);
  EXPECT_EQ(medium(), filled(1000, 1));
  EXPECT_FALSE(file_->is_volatile());
}

TEST_F(LossyFileTest, AnOverwriteThatIsNotFlushedLeavesTheOldData) {
  open();
  write(0, filled(2000, 1));
  ASSERT_EQ(file_->flush(), 0);
  write(500, filled(100, 2));
  EXPECT_EQ(medium(), filled(2000, 1));
  EXPECT_EQ(seen()[500], std::byte{2});
}

TEST_F(LossyFileTest, ADurableWriteFlushesItsOwnRangeOnly) {
  open();
  write(0, filled(3000, 1));
  ASSERT_EQ(file_->flush(), 0);
  write(0, filled(1000, 2));
  write(500, filled(1000, 3), true);
  const Bytes left = medium();
  EXPECT_EQ(left[499], std::byte{1});
  EXPECT_EQ(left[500], std::byte{3});
  EXPECT_EQ(left[1499], std::byte{3});
  EXPECT_EQ(left[1500], std::byte{1});
  EXPECT_EQ(seen()[499], std::byte{2});
  EXPECT_EQ(seen()[500], std::byte{3});
}

TEST_F(LossyFileTest, APunchedHoleIsVolatileToo) {
  open();
  write(0, filled(65536, 1));
  ASSERT_EQ(file_->flush(), 0);
  ASSERT_EQ(file_->allocate(punch, 4096, 8192), 0);
  EXPECT_EQ(seen()[4096], std::byte{0});
  EXPECT_EQ(medium(), filled(65536, 1));
  ASSERT_EQ(file_->flush(), 0);
  const Bytes left = medium();
  EXPECT_EQ(left[4095], std::byte{1});
  EXPECT_EQ(left[4096], std::byte{0});
  EXPECT_EQ(left[12287], std::byte{0});
  EXPECT_EQ(left[12288], std::byte{1});
}

TEST_F(LossyFileTest, SizesOfTruncateAndAllocateReachTheMediumAtOnce) {
  open();
  ASSERT_EQ(file_->truncate(10000), 0);
  EXPECT_EQ(medium(), filled(10000, 0));
  write(0, filled(10000, 1));
  ASSERT_EQ(file_->truncate(100), 0);
  ASSERT_EQ(file_->truncate(200), 0);
  Bytes expected = filled(100, 1);
  expected.resize(200);
  EXPECT_EQ(seen(), expected) << "what was cut off came back";
  ASSERT_EQ(file_->allocate(0, 0, 5000), 0);
  EXPECT_EQ(file_->size(), 5000U);
  EXPECT_EQ(medium(), filled(5000, 0));
  ASSERT_EQ(file_->allocate(FALLOC_FL_ZERO_RANGE, 50, 6000), 0);
  EXPECT_EQ(file_->size(), 6050U);
  EXPECT_EQ(seen()[49], std::byte{1});
  EXPECT_EQ(seen()[50], std::byte{0});
  EXPECT_EQ(file_->allocate(FALLOC_FL_COLLAPSE_RANGE, 0, 4096), -EOPNOTSUPP);
}

TEST_F(LossyFileTest, AnHonestFileLosesNothing) {
  open(0.0, 1, true);
  write(0, filled(1000, 1));
  EXPECT_EQ(medium(), filled(1000, 1));
}

TEST_F(LossyFileTest, TooMuchVolatileDataIsWrittenBack) {
  open();
  medium_->bytes_max = 100000;
  for (std::uint64_t i = 0; i < 100; ++i)
    write(i * 4096, filled(4096, 1));
  EXPECT_LE(medium_->bytes_held, 100000U);
  EXPECT_GE(medium().size(), 200000U);
  EXPECT_EQ(seen(), filled(409600, 1));
  file_.reset();
  EXPECT_EQ(medium_->bytes_held, 0U);
}

// A sector of the medium may hold any version since the last flush, never another.
TEST_F(LossyFileTest, UnderARandomLifeEverySectorIsFlushedOrOneOfItsLaterVersions) {
  constexpr std::uint64_t sectors = 64;
  constexpr std::size_t size = sectors * WriteBack::sector_bytes;
  std::uint64_t kept_unflushed = 0;
  for (const double chance : {0.0, 0.4}) {
    for (unsigned seed = 0; seed < 12; ++seed) {
      SCOPED_TRACE(seed);
      std::filesystem::remove(path_);
      open(chance, seed);
      ASSERT_EQ(file_->truncate(size), 0);
      std::mt19937 random(seed);
      Bytes newest = filled(size, 0);
      std::array<unsigned, sectors> flushed{};
      std::array<std::set<unsigned>, sectors> possible;
      const auto settle = [&](std::uint64_t first, std::uint64_t count) {
        for (std::uint64_t i = first; i < first + count; ++i)
          possible[i] = {flushed[i] = std::to_integer<unsigned>(newest[i * 512])};
      };
      settle(0, sectors);
      for (unsigned step = 1; step < 100; ++step) {
        const std::uint64_t first = random() % sectors;
        const std::uint64_t count = 1 + random() % (sectors - first);
        const unsigned act = random() % 8;
        if (act == 0) {
          ASSERT_EQ(file_->flush(), 0);
          settle(0, sectors);
        } else {
          const unsigned value = act < 3 ? 0 : step;
          std::fill_n(newest.begin() + static_cast<std::ptrdiff_t>(first * 512), count * 512,
                      static_cast<std::byte>(value));
          if (act < 3)
            ASSERT_EQ(file_->allocate(punch, first * 512, count * 512), 0);
          else
            write(first * 512, filled(count * 512, value), act == 3);
          for (std::uint64_t i = first; i < first + count; ++i)
            possible[i].insert(value);
          if (act == 3) settle(first, count);
        }
        ASSERT_EQ(seen(), newest);
        const Bytes left = medium();
        ASSERT_EQ(left.size(), size);
        for (std::uint64_t i = 0; i < sectors; ++i) {
          const auto value = std::to_integer<unsigned>(left[i * 512]);
          ASSERT_EQ(possible[i].count(value), 1U) << "sector " << i << " after step " << step;
          if (chance == 0.0)
            ASSERT_EQ(value, flushed[i]) << "sector " << i << " after step " << step;
          else if (value != flushed[i])
            ++kept_unflushed;
          const auto sector = std::span(left).subspan(i * 512, 512);
          ASSERT_TRUE(std::equal(sector.begin() + 1, sector.end(), sector.begin()))
              << "torn inside sector " << i;
        }
      }
    }
  }
  EXPECT_GT(kept_unflushed, 1000U) << "the random part is too small to show anything";
}

// Holes against reads: where a hole is told there are zeroes, and where a piece begins is told.
TEST_F(LossyFileTest, AHoleIsNeverToldWhereThereIsData) {
  constexpr std::uint64_t block = 4096;
  constexpr std::uint64_t blocks = 48;
  std::uint64_t holes = 0;
  for (unsigned seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::filesystem::remove(path_);
    open(0.2, seed);
    ASSERT_EQ(file_->truncate(blocks * block), 0);
    std::mt19937 random(seed);
    for (unsigned step = 1; step < 30; ++step) {
      const std::uint64_t first = random() % blocks;
      const std::uint64_t count = 1 + random() % (blocks - first);
      switch (random() % 3) {
        case 0:
          ASSERT_EQ(file_->allocate(punch, first * block, count * block), 0);
          break;
        case 1:
          ASSERT_EQ(file_->flush(), 0);
          break;
        default:
          write(first * block, filled(block, step));
      }
      const Bytes bytes = seen();
      std::uint64_t at = 0;
      while (at < bytes.size()) {
        const std::int64_t data = file_->seek(at, SEEK_DATA);
        ASSERT_TRUE(data >= 0 || data == -ENXIO) << data;
        const std::uint64_t data_at = data < 0 ? bytes.size() : static_cast<std::uint64_t>(data);
        ASSERT_GE(data_at, at);
        const auto hole_bytes = std::span(bytes).subspan(at, data_at - at);
        ASSERT_TRUE(std::ranges::all_of(hole_bytes, [](std::byte b) { return b == std::byte{0}; }))
            << "data between " << at << " and " << data_at << " is called a hole";
        holes += data_at - at;
        if (data_at == bytes.size()) break;
        const std::int64_t hole = file_->seek(data_at, SEEK_HOLE);
        ASSERT_GT(hole, data);
        ASSERT_LE(static_cast<std::uint64_t>(hole), bytes.size());
        at = static_cast<std::uint64_t>(hole);
      }
    }
  }
  EXPECT_GT(holes, 0U) << "no hole was ever told";
  EXPECT_EQ(file_->seek(blocks * block, SEEK_DATA), -ENXIO);
}

TEST_F(LossyFileTest, HolesOfAFileThatIsLongerThanItsMedium) {
  open();
  write(100 * 4096, filled(4096, 1));
  EXPECT_EQ(file_->seek(0, SEEK_HOLE), 0);
  EXPECT_EQ(file_->seek(0, SEEK_DATA), 100 * 4096);
  EXPECT_EQ(file_->seek(100 * 4096, SEEK_HOLE), 101 * 4096);
  EXPECT_EQ(seen()[5], std::byte{0});
}

}  // namespace
}  // namespace havm::lab
