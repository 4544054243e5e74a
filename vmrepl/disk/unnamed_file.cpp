#include "vmrepl/disk/unnamed_file.hpp"

#include <cerrno>
#include <filesystem>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

std::string parent_of(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

std::string temporary_name(const std::string& path) {
  return path + ".new";
}

// Linux before 3.11 opens the directory itself and says that it is one.
bool has_no_nameless_files(int error) {
  return error == EOPNOTSUPP || error == EISDIR;
}

// A name that was left over may be a second name of a complete file, so it is removed and never
// written to.
Result<UniqueFd> create_under_temporary_name(const std::string& path) {
  const std::string temporary = temporary_name(path);
  if (::unlink(temporary.c_str()) != 0 && errno != ENOENT)
    return errno_error("cannot remove " + temporary, errno);
  UniqueFd fd = open_direct(temporary, O_RDWR | O_CREAT | O_EXCL);
  if (!fd.valid()) {
    if (errno == EEXIST) return Error("another program is just creating " + path, EBUSY);
    return errno_error("cannot create " + temporary, errno);
  }
  return fd;
}

// Only the temporary name of this very file: another's is not ours to remove.
Result<void> remove_temporary_name(int fd, const std::string& path) {
  const std::string temporary = temporary_name(path);
  struct stat ours {};
  struct stat named {};
  if (::fstat(fd, &ours) != 0) return errno_error("cannot look at " + path, errno);
  if (::lstat(temporary.c_str(), &named) != 0) {
    if (errno == ENOENT) return success();
    return errno_error("cannot look at " + temporary, errno);
  }
  if (ours.st_dev != named.st_dev || ours.st_ino != named.st_ino) return success();
  if (::unlink(temporary.c_str()) != 0 && errno != ENOENT)
    return errno_error("cannot remove " + temporary, errno);
  return success();
}

}  // namespace

UniqueFd open_direct(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC | O_DIRECT, 0600);
  if (fd >= 0 || errno != EINVAL) return UniqueFd(fd);
  // Some filesystems make the file before they refuse O_DIRECT.
  if ((flags & O_EXCL) != 0) ::unlink(path.c_str());
  return UniqueFd(::open(path.c_str(), flags | O_CLOEXEC, 0600));
}

Result<UniqueFd> create_unnamed(const std::string& path, NamelessFiles nameless) {
  if (nameless == NamelessFiles::where_offered) {
    const std::string directory = parent_of(path);
    UniqueFd fd = open_direct(directory, O_RDWR | O_TMPFILE);
    if (fd.valid()) return fd;
    if (!has_no_nameless_files(errno))
      return errno_error("cannot create a file in " + directory, errno);
  }
  return create_under_temporary_name(path);
}

Result<void> give_name(int fd, const std::string& path) {
  if (::fsync(fd) != 0) return errno_error("cannot sync " + path, errno);
  // Through the descriptor: it names this file whatever happened to its temporary name. A link
  // never replaces what is there.
  const std::string open_file = "/proc/self/fd/" + std::to_string(fd);
  if (::linkat(AT_FDCWD, open_file.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) != 0) {
    const int error = errno;
    BOOST_OUTCOME_TRY(remove_temporary_name(fd, path));
    if (error == EEXIST) return Error(path + " exists already", EEXIST);
    return errno_error("cannot create " + path, error);
  }
  BOOST_OUTCOME_TRY(remove_temporary_name(fd, path));
  return sync_directory_of(path);
}

}  // namespace havm
