#include "vmrepl/disk/image_lock.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <optional>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

// QEMU block/file-posix.c: RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE, plus one byte per
// permission.
constexpr off_t in_use_base = 100;
constexpr off_t not_shared_base = 200;

struct Permission {
  off_t number;
  const char* name;
  bool shared;  // whether we let others have it
};

// Reading and writing through us only; others may read (qemu-img info -U, a backup of a stopped
// VM).
constexpr std::array<Permission, 4> permissions{
    {{0, "read", true}, {1, "write", false}, {2, "write unchanged", false}, {3, "resize", false}}};

struct flock byte_lock(short type, off_t byte) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

// QEMU holds read locks as marks: setting them never collides with another's marks, asking whether
// a write lock would be possible tells whether there are any.
Result<void> set_mark(int fd, const std::string& path, off_t byte) {
  struct flock lock = byte_lock(F_RDLCK, byte);
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return success();
  if (errno == EAGAIN || errno == EACCES)
    return Error("disk image " + path + " is locked by another program", EBUSY);
  return errno_error("cannot lock disk image " + path, errno);
}

Result<bool> others_have_mark(int fd, const std::string& path, off_t byte) {
  struct flock lock = byte_lock(F_WRLCK, byte);
  if (::fcntl(fd, F_OFD_GETLK, &lock) != 0)
    return errno_error("cannot see the locks of disk image " + path, errno);
  return lock.l_type != F_UNLCK;
}

void remove_marks(int fd) {
  struct flock lock = byte_lock(F_UNLCK, in_use_base);
  lock.l_len = not_shared_base + 100 - in_use_base;
  ::fcntl(fd, F_OFD_SETLK, &lock);
}

bool has_open(const std::filesystem::path& process, const struct stat& image) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(process / "fd", error)) {
    struct stat st {};
    if (::stat(entry.path().c_str(), &st) != 0) continue;
    const bool same = S_ISBLK(image.st_mode)
                          ? S_ISBLK(st.st_mode) && st.st_rdev == image.st_rdev
                          : st.st_dev == image.st_dev && st.st_ino == image.st_ino;
    if (same) return true;
  }
  return false;
}

// For the message only: such locks have no process id, so look who has the file open.
std::string who_has_open(int fd) {
  struct stat image {};
  if (::fstat(fd, &image) != 0) return {};
  const std::string self = std::to_string(::getpid());
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string pid = entry.path().filename().string();
    if (pid == self || !std::ranges::all_of(pid, [](unsigned char c) { return std::isdigit(c); }))
      continue;
    if (!has_open(entry.path(), image)) continue;
    Result<std::string> name = read_file((entry.path() / "comm").string());
    std::string text = name ? std::move(name).value() : "a process";
    while (!text.empty() && text.back() == '\n')
      text.pop_back();
    return " (" + text + ", pid " + pid + ")";
  }
  return {};
}

Error in_use(int fd, const std::string& path, const char* permission) {
  return Error("disk image " + path + " is in use by another program" + who_has_open(fd) +
                   " (it keeps the '" + permission + "' lock); stop it first",
               EBUSY);
}

// First our marks, then the look at the others': of two that start together at least one sees the
// other.
Result<void> mark_and_check(int fd, const std::string& path) {
  for (const Permission& p : permissions) {
    BOOST_OUTCOME_TRY(set_mark(fd, path, in_use_base + p.number));
    if (p.shared) continue;
    BOOST_OUTCOME_TRY(set_mark(fd, path, not_shared_base + p.number));
  }
  for (const Permission& p : permissions) {
    BOOST_OUTCOME_TRY(const bool refused, others_have_mark(fd, path, not_shared_base + p.number));
    if (refused) return in_use(fd, path, p.name);
    if (p.shared) continue;
    BOOST_OUTCOME_TRY(const bool used, others_have_mark(fd, path, in_use_base + p.number));
    if (used) return in_use(fd, path, p.name);
  }
  return success();
}

}  // namespace

Result<void> lock_image(int fd, const std::string& path) {
  Result<void> locked = mark_and_check(fd, path);
  if (!locked) remove_marks(fd);
  return locked;
}

}  // namespace havm
