#include "vmrepl/disk/metadata_file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>

#include "vmrepl/base/buffer.hpp"
#include "vmrepl/disk/unnamed_file.hpp"

namespace havm {
namespace {

// What one system call moves, through aligned memory.
constexpr std::size_t piece_bytes_max = std::size_t{1} << 20;

}  // namespace

MetadataFile::MetadataFile(std::string what, std::string path, UniqueFd fd)
    : what_(std::move(what)), path_(std::move(path)), fd_(std::move(fd)) {}

Result<MetadataFile> MetadataFile::create_nameless(std::string what, std::string path) {
  BOOST_OUTCOME_TRY(UniqueFd fd, create_unnamed(path));
  MetadataFile file(std::move(what), std::move(path), std::move(fd));
  BOOST_OUTCOME_TRY(file.lock());
  return file;
}

Result<void> MetadataFile::publish() const {
  const auto named = give_name(fd(), path_);
  if (!named) return Error(name() + ": " + named.error().message, named.error().code);
  return success();
}

Result<MetadataFile> MetadataFile::open(std::string what, std::string path) {
  UniqueFd fd = open_direct(path, O_RDWR);
  if (!fd.valid()) return errno_error("cannot open the " + what + " " + path, errno);
  MetadataFile file(std::move(what), std::move(path), std::move(fd));
  BOOST_OUTCOME_TRY(file.lock());
  return file;
}

Result<MetadataFile> MetadataFile::open_to_look(std::string what, std::string path) {
  UniqueFd fd = open_direct(path, O_RDONLY);
  if (!fd.valid()) return errno_error("cannot open the " + what + " " + path, errno);
  return MetadataFile(std::move(what), std::move(path), std::move(fd));
}

Result<void> MetadataFile::lock() const {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (::fcntl(fd(), F_OFD_SETLK, &whole) == 0) return success();
  if (errno == EAGAIN || errno == EACCES)
    return Error(name() + " is in use by another engine of this VM", EBUSY);
  return errno_error("cannot lock " + name(), errno);
}

Result<std::uint64_t> MetadataFile::size_bytes() const {
  struct stat st {};
  if (::fstat(fd(), &st) != 0) return errno_error("cannot get the size of " + name(), errno);
  return static_cast<std::uint64_t>(st.st_size);
}

Result<void> MetadataFile::read(std::uint64_t offset, std::span<std::byte> into) const {
  std::memset(into.data(), 0, into.size());
  Buffer piece(std::min(into.size(), piece_bytes_max));
  while (!into.empty()) {
    const std::size_t wanted = std::min(into.size(), piece.size());
    const ssize_t n = ::pread(fd(), piece.data(), wanted, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("cannot read " + name(), errno);
    const auto got = static_cast<std::size_t>(n);
    std::memcpy(into.data(), piece.data(), got);
    if (got < wanted) return success();  // the end of the file
    into = into.subspan(got);
    offset += got;
  }
  return success();
}

Result<void> MetadataFile::write(std::uint64_t offset, std::span<const std::byte> from) const {
  Buffer piece(std::min(from.size(), piece_bytes_max));
  while (!from.empty()) {
    const std::size_t length = std::min(from.size(), piece.size());
    std::memcpy(piece.data(), from.data(), length);
    const ssize_t n = ::pwrite(fd(), piece.data(), length, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("cannot write " + name(), errno);
    if (static_cast<std::size_t>(n) != length)
      return Error("cannot write " + name() + ": only a part was written", ENOSPC);
    from = from.subspan(length);
    offset += length;
  }
  return success();
}

Result<void> MetadataFile::sync() const {
  if (::fdatasync(fd()) != 0) return errno_error("cannot sync " + name(), errno);
  return success();
}

}  // namespace havm
