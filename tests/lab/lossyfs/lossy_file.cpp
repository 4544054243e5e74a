#include "tests/lab/lossyfs/lossy_file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

namespace havm::lab {

namespace {

constexpr std::uint64_t zero_chunk_bytes = std::uint64_t{1} << 20;

off_t place(std::uint64_t offset) {
  return static_cast<off_t>(offset);
}

}  // namespace

LossyFile::LossyFile(Medium& medium, UniqueFd fd, std::uint64_t size)
    : medium_(medium), fd_(std::move(fd)), size_(size) {}

LossyFile::~LossyFile() {
  medium_.bytes_held -= accounted_;
}

void LossyFile::account() {
  const std::uint64_t held = data_.bytes_held();
  medium_.bytes_held += held - accounted_;  // modulo 2^64: right also when it sinks
  accounted_ = held;
}

// ---- the medium ---------------------------------------------------------------------------------

int LossyFile::put_bytes(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_.get(), bytes.data(), bytes.size(), place(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    offset += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return 0;
}

int LossyFile::put_zeroes(std::uint64_t offset, std::uint64_t length) {
  if (::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, place(offset),
                  place(length)) == 0)
    return 0;
  if (errno != EOPNOTSUPP) return -errno;
  const std::vector<std::byte> zeroes(std::min(length, zero_chunk_bytes));
  while (length > 0) {
    const std::size_t step = std::min<std::uint64_t>(length, zeroes.size());
    if (const int error = put_bytes(offset, {zeroes.data(), step}); error != 0) return error;
    offset += step;
    length -= step;
  }
  return 0;
}

int LossyFile::put(const VolatileData::Piece& piece) {
  return piece.is_zeroes() ? put_zeroes(piece.offset, piece.length)
                           : put_bytes(piece.offset, piece.bytes);
}

std::int64_t LossyFile::medium_size() {
  struct stat st {};
  return ::fstat(fd_.get(), &st) == 0 ? std::int64_t{st.st_size} : -std::int64_t{errno};
}

int LossyFile::extend_medium(std::uint64_t size) {
  const std::int64_t now = medium_size();
  if (now < 0) return static_cast<int>(now);
  if (static_cast<std::uint64_t>(now) >= size) return 0;
  return ::ftruncate(fd_.get(), place(size)) == 0 ? 0 : -errno;
}

int LossyFile::flush_locked() {
  for (auto piece = data_.at_or_after(0); piece; piece = data_.at_or_after(0)) {
    const VolatileData::Piece done = *piece;
    if (const int error = put(done); error != 0) return error;
    data_.forget(done.offset, done.length);
    account();
  }
  return extend_medium(size_);
}

int LossyFile::flush() {
  const std::lock_guard lock(mutex_);
  return flush_locked();
}

int LossyFile::flush_if_too_much() {
  return medium_.bytes_held > medium_.bytes_max ? flush_locked() : 0;
}

// ---- reading and writing ------------------------------------------------------------------------

std::int64_t LossyFile::read(std::uint64_t offset, std::span<std::byte> into) {
  const std::lock_guard lock(mutex_);
  if (offset >= size_) return 0;
  into = into.first(std::min<std::uint64_t>(into.size(), size_ - offset));
  std::size_t have = 0;
  while (have < into.size()) {
    const ssize_t n =
        ::pread(fd_.get(), into.data() + have, into.size() - have, place(offset + have));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    if (n == 0) break;  // the medium ends before the file does
    have += static_cast<std::size_t>(n);
  }
  std::memset(into.data() + have, 0, into.size() - have);
  data_.overlay(offset, into);
  return static_cast<std::int64_t>(into.size());
}

std::int64_t LossyFile::write(std::uint64_t offset, std::span<const std::byte> from, bool durable) {
  const std::lock_guard lock(mutex_);
  if (durable || medium_.honest) {
    if (const int error = put_bytes(offset, from); error != 0) return error;
    data_.forget(offset, from.size());
  } else {
    data_.write(offset, from);
    // Nobody asked for it, so nobody is told when it fails.
    for (const ByteRange& kept : medium_.write_back.of_write(offset, from.size()))
      put_bytes(kept.offset, from.subspan(kept.offset - offset, kept.length));
  }
  account();
  size_ = std::max(size_, offset + from.size());
  if (const int error = flush_if_too_much(); error != 0) return error;
  return static_cast<std::int64_t>(from.size());
}

int LossyFile::zero_locked(std::uint64_t offset, std::uint64_t length) {
  if (offset >= size_) return 0;
  length = std::min(length, size_ - offset);
  if (medium_.honest) return put_zeroes(offset, length);
  data_.zero(offset, length);
  account();
  for (const ByteRange& kept : medium_.write_back.of_zeroes(offset, length))
    put_zeroes(kept.offset, kept.length);
  return 0;
}

int LossyFile::allocate(int mode, std::uint64_t offset, std::uint64_t length) {
  const std::lock_guard lock(mutex_);
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const int kind = mode & ~FALLOC_FL_KEEP_SIZE;
  if (kind != 0 && kind != FALLOC_FL_PUNCH_HOLE && kind != FALLOC_FL_ZERO_RANGE) return -EOPNOTSUPP;
  if (kind == 0 && ::fallocate(fd_.get(), mode, place(offset), place(length)) != 0) return -errno;
  if (kind != 0) {
    if (const int error = zero_locked(offset, length); error != 0) return error;
  }
  if (keep_size || offset + length <= size_) return 0;
  if (const int error = extend_medium(offset + length); error != 0) return error;
  size_ = offset + length;
  return 0;
}

int LossyFile::truncate(std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  if (::ftruncate(fd_.get(), place(size)) != 0) return -errno;
  data_.forget(size, std::numeric_limits<std::uint64_t>::max());
  account();
  size_ = size;
  return 0;
}

// ---- holes --------------------------------------------------------------------------------------

std::int64_t LossyFile::seek(std::uint64_t offset, int whence) {
  const std::lock_guard lock(mutex_);
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return -EINVAL;
  if (offset >= size_) return -ENXIO;
  return seek_locked(offset, whence);
}

std::int64_t LossyFile::seek_locked(std::uint64_t offset, int whence) {
  const bool want_hole = whence == SEEK_HOLE;
  std::uint64_t at = offset;
  while (at < size_) {
    const auto piece = data_.at_or_after(at);
    if (piece && piece->offset <= at) {
      if (piece->is_zeroes() == want_hole) return static_cast<std::int64_t>(at);
      at = piece->end();
      continue;
    }
    // Up to the next piece the medium tells. ENXIO: only a hole is left of it.
    const std::uint64_t limit = piece ? std::min(piece->offset, size_) : size_;
    const off_t found = ::lseek(fd_.get(), place(at), whence);
    if (found < 0 && errno == ENXIO && want_hole) return static_cast<std::int64_t>(at);
    if (found < 0 && errno != ENXIO) return -errno;
    if (found >= 0 && static_cast<std::uint64_t>(found) < limit) return found;
    at = limit;
  }
  return want_hole ? static_cast<std::int64_t>(size_) : -ENXIO;
}

// ---- what it is ---------------------------------------------------------------------------------

std::uint64_t LossyFile::size() {
  const std::lock_guard lock(mutex_);
  return size_;
}

std::uint64_t LossyFile::bytes_held() {
  const std::lock_guard lock(mutex_);
  return data_.bytes_held();
}

bool LossyFile::is_volatile() {
  const std::lock_guard lock(mutex_);
  if (!data_.empty()) return true;
  const std::int64_t on_medium = medium_size();
  return on_medium >= 0 && static_cast<std::uint64_t>(on_medium) < size_;
}

}  // namespace havm::lab
