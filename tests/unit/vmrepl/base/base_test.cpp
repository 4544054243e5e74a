// The small vocabulary: assertions, strong types, descriptors, whole files, the clock, spellings.
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <unordered_set>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/files.hpp"
#include "vmrepl/base/replica_types.hpp"
#include "vmrepl/base/strong_types.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

class Files : public testing::Test {
 protected:
  Files() {
    std::string name = testing::TempDir() + "havm_files_XXXXXX";
    directory_ = mkdtemp(name.data());
  }
  ~Files() override { std::filesystem::remove_all(directory_); }
  std::string directory_;
};

TEST(AssertDeathTest, SaysWhatAndWhere) {
  EXPECT_DEATH(HAVM_ASSERT(1 == 2, "numbers must agree"),
               "numbers must agree: 1 == 2 .*base_test.cpp");
  HAVM_ASSERT(true, "nothing happens");
}

TEST(StrongTypes, CompareAndCount) {
  EXPECT_LT(Epoch(3), Epoch(4));
  EXPECT_EQ(Epoch(3).next(), Epoch(4));
  EXPECT_EQ(Epoch(), Epoch(0));
  const std::unordered_set<SessionId> set{SessionId(1), SessionId(1), SessionId(2)};
  EXPECT_EQ(set.size(), 2U);
  static_assert(!std::is_convertible_v<Epoch, SessionId>);
  static_assert(!std::is_convertible_v<std::uint64_t, Epoch>);
}

TEST(UniqueFd, ClosesOnceAndMoves) {
  int raw = -1;
  {
    UniqueFd first(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    raw = first.get();
    UniqueFd second(std::move(first));
    EXPECT_EQ(second.get(), raw);
    EXPECT_NE(::fcntl(raw, F_GETFD), -1);
  }
  EXPECT_EQ(::fcntl(raw, F_GETFD), -1);
  EXPECT_EQ(errno, EBADF);
}

TEST(UniqueFd, ReleaseGivesUpOwnership) {
  int raw = -1;
  {
    UniqueFd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    raw = fd.release();
    EXPECT_FALSE(fd.valid());
  }
  EXPECT_NE(::fcntl(raw, F_GETFD), -1);
  ::close(raw);
}

TEST_F(Files, ReplaceThenRead) {
  const std::string path = directory_ + "/file";
  ASSERT_TRUE(replace_file(path, "one"));
  ASSERT_TRUE(replace_file(path, std::string(100000, 'x')));
  const auto content = read_file(path);
  ASSERT_TRUE(content);
  EXPECT_EQ(content.value(), std::string(100000, 'x'));
  EXPECT_FALSE(std::filesystem::exists(path + ".new"));
}

TEST_F(Files, ReadOfAMissingFileSaysEnoent) {
  const auto content = read_file(directory_ + "/none");
  ASSERT_FALSE(content);
  EXPECT_EQ(content.error().code, ENOENT);
  EXPECT_NE(content.error().message.find("none"), std::string::npos);
}

TEST_F(Files, ReadRefusesMoreThanItsBound) {
  const std::string path = directory_ + "/big";
  std::ofstream(path).close();
  std::filesystem::resize_file(path, (16U << 20) + 1);
  const auto content = read_file(path);
  ASSERT_FALSE(content);
  EXPECT_EQ(content.error().code, EFBIG);
}

TEST_F(Files, ReplaceInAMissingDirectoryFails) {
  const auto written = replace_file(directory_ + "/no/such/file", "x");
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, ENOENT);
}

TEST_F(Files, MakeDirectoriesIsIdempotentAndReportsObstacles) {
  ASSERT_TRUE(make_directories(directory_ + "/a/b/c"));
  ASSERT_TRUE(make_directories(directory_ + "/a/b/c"));
  EXPECT_TRUE(std::filesystem::is_directory(directory_ + "/a/b/c"));
  std::ofstream(directory_ + "/a/file").close();
  EXPECT_FALSE(make_directories(directory_ + "/a/file/d"));
}

TEST(BootId, IsAUuid) {
  const auto id = read_boot_id();
  ASSERT_TRUE(id);
  EXPECT_EQ(id.value().size(), 36U);
}

TEST(BootClock, GoesOnAndConverts) {
  const TimePoint first = BootClock::now();
  const TimePoint second = BootClock::now();
  EXPECT_LE(first, second);
  EXPECT_EQ(from_ns(to_ns(first)), first);
  EXPECT_EQ(to_ms(std::chrono::microseconds(2999)), 2);
}

TEST(ReplicaTypes, SpellingsGoRound) {
  for (const auto s : {ReplicaState::uptodate, ReplicaState::inconsistent, ReplicaState::outdated})
    EXPECT_EQ(parse_replica_state(to_text(s)), s);
  for (const auto s : {InSync::none, InSync::self, InSync::both})
    EXPECT_EQ(parse_in_sync(to_text(s)), s);
  EXPECT_EQ(parse_replica_state("UpToDate"), std::nullopt);
  EXPECT_EQ(parse_in_sync(""), std::nullopt);
}

TEST(Result, CarriesTheErrnoText) {
  const Error error = errno_error("cannot open x", ENOENT);
  EXPECT_EQ(error.message, "cannot open x: No such file or directory");
  EXPECT_EQ(error.code, ENOENT);
}

}  // namespace
}  // namespace havm
