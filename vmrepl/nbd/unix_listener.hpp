// The job of UnixListener: own a listening unix stream socket and its file. Nobody can connect
// before the file has its mode. A stale file (nobody listens) is replaced; a living one is not
// touched. The file is removed at the end only while it is still the one this listener made.
#pragma once

#include <string>
#include <utility>

#include <sys/types.h>

#include "vmrepl/base/result.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {

class UnixListener {
 public:
  // Error.code is EADDRINUSE when a living server listens on `path`, EEXIST when it is no socket.
  static Result<UnixListener> open(const std::string& path, mode_t mode);

  UnixListener(UnixListener&& other) noexcept
      : fd_(std::move(other.fd_)),
        path_(std::exchange(other.path_, {})),
        device_(other.device_),
        inode_(other.inode_) {}
  UnixListener& operator=(UnixListener&&) = delete;
  ~UnixListener();

  // Nonblocking, close-on-exec. The caller takes it over; the file stays ours.
  [[nodiscard]] UniqueFd take_fd() { return std::move(fd_); }

 private:
  UnixListener(UniqueFd fd, std::string path, dev_t device, ino_t inode);

  UniqueFd fd_;
  std::string path_;  // empty after a move
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace havm
