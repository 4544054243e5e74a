#include "vmrepl/disk/nbd_disk.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <fcntl.h>
#include <libnbd.h>
#include <poll.h>
#include <spdlog/spdlog.h>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/buffer.hpp"
#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

using Descriptor = boost::asio::posix::stream_descriptor;
using Done = ReplicaDisk::Done;
using Handle = std::unique_ptr<nbd_handle, decltype(&nbd_close)>;

constexpr std::uint64_t zero_request_bytes_max = std::uint64_t{1} << 30;

std::string last_error() {
  const char* text = nbd_get_error();
  return text == nullptr ? "unknown error" : text;
}

// What an answer means to the replica. That the server or the connection is going away is a disk
// that does not work, whatever NBD calls it.
int disk_error(int nbd_error) {
  if (nbd_error == ENOTCONN || nbd_error == ESHUTDOWN) return EIO;
  return nbd_error;
}

}  // namespace

// The connection, shared with what is in flight on it.
class NbdDisk::Link : public std::enable_shared_from_this<NbdDisk::Link> {
 public:
  Link(const boost::asio::any_io_executor& executor, std::string uri)
      : executor_(executor),
        uri_(std::move(uri)),
        handle_(nbd_create(), &nbd_close),
        socket_(executor) {}

  Result<void> connect(std::chrono::milliseconds time_max);
  Result<void> examine(const NbdDiskOptions& options);
  Result<void> watch();

  void read(std::uint64_t offset, std::span<std::byte> into, Done done);
  void write(std::uint64_t offset, std::span<const std::byte> from, bool fua, Done done);
  void zero(std::uint64_t offset, std::uint64_t length, bool may_unmap, Done done);
  void flush(Done done);
  // Nobody will start anything any more.
  void leave();

  std::uint64_t size_bytes = 0;
  std::uint32_t alignment_bytes = 512;

 private:
  // One request of a caller, sent as one or more commands.
  struct Request {
    std::size_t commands_left = 0;
    int error = 0;
    bool makes_durable = false;
    Done done;
  };
  using RequestPtr = std::shared_ptr<Request>;
  // What libnbd keeps for one command.
  struct Command {
    Link* link;  // outlives it: see watch_directions()
    RequestPtr request;
  };

  void check_range(std::uint64_t offset, std::uint64_t length) const;
  // Calls issue(at, bytes, completion) for each piece of the range.
  template <class Issue>
  void send_pieces(const RequestPtr& request, std::uint64_t length, std::uint64_t piece_max,
                   const Issue& issue);
  nbd_completion_callback completion(const RequestPtr& request);
  void command_ended(const RequestPtr& request, int error);
  void finish_later(Done done, int error);
  void finish_ended();
  void watch_directions();
  void readable();
  void writable();
  void close();
  Error failure(const std::string& what, int code) const {
    return Error("NBD disk " + uri_ + ": " + what, code);
  }

  boost::asio::any_io_executor executor_;
  std::string uri_;
  Handle handle_;
  Descriptor socket_;  // a duplicate: libnbd closes its own when the connection is lost
  bool waits_read_ = false;
  bool waits_write_ = false;
  bool left_ = false;
  bool can_fua_ = false;
  bool can_zero_ = false;
  int flush_error_ = 0;  // sticky: guarantee 3 of ReplicaDisk
  std::size_t requests_ = 0;
  std::vector<RequestPtr> ended_;
  bool finishing_ = false;
  Buffer zeroes_;
};

// ---- connecting ------------------------------------------------------------------------------

Result<void> NbdDisk::Link::connect(std::chrono::milliseconds time_max) {
  nbd_handle* h = handle_.get();
  if (h == nullptr) return failure("no NBD handle: " + last_error(), ENOMEM);
  const bool set = nbd_set_uri_allow_transports(h, LIBNBD_ALLOW_TRANSPORT_UNIX) == 0 &&
                   nbd_set_uri_allow_tls(h, LIBNBD_TLS_DISABLE) == 0 &&
                   nbd_set_pread_initialize(h, false) == 0;
  if (!set) return failure(last_error(), EINVAL);
  const auto cannot = [&] {
    const int code = nbd_get_errno();
    return failure("cannot connect: " + last_error() + "; is its server running?",
                   code == 0 ? EIO : code);
  };
  if (nbd_aio_connect_uri(h, uri_.c_str()) != 0) return cannot();
  const TimePoint deadline = BootClock::now() + time_max;
  while (nbd_aio_is_ready(h) != 1) {
    const auto left = to_ms(deadline - BootClock::now());
    if (left <= 0) return failure("the server does not answer; look what it waits for", ETIMEDOUT);
    if (nbd_poll(h, static_cast<int>(left)) < 0) return cannot();
    if (nbd_aio_is_dead(h) == 1 || nbd_aio_is_closed(h) == 1)
      return failure("the server ended the connection; is the export's name right?", EIO);
  }
  return success();
}

