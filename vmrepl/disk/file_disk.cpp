#include "vmrepl/disk/file_disk.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <boost/asio/post.hpp>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/buffer.hpp"
#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/unique_fd.hpp"
#include "vmrepl/disk/image_lock.hpp"

namespace havm {

namespace {

using Kind = UringOperation::Kind;
using Done = ReplicaDisk::Done;

#ifdef HAVM_BREAK_FLUSH
// DELIBERATELY BROKEN: a flush and a write with FUA are answered without flushing anything.
// Compiled only into the program havm-repl-broken-flush, which is never installed: it shows that
// our checkers notice.
constexpr bool flush_reaches_the_medium = false;
#else
constexpr bool flush_reaches_the_medium = true;
#endif

constexpr std::uint64_t zero_chunk_bytes = std::uint64_t{1} << 20;
constexpr std::uint64_t transfer_bytes_max = std::uint64_t{1} << 30;

std::uint64_t round_down(std::uint64_t value, std::uint64_t to) {
  return value - value % to;
}
std::uint64_t round_up(std::uint64_t value, std::uint64_t to) {
  return round_down(value + to - 1, to);
}

// One read, write or zeroing, until all of it is done.
struct Transfer {
  Kind kind = Kind::read;
  std::uint64_t offset = 0;
  std::uint64_t left = 0;
  std::byte* data = nullptr;
  bool repeats_data = false;  // explicit zeroes: every piece is written from the same place
  Buffer bounce;              // when the caller's memory is not aligned for O_DIRECT
  std::span<std::byte> read_into;
  Done done;
};

// The filesystem or device has no such operation; it will not have it later either.
bool is_unsupported(int error) {
  return error == EOPNOTSUPP || error == ENOSYS || error == ENODEV || error == ENOTTY;
}

}  // namespace

// What operations in flight share with the disk; it outlives the disk for them.
struct FileDisk::Image : std::enable_shared_from_this<Image> {
  std::shared_ptr<UringLoop> loop;
  std::string path;
  UniqueFd fd;
  std::uint64_t size_bytes = 0;
  std::uint32_t alignment_bytes = 512;
  bool direct = false;
  bool block_device = false;
  bool can_punch = true;       // until the filesystem says otherwise
  bool can_zero_range = true;  // until the filesystem says otherwise
  int flush_error = 0;         // sticky: see guarantee 5 of the header
  bool is_local = false;       // looking at it never waits for another machine or process
  bool had_name = false;
  TimePoint path_seen_at{};  // when another file was last looked for
  std::string trouble;       // sticky: see guarantee 6
  Buffer zeroes;

