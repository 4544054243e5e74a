// unnamed_file: whole or not at all, with O_TMPFILE and without it.
#include "vmrepl/disk/unnamed_file.hpp"

#include <algorithm>
#include <set>

#include <sys/stat.h>

#include "tests/unit/vmrepl/disk/disk_fixture.hpp"

namespace havm {
namespace {

constexpr std::size_t size = 4096;

class UnnamedFileTest : public DiskFixture, public testing::WithParamInterface<NamelessFiles> {
 protected:
  UniqueFd created(const std::string& path, unsigned value) {
    auto fd = create_unnamed(path, GetParam());
    EXPECT_TRUE(fd) << fd.error().message;
    Buffer bytes(size);
    std::ranges::fill(bytes.span(), static_cast<std::byte>(value));
    EXPECT_EQ(::pwrite(fd.value().get(), bytes.data(), size, 0), static_cast<ssize_t>(size));
    return std::move(fd).value();
  }
  [[nodiscard]] std::set<std::string> names() const {
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(directory_))
      found.insert(entry.path().filename().string());
    return found;
  }
  [[nodiscard]] std::byte first_byte() const { return content_of(path_).at(0); }

  std::string path_ = directory_ + "/record";
};

TEST_P(UnnamedFileTest, AppearsWholeUnderItsNameAlone) {
  const UniqueFd fd = created(path_, 7);
  EXPECT_FALSE(names().contains("record"));
  ASSERT_TRUE(give_name(fd.get(), path_));
  EXPECT_EQ(names(), std::set<std::string>{"record"});
  EXPECT_EQ(content_of(path_), std::vector<std::byte>(size, std::byte{7}));
  struct stat st {};
  ASSERT_EQ(::fstat(fd.get(), &st), 0);
  EXPECT_EQ(st.st_nlink, 1U);
  EXPECT_EQ(st.st_mode & 0777U, 0600U);
}

TEST_P(UnnamedFileTest, NeverReplacesAndLeavesNothingBehind) {
  ASSERT_TRUE(give_name(created(path_, 1).get(), path_));
  const UniqueFd second = created(path_, 2);
  const auto refused = give_name(second.get(), path_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EEXIST);
  EXPECT_EQ(first_byte(), std::byte{1});
  EXPECT_EQ(names(), std::set<std::string>{"record"});
}

TEST_P(UnnamedFileTest, OfTwoAtOnceOneWins) {
  const UniqueFd first = created(path_, 1);
  const UniqueFd second = created(path_, 2);
  const bool first_won = give_name(first.get(), path_).has_value();
  const bool second_won = give_name(second.get(), path_).has_value();
  EXPECT_NE(first_won, second_won);
  EXPECT_EQ(first_byte(), first_won ? std::byte{1} : std::byte{2});
  EXPECT_EQ(names(), std::set<std::string>{"record"});
}

TEST_P(UnnamedFileTest, AMissingDirectoryIsAnError) {
  const auto fd = create_unnamed(directory_ + "/no/record", GetParam());
  ASSERT_FALSE(fd);
  EXPECT_EQ(fd.error().code, ENOENT);
}

INSTANTIATE_TEST_SUITE_P(Ways, UnnamedFileTest,
                         testing::Values(NamelessFiles::where_offered, NamelessFiles::never),
                         [](const auto& way) {
                           return way.param == NamelessFiles::never ? "TemporaryName" : "Nameless";
                         });

class TemporaryNameTest : public DiskFixture {};

// A crash between the link and the removal of the temporary name leaves two names of one file.
TEST_F(TemporaryNameTest, ALeftoverNameOfACompleteFileIsNotWrittenTo) {
  const std::string path = directory_ + "/record";
  std::ofstream(path) << "the record";
  ASSERT_EQ(::link(path.c_str(), (path + ".new").c_str()), 0);
  const auto fd = create_unnamed(path, NamelessFiles::never);
  ASSERT_TRUE(fd);
  Buffer bytes(size);
  std::ranges::fill(bytes.span(), std::byte{9});
  ASSERT_EQ(::pwrite(fd.value().get(), bytes.data(), size, 0), static_cast<ssize_t>(size));
  const auto refused = give_name(fd.value().get(), path);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EEXIST);
  EXPECT_EQ(content_of(path).size(), std::string("the record").size());
  EXPECT_FALSE(std::filesystem::exists(path + ".new"));
}

TEST_F(TemporaryNameTest, AHalfMadeLeftoverIsMadeAnew) {
  const std::string path = directory_ + "/record";
  std::ofstream(path + ".new") << "half a reco";
  const auto fd = create_unnamed(path, NamelessFiles::never);
  ASSERT_TRUE(fd);
  struct stat st {};
  ASSERT_EQ(::fstat(fd.value().get(), &st), 0);
  EXPECT_EQ(st.st_size, 0);
  ASSERT_TRUE(give_name(fd.value().get(), path));
  EXPECT_FALSE(std::filesystem::exists(path + ".new"));
}

}  // namespace
}  // namespace havm