Result<void> NbdDisk::Link::examine(const NbdDiskOptions& options) {
  nbd_handle* h = handle_.get();
  const std::int64_t size = nbd_get_size(h);
  if (size <= 0) return failure("the export is empty", EINVAL);
  size_bytes = static_cast<std::uint64_t>(size);
  if (options.expected_size_bytes && *options.expected_size_bytes != size_bytes)
    return failure("it has " + std::to_string(size_bytes) + " bytes, expected are " +
                       std::to_string(*options.expected_size_bytes) +
                       "; both replicas of a disk need the same size",
                   EINVAL);
  const std::int64_t block = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);
  if (block > 4096)
    return failure("its blocks of " + std::to_string(block) + " bytes are larger than 4096",
                   EINVAL);
  alignment_bytes = block > 512 ? 4096 : 512;
  if (size_bytes % alignment_bytes != 0)
    return failure("its size of " + std::to_string(size_bytes) + " bytes is not a multiple of " +
                       std::to_string(alignment_bytes),
                   EINVAL);
  if (nbd_is_read_only(h) != 0) return failure("the export is read-only", EROFS);
  if (nbd_can_flush(h) != 1)
    return failure("the server offers no flush, so nothing could be known to be durable on it",
                   EINVAL);
  can_fua_ = nbd_can_fua(h) == 1;
  can_zero_ = nbd_can_zero(h) == 1;
  return success();
}

Result<void> NbdDisk::Link::watch() {
  UniqueFd duplicate(::fcntl(nbd_aio_get_fd(handle_.get()), F_DUPFD_CLOEXEC, 0));
  if (!duplicate.valid()) return failure(std::strerror(errno), errno);
  boost::system::error_code error;
  socket_.assign(duplicate.get(), error);
  if (error) return failure(error.message(), error.value());
  (void)duplicate.release();
  watch_directions();
  return success();
}

// ---- the socket ------------------------------------------------------------------------------

// While the connection lives one of these waits is always set, and each keeps this object: so it
// outlives every command.
void NbdDisk::Link::watch_directions() {
  if (!socket_.is_open()) return;
  if (nbd_aio_is_dead(handle_.get()) == 1 || nbd_aio_is_closed(handle_.get()) == 1) {
    if (!left_)
      spdlog::error("NBD disk {}: the connection is lost; every operation on it fails from now on",
                    uri_);
    close();
    return;
  }
  const unsigned directions = nbd_aio_get_direction(handle_.get());
  if ((directions & LIBNBD_AIO_DIRECTION_READ) != 0 && !waits_read_) {
    waits_read_ = true;
    socket_.async_wait(Descriptor::wait_read,
                       [self = shared_from_this()](const boost::system::error_code& error) {
                         self->waits_read_ = false;
                         if (!error) self->readable();
                       });
  }
  if ((directions & LIBNBD_AIO_DIRECTION_WRITE) != 0 && !waits_write_) {
    waits_write_ = true;
    socket_.async_wait(Descriptor::wait_write,
                       [self = shared_from_this()](const boost::system::error_code& error) {
                         self->waits_write_ = false;
                         if (!error) self->writable();
                       });
  }
}