  void check_range(std::uint64_t offset, std::uint64_t length) const;
  // O_DIRECT wants aligned memory.
  [[nodiscard]] bool needs_bounce(const std::byte* memory) const {
    return direct && reinterpret_cast<std::uintptr_t>(memory) % alignment_bytes != 0;
  }
  // 0, or ESTALE once there is trouble.
  int check();
  int look();
  int check_path(TimePoint now);
  int found(const std::string& what);
  void finish_later(Done done, int error);
  void run(const std::shared_ptr<Transfer>& transfer);
  void advance(const std::shared_ptr<Transfer>& transfer, int result);
  void finish(Transfer& transfer, int error);
  void zero(std::uint64_t offset, std::uint64_t length, bool may_unmap, Done done);
  void zero_by(Kind kind, std::uint64_t offset, std::uint64_t length, Done done);
  void write_zeroes(std::uint64_t offset, std::uint64_t length, Done done);
  void flush(Done done);
};

void FileDisk::Image::check_range(std::uint64_t offset, std::uint64_t length) const {
  HAVM_ASSERT(offset <= size_bytes && length <= size_bytes - offset,
              "disk requests must lie on the disk");
  HAVM_ASSERT(offset % alignment_bytes == 0 && length % alignment_bytes == 0,
              "disk requests must be aligned");
}

int FileDisk::Image::found(const std::string& what) {
  trouble = "disk image " + path + " " + what +
            "; nothing more is written to it, and what it holds is not trusted: let the partner "
            "take over, then give this node a new image (runbook: A replica failed)";
  return ESTALE;
}

int FileDisk::Image::check() {
  if (!trouble.empty()) return ESTALE;
  return is_local ? look() : 0;
}

int FileDisk::Image::look() {
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return 0;  // whatever that is, the request itself will tell
  if (had_name && st.st_nlink == 0) return found("was deleted, or replaced, under the engine");
  if (static_cast<std::uint64_t>(st.st_size) < size_bytes)
    return found("was cut to " + std::to_string(st.st_size) + " of " + std::to_string(size_bytes) +
                 " bytes");
  return 0;
}

// Not where a path leads elsewhere for a while (it is being moved), only where it leads to another
// file: the next start of the engine would open that.
int FileDisk::Image::check_path(TimePoint now) {
  if (!trouble.empty()) return ESTALE;
  if (!is_local && !block_device) return 0;
  if (now - path_seen_at < std::chrono::seconds(1)) return 0;
  path_seen_at = now;
  if (block_device) {
    std::uint64_t size = 0;
    if (::ioctl(fd.get(), BLKGETSIZE64, &size) == 0 && size < size_bytes)
      return found("has shrunk to " + std::to_string(size) + " of " + std::to_string(size_bytes) +
                   " bytes");
    return 0;
  }
  struct stat ours {};
  struct stat there {};
  if (::fstat(fd.get(), &ours) != 0 || ::stat(path.c_str(), &there) != 0) return 0;
  if (ours.st_dev == there.st_dev && ours.st_ino == there.st_ino) return 0;
  return found("is another file now than the one the engine has open");
}

void FileDisk::Image::finish_later(Done done, int error) {
  boost::asio::post(loop->executor(), [done = std::move(done), error] { done(error); });
}

void FileDisk::Image::run(const std::shared_ptr<Transfer>& transfer) {
  UringOperation op;
  op.kind = transfer->kind;
  op.fd = fd.get();
  op.offset = transfer->offset;
  op.length =
      std::min(transfer->left, transfer->repeats_data ? zero_chunk_bytes : transfer_bytes_max);
  op.data = transfer->data;
  op.done = [image = shared_from_this(), transfer](int result) {
    image->advance(transfer, result);
  };
  loop->start(std::move(op));
}

void FileDisk::Image::advance(const std::shared_ptr<Transfer>& transfer, int result) {
  if (result == -EINTR || result == -EAGAIN) return run(transfer);
  if (result < 0) return finish(*transfer, -result);
  // O_DIRECT must go on at an aligned place, so a ragged end is done again. Nothing at all means
  // that the file ends before its size: somebody cut it.
  const auto moved = static_cast<std::uint64_t>(result);
  const std::uint64_t kept = direct ? round_down(moved, alignment_bytes) : moved;
  if (kept == 0) {
    const int stale = block_device ? 0 : look();
    return finish(*transfer, stale != 0 ? stale : EIO);
  }
  transfer->offset += kept;
  transfer->left -= kept;
  if (!transfer->repeats_data) transfer->data += kept;
  if (transfer->left > 0) return run(transfer);
  finish(*transfer, 0);
}

void FileDisk::Image::finish(Transfer& transfer, int error) {
  if (error != 0 && transfer.kind == Kind::write_dsync && flush_error == 0) flush_error = error;
  if (error == 0 && transfer.kind == Kind::read && !transfer.bounce.empty())
    std::memcpy(transfer.read_into.data(), transfer.bounce.data(), transfer.read_into.size());
  transfer.done(error);
}

void FileDisk::Image::zero(std::uint64_t offset, std::uint64_t length, bool may_unmap, Done done) {
  if (may_unmap && can_punch) return zero_by(Kind::punch_hole, offset, length, std::move(done));
  if (can_zero_range) return zero_by(Kind::zero_range, offset, length, std::move(done));
  write_zeroes(offset, length, std::move(done));
}

void FileDisk::Image::zero_by(Kind kind, std::uint64_t offset, std::uint64_t length, Done done) {
  UringOperation op;
  op.kind = kind;
  op.fd = fd.get();
  op.offset = offset;
  op.length = length;
  op.done = [image = shared_from_this(), kind, offset, length, done = std::move(done)](int result) {
    if (result == -EINTR || result == -EAGAIN) return image->zero_by(kind, offset, length, done);
    if (result >= 0) return done(0);
    if (is_unsupported(-result)) {
      (kind == Kind::punch_hole ? image->can_punch : image->can_zero_range) = false;
      return image->zero(offset, length, kind == Kind::punch_hole, done);
    }
    // Not at this place, for instance across a device's block size.
    if (result == -EINVAL) return image->write_zeroes(offset, length, done);
    done(-result);
  };
  loop->start(std::move(op));
}

void FileDisk::Image::write_zeroes(std::uint64_t offset, std::uint64_t length, Done done) {
  if (zeroes.empty()) {
    zeroes = Buffer(zero_chunk_bytes);
    std::memset(zeroes.data(), 0, zeroes.size());
  }
  auto transfer = std::make_shared<Transfer>();
  transfer->kind = Kind::write;
  transfer->offset = offset;
  transfer->left = length;
  transfer->data = zeroes.data();
  transfer->repeats_data = true;
  transfer->done = std::move(done);
  run(transfer);
}

void FileDisk::Image::flush(Done done) {
  int stale = check();
  if (stale == 0) stale = check_path(BootClock::now());
  if (stale != 0) return finish_later(std::move(done), stale);
  if (flush_error != 0 || !flush_reaches_the_medium)
    return finish_later(std::move(done), flush_error);
  UringOperation op;
  op.kind = Kind::data_sync;
  op.fd = fd.get();
  op.done = [image = shared_from_this(), done = std::move(done)](int result) {
    if (result == -EINTR || result == -EAGAIN) return image->flush(done);
    if (result < 0 && image->flush_error == 0) image->flush_error = -result;
    done(image->flush_error);
  };
  loop->start(std::move(op));
}

namespace {

struct Opened {
  UniqueFd fd;
  bool direct = false;
  bool block_device = false;
};

Result<Opened> open_image(const std::string& path, bool want_direct) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return errno_error("cannot find disk image " + path, errno);
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
    return Error("disk image " + path + " is neither a file nor a block device", EINVAL);
  Opened opened;
  opened.block_device = S_ISBLK(st.st_mode);
  // O_EXCL without O_CREAT refuses a block device that is mounted or part of a volume group.
  const int flags = O_RDWR | O_CLOEXEC | (opened.block_device ? O_EXCL : 0);
  if (want_direct) {
    opened.fd.reset(::open(path.c_str(), flags | O_DIRECT));
    opened.direct = opened.fd.valid();
  }
  if (!opened.direct && (!want_direct || errno == EINVAL))
    opened.fd.reset(::open(path.c_str(), flags));
  if (!opened.fd.valid()) {
    const int error = errno;
    if (error == EACCES || error == EPERM || error == EROFS)
      return errno_error("cannot open disk image " + path +
                             " for writing; check its owner and mode and those of its directories",
                         error);
    return errno_error("cannot open disk image " + path, error);
  }
  return opened;
}

Result<std::uint64_t> measure(const Opened& opened, const std::string& path) {
  std::uint64_t size = 0;
  if (opened.block_device) {
    if (::ioctl(opened.fd.get(), BLKGETSIZE64, &size) != 0)
      return errno_error("cannot get the size of " + path, errno);
  } else {
    struct stat st {};
    if (::fstat(opened.fd.get(), &st) != 0)
      return errno_error("cannot get the size of " + path, errno);
    size = static_cast<std::uint64_t>(st.st_size);
  }
  if (size == 0) return Error("disk image " + path + " is empty", EINVAL);
  if (size % 512 != 0)
    return Error("disk image " + path + " has a size of " + std::to_string(size) +
                     " bytes, which is not a multiple of 512; grow it with qemu-img resize",
                 EINVAL);
  return size;
}

// Tries the smallest read, and memory aligned no better than that: what works for it works for all.
bool direct_read_works(int fd, std::uint32_t alignment, std::uint64_t size) {
  Buffer buffer(2 * Buffer::alignment_bytes);
  const std::size_t length = alignment;
  const std::uint64_t offset = size >= 2 * length ? length : 0;
  std::byte* memory = buffer.data() + (alignment % Buffer::alignment_bytes);
  return ::pread(fd, memory, length, static_cast<off_t>(offset)) >= 0 || errno != EINVAL;
}

// 512 or 4096; 0 when O_DIRECT cannot reach all of this image.
std::uint32_t direct_alignment(const Opened& opened, std::uint64_t size) {
  int sector = 512;
  if (opened.block_device && ::ioctl(opened.fd.get(), BLKSSZGET, &sector) != 0) sector = 4096;
  if (sector == 512 && direct_read_works(opened.fd.get(), 512, size)) return 512;
  const bool reaches_all = size % 4096 == 0;
  return reaches_all && direct_read_works(opened.fd.get(), 4096, size) ? 4096 : 0;
}

bool is_on_local_filesystem(int fd) {
  constexpr std::array<std::uint32_t, 8> local{
      EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,     F2FS_SUPER_MAGIC,
      TMPFS_MAGIC,      RAMFS_MAGIC,     OVERLAYFS_SUPER_MAGIC, 0x2fc12fc1 /* ZFS */};
  struct statfs fs {};
  if (::fstatfs(fd, &fs) != 0) return false;
  const auto type = static_cast<std::uint32_t>(fs.f_type);
  return std::find(local.begin(), local.end(), type) != local.end();
}

void leave_direct(Opened& opened) {
  const int flags = ::fcntl(opened.fd.get(), F_GETFL);
  HAVM_ASSERT(flags >= 0 && ::fcntl(opened.fd.get(), F_SETFL, flags & ~O_DIRECT) == 0,
              "an open file can be switched to the page cache");
  opened.direct = false;
}

}  // namespace

