// image_lock: two engines collide, and so do an engine and the real QEMU tools, both ways.
#include "vmrepl/disk/image_lock.hpp"

#include <cstdio>
#include <thread>

#include <fcntl.h>
#include <sys/wait.h>

#include "tests/unit/vmrepl/disk/disk_fixture.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

class ImageLockTest : public DiskFixture {
 protected:
  void SetUp() override { path_ = make_file("disk.raw", std::uint64_t{1} << 20); }

  [[nodiscard]] UniqueFd open() const {
    return UniqueFd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  }

  // Exit status and everything printed.
  static std::pair<int, std::string> run(const std::string& command) {
    std::FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
    std::string text;
    for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe))
      text += static_cast<char>(c);
    const int status = ::pclose(pipe);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text};
  }
  static bool have(const char* tool) { return run(std::string("command -v ") + tool).first == 0; }

  // Waits until somebody else marks "write" as in use.
  [[nodiscard]] bool wait_for_foreign_mark() const {
    const UniqueFd fd = open();
    for (int i = 0; i < 600; ++i) {
      struct flock lock {};
      lock.l_type = F_WRLCK;
      lock.l_whence = SEEK_SET;
      lock.l_start = 101;
      lock.l_len = 1;
      if (::fcntl(fd.get(), F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return false;
  }

  std::string path_;
};

TEST_F(ImageLockTest, TwoEnginesCollideUntilTheFirstCloses) {
  UniqueFd first = open();
  ASSERT_TRUE(lock_image(first.get(), path_));
  const UniqueFd second = open();
  const auto refused = lock_image(second.get(), path_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EBUSY);
  EXPECT_NE(refused.error().message.find(path_), std::string::npos);
  first.reset();
  EXPECT_TRUE(lock_image(second.get(), path_));
}

TEST_F(ImageLockTest, ARefusalLeavesNoLockBehind) {
  const UniqueFd first = open();
  ASSERT_TRUE(lock_image(first.get(), path_));
  const UniqueFd second = open();
  ASSERT_FALSE(lock_image(second.get(), path_));
  const UniqueFd look = open();
  // Only the first may be in the way: when it unlocks, a write lock on all bytes must be possible.
  struct flock lock {};
  lock.l_type = F_UNLCK;
  lock.l_whence = SEEK_SET;
  ASSERT_EQ(::fcntl(first.get(), F_OFD_SETLK, &lock), 0);
  lock.l_type = F_WRLCK;
  EXPECT_EQ(::fcntl(look.get(), F_OFD_SETLK, &lock), 0);
}

TEST_F(ImageLockTest, QemuIsRefusedWhileAnEngineHasTheImage) {
  if (!have("qemu-io")) GTEST_SKIP() << "qemu-io is not installed";
  UniqueFd engine = open();
  ASSERT_TRUE(lock_image(engine.get(), path_));
  const std::string write_it = "qemu-io -f raw -c 'write -P 7 0 512' " + path_;
  const auto [status, text] = run(write_it);
  EXPECT_NE(status, 0);
  EXPECT_NE(text.find("lock"), std::string::npos) << text;
  const auto [resize_status, resize_text] = run("qemu-img resize -f raw " + path_ + " 2M");
  EXPECT_NE(resize_status, 0) << resize_text;
  EXPECT_EQ(content_of(path_)[0], std::byte{0});
  EXPECT_EQ(run("qemu-img info -U " + path_).first, 0);
  engine.reset();
  EXPECT_EQ(run(write_it).first, 0);
  EXPECT_EQ(content_of(path_)[0], std::byte{7});
}

TEST_F(ImageLockTest, AnEngineIsRefusedWhileQemuHasTheImageAndNamesIt) {
  if (!have("qemu-io")) GTEST_SKIP() << "qemu-io is not installed";
  // Waits for commands on its input, with the image open.
  std::FILE* qemu = ::popen(("qemu-io -f raw " + path_ + " >/dev/null 2>&1").c_str(), "w");
  ASSERT_NE(qemu, nullptr);
  ASSERT_TRUE(wait_for_foreign_mark());
  const UniqueFd engine = open();
  const auto refused = lock_image(engine.get(), path_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EBUSY);
  EXPECT_NE(refused.error().message.find("qemu-io, pid "), std::string::npos)
      << refused.error().message;
  // The refusal must not have taken anything from QEMU, which still works.
  std::fputs("write -P 9 512 512\nquit\n", qemu);
  ::pclose(qemu);
  EXPECT_EQ(content_of(path_)[512], std::byte{9});
  EXPECT_TRUE(lock_image(engine.get(), path_));
}

}  // namespace
}  // namespace havm