// What the state of the connection asks for may have changed since the wait was set. An error of a
// step leaves the connection dead, which watch_directions() sees.
void NbdDisk::Link::readable() {
  nbd_handle* h = handle_.get();
  // A wake-up may be stale, and libnbd must not hear of it: in the middle of sending it would wait
  // for a reply and send no more, for good, if the server is waiting for the rest.
  pollfd socket{socket_.is_open() ? socket_.native_handle() : -1, POLLIN, 0};
  const bool really = socket.fd >= 0 && ::poll(&socket, 1, 0) == 1;
  if (really && (nbd_aio_get_direction(h) & LIBNBD_AIO_DIRECTION_READ) != 0)
    (void)nbd_aio_notify_read(h);
  watch_directions();
}

void NbdDisk::Link::writable() {
  nbd_handle* h = handle_.get();
  if (socket_.is_open() && (nbd_aio_get_direction(h) & LIBNBD_AIO_DIRECTION_WRITE) != 0)
    (void)nbd_aio_notify_write(h);
  watch_directions();
}

void NbdDisk::Link::close() {
  boost::system::error_code ignored;
  socket_.close(ignored);
}

void NbdDisk::Link::leave() {
  left_ = true;
  if (requests_ > 0 || !socket_.is_open()) return;
  (void)nbd_aio_disconnect(handle_.get(), 0);  // a farewell, when the socket takes it at once
  close();
}

// ---- commands --------------------------------------------------------------------------------

nbd_completion_callback NbdDisk::Link::completion(const RequestPtr& request) {
  nbd_completion_callback callback;
  callback.user_data = new Command{this, request};
  // Called from inside libnbd, which must not be entered again from here.
  callback.callback = [](void* data, int* error) {
    const auto* command = static_cast<const Command*>(data);
    command->link->command_ended(command->request, *error);
    return 1;  // libnbd may forget the command
  };
  callback.free = [](void* data) { delete static_cast<Command*>(data); };
  return callback;
}

void NbdDisk::Link::command_ended(const RequestPtr& request, int error) {
  if (error != 0 && request->error == 0) request->error = disk_error(error);
  if (--request->commands_left > 0) return;
  ended_.push_back(request);
  if (std::exchange(finishing_, true)) return;
  boost::asio::post(executor_, [self = shared_from_this()] { self->finish_ended(); });
}

void NbdDisk::Link::finish_ended() {
  finishing_ = false;
  for (const RequestPtr& request : std::exchange(ended_, {})) {
    --requests_;
    if (request->makes_durable && request->error != 0 && flush_error_ == 0)
      flush_error_ = request->error;
    request->done(request->error);
  }
  if (left_) leave();
}

void NbdDisk::Link::finish_later(Done done, int error) {
  boost::asio::post(executor_, [done = std::move(done), error] { done(error); });
}

template <class Issue>
void NbdDisk::Link::send_pieces(const RequestPtr& request, std::uint64_t length,
                                std::uint64_t piece_max, const Issue& issue) {
  ++requests_;
  request->commands_left = 1;  // so that it cannot end before all are sent
  for (std::uint64_t at = 0; at < length; at += piece_max) {
    ++request->commands_left;
    // A command that could not even be queued has no completion.
    if (issue(at, std::min(piece_max, length - at), completion(request)) < 0)
      command_ended(request, EIO);
  }
  command_ended(request, 0);
  watch_directions();
}

void NbdDisk::Link::check_range(std::uint64_t offset, std::uint64_t length) const {
  HAVM_ASSERT(offset <= size_bytes && length <= size_bytes - offset,
              "disk requests must lie on the disk");
  HAVM_ASSERT(offset % alignment_bytes == 0 && length % alignment_bytes == 0,
              "disk requests must be aligned");
}

void NbdDisk::Link::read(std::uint64_t offset, std::span<std::byte> into, Done done) {
  check_range(offset, into.size());
  if (into.empty()) return finish_later(std::move(done), 0);
  const auto request = std::make_shared<Request>();
  request->done = std::move(done);
  send_pieces(request, into.size(), transfer_bytes_max,
              [&](std::uint64_t at, std::uint64_t bytes, nbd_completion_callback ended) {
                return nbd_aio_pread(handle_.get(), into.data() + at, bytes, offset + at, ended, 0);
              });
}