Result<std::unique_ptr<FileDisk>> FileDisk::open(std::shared_ptr<UringLoop> loop,
                                                 const std::string& path,
                                                 const FileDiskOptions& options) {
  BOOST_OUTCOME_TRY(Opened opened, open_image(path, options.direct));
  BOOST_OUTCOME_TRY(lock_image(opened.fd.get(), path));
  BOOST_OUTCOME_TRY(const std::uint64_t size, measure(opened, path));
  if (options.expected_size_bytes && *options.expected_size_bytes != size)
    return Error("disk image " + path + " has " + std::to_string(size) + " bytes, expected are " +
                     std::to_string(*options.expected_size_bytes) +
                     "; both replicas of a disk need the same size",
                 size < *options.expected_size_bytes ? ESTALE : EINVAL);
  auto image = std::make_shared<Image>();
  image->alignment_bytes = 512;
  if (opened.direct) {
    const std::uint32_t alignment = direct_alignment(opened, size);
    if (alignment != 0)
      image->alignment_bytes = alignment;
    else
      leave_direct(opened);
  }
  image->loop = std::move(loop);
  image->path = path;
  image->size_bytes = size;
  image->direct = opened.direct;
  image->block_device = opened.block_device;
  image->fd = std::move(opened.fd);
  struct stat st {};
  image->had_name = ::fstat(image->fd.get(), &st) == 0 && st.st_nlink != 0;
  image->is_local = !opened.block_device && is_on_local_filesystem(image->fd.get());
  return std::unique_ptr<FileDisk>(new FileDisk(std::move(image)));
}

