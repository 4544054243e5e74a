#include "vmrepl/disk/image_snapshot.hpp"

#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "vmrepl/base/files.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

class RealSnapshotFiles final : public SnapshotFiles {
 public:
  Result<void> clone(const std::string& from, const std::string& to) override;
  Result<void> rename(const std::string& from, const std::string& to) override;
  Result<void> remove(const std::string& path) override;
  Result<Facts> facts(const std::string& path) override;
};

Result<void> share_blocks(int source, int target, const std::string& from) {
  if (::ioctl(target, FICLONE, source) != 0) {
    const int error = errno;
    const bool cannot = error == EOPNOTSUPP || error == EINVAL || error == ENOTTY || error == EXDEV;
    if (cannot)
      return Error("the file system of " + from + " has no reflinks (XFS and btrfs have)",
                   EOPNOTSUPP);
    return errno_error("cannot make a reflink copy of " + from, error);
  }
  if (::fsync(target) != 0) return errno_error("cannot sync the reflink copy of " + from, errno);
  return success();
}

Result<void> RealSnapshotFiles::clone(const std::string& from, const std::string& to) {
  const UniqueFd source(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  if (!source.valid()) return errno_error("cannot open " + from, errno);
  struct stat st {};
  if (::fstat(source.get(), &st) != 0) return errno_error("cannot look at " + from, errno);
  if (!S_ISREG(st.st_mode)) return Error(from + " is not a file", EOPNOTSUPP);
  const UniqueFd target(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!target.valid()) return errno_error("cannot create " + to, errno);
  Result<void> outcome = share_blocks(source.get(), target.get(), from);
  if (outcome) outcome = sync_directory_of(to);
  if (!outcome) ::unlink(to.c_str());
  return outcome;
}

Result<void> RealSnapshotFiles::rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    return errno_error("cannot rename " + from + " to " + to, errno);
  return sync_directory_of(to);
}

Result<void> RealSnapshotFiles::remove(const std::string& path) {
  if (::unlink(path.c_str()) == 0) return sync_directory_of(path);
  if (errno == ENOENT) return success();
  return errno_error("cannot remove " + path, errno);
}

Result<SnapshotFiles::Facts> RealSnapshotFiles::facts(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return errno_error("cannot look at " + path, errno);
  struct statvfs fs {};
  if (::statvfs(path.c_str(), &fs) != 0)
    return errno_error("cannot look at the file system of " + path, errno);
  Facts facts;
  facts.free_bytes = std::uint64_t{fs.f_bavail} * fs.f_frsize;
  facts.allocated_bytes = static_cast<std::uint64_t>(st.st_blocks) * 512;
  facts.modified_s = st.st_mtim.tv_sec;
  return facts;
}

}  // namespace

std::unique_ptr<SnapshotFiles> real_snapshot_files() {
  return std::make_unique<RealSnapshotFiles>();
}

}  // namespace havm