void NbdDisk::Link::write(std::uint64_t offset, std::span<const std::byte> from, bool fua,
                          Done done) {
  check_range(offset, from.size());
  if (from.empty()) return finish_later(std::move(done), 0);
  const auto request = std::make_shared<Request>();
  request->makes_durable = fua && can_fua_;
  request->done = std::move(done);
  if (fua && !can_fua_)
    request->done = [this, written = std::move(request->done)](int error) {
      if (error != 0) return written(error);
      flush(written);
    };
  const std::uint32_t flags = request->makes_durable ? LIBNBD_CMD_FLAG_FUA : 0;
  send_pieces(request, from.size(), transfer_bytes_max,
              [&](std::uint64_t at, std::uint64_t bytes, nbd_completion_callback ended) {
                return nbd_aio_pwrite(handle_.get(), from.data() + at, bytes, offset + at, ended,
                                      flags);
              });
}

void NbdDisk::Link::zero(std::uint64_t offset, std::uint64_t length, bool may_unmap, Done done) {
  check_range(offset, length);
  if (length == 0) return finish_later(std::move(done), 0);
  const auto request = std::make_shared<Request>();
  request->done = std::move(done);
  if (can_zero_)
    return send_pieces(request, length, zero_request_bytes_max,
                       [&](std::uint64_t at, std::uint64_t bytes, nbd_completion_callback ended) {
                         return nbd_aio_zero(handle_.get(), bytes, offset + at, ended,
                                             may_unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
                       });
  if (zeroes_.empty()) {
    zeroes_ = Buffer(transfer_bytes_max);
    std::memset(zeroes_.data(), 0, zeroes_.size());
  }
  send_pieces(request, length, transfer_bytes_max,
              [&](std::uint64_t at, std::uint64_t bytes, nbd_completion_callback ended) {
                return nbd_aio_pwrite(handle_.get(), zeroes_.data(), bytes, offset + at, ended, 0);
              });
}

void NbdDisk::Link::flush(Done done) {
  if (flush_error_ != 0) return finish_later(std::move(done), flush_error_);
  const auto request = std::make_shared<Request>();
  request->makes_durable = true;
  // One that failed meanwhile may have taken with it what this one was to make durable.
  request->done = [this, done = std::move(done)](int) { done(flush_error_); };
  send_pieces(request, 1, 1, [&](std::uint64_t, std::uint64_t, nbd_completion_callback ended) {
    return nbd_aio_flush(handle_.get(), ended, 0);
  });
}

// ---- the disk --------------------------------------------------------------------------------

bool NbdDisk::is_uri(std::string_view path) {
  return path.starts_with("nbd+unix://");
}

Result<std::unique_ptr<NbdDisk>> NbdDisk::open(const boost::asio::any_io_executor& executor,
                                               const std::string& uri,
                                               const NbdDiskOptions& options) {
  auto link = std::make_shared<Link>(executor, uri);
  BOOST_OUTCOME_TRY(link->connect(options.connect_time_max));
  BOOST_OUTCOME_TRY(link->examine(options));
  BOOST_OUTCOME_TRY(link->watch());
  return std::unique_ptr<NbdDisk>(new NbdDisk(std::move(link)));
}

NbdDisk::NbdDisk(std::shared_ptr<Link> link) : link_(std::move(link)) {}
NbdDisk::~NbdDisk() {
  link_->leave();
}

std::uint64_t NbdDisk::size_bytes() const {
  return link_->size_bytes;
}
std::uint32_t NbdDisk::alignment_bytes() const {
  return link_->alignment_bytes;
}
void NbdDisk::read(std::uint64_t offset, std::span<std::byte> into, Done done) {
  link_->read(offset, into, std::move(done));
}
void NbdDisk::write(std::uint64_t offset, std::span<const std::byte> from, bool fua, Done done) {
  link_->write(offset, from, fua, std::move(done));
}
void NbdDisk::zero(std::uint64_t offset, std::uint64_t length, bool may_unmap, Done done) {
  link_->zero(offset, length, may_unmap, std::move(done));
}
void NbdDisk::flush(Done done) {
  link_->flush(std::move(done));
}

Result<std::vector<Extent>> NbdDisk::extents(std::uint64_t offset, std::uint64_t length) {
  HAVM_ASSERT(offset <= size_bytes() && length <= size_bytes() - offset,
              "extents are asked for on the disk");
  std::vector<Extent> extents;
  if (length > 0) extents.push_back(Extent{offset, length, false});
  return extents;
}

}  // namespace havm