FileDisk::FileDisk(std::shared_ptr<Image> image) : image_(std::move(image)) {}
FileDisk::~FileDisk() = default;

std::uint64_t FileDisk::size_bytes() const {
  return image_->size_bytes;
}
std::uint32_t FileDisk::alignment_bytes() const {
  return image_->alignment_bytes;
}
bool FileDisk::direct() const {
  return image_->direct;
}
const std::string& FileDisk::path() const {
  return image_->path;
}
std::string FileDisk::trouble() const {
  if (!image_->trouble.empty() || image_->flush_error == 0) return image_->trouble;
  return "a flush of disk image " + image_->path +
         " failed: " + std::strerror(image_->flush_error) +
         "; which of its data is lost is not known, so it is not used before the cause is removed "
         "and the engine is started again";
}

void FileDisk::read(std::uint64_t offset, std::span<std::byte> into, Done done) {
  image_->check_range(offset, into.size());
  if (into.empty()) return image_->finish_later(std::move(done), 0);
  auto transfer = std::make_shared<Transfer>();
  transfer->kind = Kind::read;
  transfer->offset = offset;
  transfer->left = into.size();
  transfer->data = into.data();
  transfer->done = std::move(done);
  if (image_->needs_bounce(into.data())) {
    transfer->bounce = Buffer(into.size());
    transfer->data = transfer->bounce.data();
    transfer->read_into = into;
  }
  image_->run(transfer);
}

