#include "vmrepl/nbd/unix_listener.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

namespace havm {
namespace {

constexpr int backlog_max = 64;

UniqueFd new_socket() {
  return UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

const sockaddr* as_sockaddr(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return Error("socket path '" + path + "' must have 1 to 107 bytes; use a shorter directory",
                 ENAMETOOLONG);
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<void> remove_stale(const std::string& path, const sockaddr_un& address) {
  struct stat file {};
  if (::lstat(path.c_str(), &file) != 0) {
    if (errno == ENOENT) return success();
    return errno_error("cannot look at " + path, errno);
  }
  if (!S_ISSOCK(file.st_mode))
    return Error(path + " exists and is no socket; move it away", EEXIST);
  const UniqueFd probe = new_socket();
  if (!probe.valid()) return errno_error("cannot make a socket", errno);
  // A full backlog (EAGAIN) is a living server too.
  if (::connect(probe.get(), as_sockaddr(address), sizeof address) == 0 || errno == EAGAIN)
    return Error(path + " is served by another process; stop that one first", EADDRINUSE);
  if (errno != ECONNREFUSED && errno != ENOENT) return errno_error("cannot probe " + path, errno);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    return errno_error("cannot remove the stale socket " + path, errno);
  return success();
}

}  // namespace

UnixListener::UnixListener(UniqueFd fd, std::string path, dev_t device, ino_t inode)
    : fd_(std::move(fd)), path_(std::move(path)), device_(device), inode_(inode) {}

UnixListener::~UnixListener() {
  struct stat file {};
  if (path_.empty() || ::lstat(path_.c_str(), &file) != 0) return;
  if (file.st_dev == device_ && file.st_ino == inode_) ::unlink(path_.c_str());
}

Result<UnixListener> UnixListener::open(const std::string& path, mode_t mode) {
  BOOST_OUTCOME_TRY(auto address, address_of(path));
  BOOST_OUTCOME_TRY(remove_stale(path, address));
  UniqueFd fd = new_socket();
  if (!fd.valid()) return errno_error("cannot make a socket", errno);
  if (::bind(fd.get(), as_sockaddr(address), sizeof address) != 0)
    return errno_error("cannot bind " + path, errno);
  struct stat file {};
  if (::lstat(path.c_str(), &file) != 0) return errno_error("cannot look at " + path, errno);
  UnixListener listener(std::move(fd), path, file.st_dev, file.st_ino);
  if (::chmod(path.c_str(), mode) != 0) return errno_error("cannot set the mode of " + path, errno);
  if (::listen(listener.fd_.get(), backlog_max) != 0)
    return errno_error("cannot listen on " + path, errno);
  return listener;
}

}  // namespace havm