void FileDisk::write(std::uint64_t offset, std::span<const std::byte> from, bool fua, Done done) {
  image_->check_range(offset, from.size());
  const int stale = image_->check();
  if (from.empty() || stale != 0) return image_->finish_later(std::move(done), stale);
  auto transfer = std::make_shared<Transfer>();
  transfer->kind = fua && flush_reaches_the_medium ? Kind::write_dsync : Kind::write;
  transfer->offset = offset;
  transfer->left = from.size();
  transfer->data = const_cast<std::byte*>(from.data());  // only read from, see UringOperation::data
  transfer->done = std::move(done);
  if (image_->needs_bounce(from.data())) {
    transfer->bounce = Buffer(from.size());
    std::memcpy(transfer->bounce.data(), from.data(), from.size());
    transfer->data = transfer->bounce.data();
  }
  image_->run(transfer);
}

void FileDisk::zero(std::uint64_t offset, std::uint64_t length, bool may_unmap, Done done) {
  image_->check_range(offset, length);
  const int stale = image_->check();
  if (length == 0 || stale != 0) return image_->finish_later(std::move(done), stale);
  image_->zero(offset, length, may_unmap, std::move(done));
}

void FileDisk::flush(Done done) {
  image_->flush(std::move(done));
}

Result<std::vector<Extent>> FileDisk::extents(std::uint64_t offset, std::uint64_t length) {
  HAVM_ASSERT(offset <= image_->size_bytes && length <= image_->size_bytes - offset,
              "extents are asked for on the disk");
  const std::uint64_t end = offset + length;
  std::vector<Extent> extents;
  const auto add_up_to = [&](std::uint64_t to, bool hole) {
    if (to <= offset) return;
    if (!extents.empty() && extents.back().hole == hole)
      extents.back().length += to - offset;
    else
      extents.push_back(Extent{offset, to - offset, hole});
    offset = to;
  };
  if (image_->block_device) add_up_to(end, false);
  // Data is rounded outwards to what a request can address: a hole must be all hole.
  const std::uint32_t grain = image_->alignment_bytes;
  while (offset < end) {
    const off_t data = ::lseek(image_->fd.get(), static_cast<off_t>(offset), SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
      add_up_to(end, true);
      break;
    }
    if (data < 0 && errno != EINVAL && errno != EOPNOTSUPP)
      return errno_error("cannot see the holes of disk image " + image_->path, errno);
    const auto data_begin = data < 0 ? offset : static_cast<std::uint64_t>(data);
    add_up_to(std::min(end, std::max(offset, round_down(data_begin, grain))), true);
    const off_t hole =
        ::lseek(image_->fd.get(), static_cast<off_t>(std::max(offset, data_begin)), SEEK_HOLE);
    // No answer means data: that is always true enough.
    const std::uint64_t data_end = hole < 0 ? end : static_cast<std::uint64_t>(hole);
    add_up_to(std::min(end, round_up(std::max(data_end, offset + 1), grain)), false);
  }
  return extents;
}

}  // namespace havm
