#include "vmrepl/session/frame_connection.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <sstream>
#include <utility>

#include <boost/asio/post.hpp>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

iovec io_part(const std::byte* data, std::size_t size) {
  // iovec is one type for both directions; sendmsg only reads.
  return {const_cast<std::byte*>(data), size};
}

}  // namespace

FrameConnection::FrameConnection(std::unique_ptr<ByteStream> stream,
                                 std::chrono::milliseconds silence_max)
    : stream_(std::move(stream)),
      area_(receive_area_bytes),
      last_heard_(BootClock::now()),
      linger_(stream_->socket().get_executor()) {
  Socket& socket = stream_->socket();
  boost::system::error_code ignored;
  socket.non_blocking(true, ignored);
  socket.set_option(boost::asio::ip::tcp::no_delay(true), ignored);
  const auto timeout = static_cast<unsigned>(silence_max.count());
  (void)::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout,
                     sizeof timeout);
  const auto remote = socket.remote_endpoint(ignored);
  std::ostringstream text;
  text << remote;
  peer_ = text.str();
}

void FrameConnection::start(Handlers handlers) {
  handlers_ = std::move(handlers);
  wait_readable();
}

// ---- sending ---------------------------------------------------------------------------------

std::uint64_t FrameConnection::send(const FrameHeader& header, std::span<const std::byte> payload) {
  const std::uint64_t number = first_queued_ + items_.size();
  Item item;
  item.header = encode_header(header, payload);
  item.payload = payload;
  queue(std::move(item));
  return number;
}

void FrameConnection::send_text(const FrameHeader& header, const std::string& payload) {
  Item item;
  const auto bytes = std::as_bytes(std::span(payload.data(), payload.size()));
  item.own.assign(bytes.begin(), bytes.end());
  item.header = encode_header(header, item.own);
  item.payload = item.own;  // a vector's bytes stay where they are when it is moved
  queue(std::move(item));
}

void FrameConnection::queue(Item item) {
  if (!open_ || draining_) return;
  queued_bytes_ += item.header.size() + item.payload.size();
  items_.push_back(std::move(item));
  if (queued_bytes_ > queued_bytes_max) {
    fail("the partner does not read: too much waits to be sent");
    return;
  }
  schedule_send();
}

void FrameConnection::send_urgent(const FrameHeader& header) {
  if (!open_ || draining_) return;
  urgent_.push_back(encode_header(header));
  schedule_send();
}

void FrameConnection::detach(std::uint64_t number) {
  if (is_sent(number) || number - first_queued_ >= items_.size()) return;
  Item& item = items_[number - first_queued_];
  item.own.assign(item.payload.begin(), item.payload.end());
  item.payload = item.own;
}

// All frames of one turn of the executor leave in one system call.
void FrameConnection::schedule_send() {
  if (send_scheduled_ || wait_write_pending_) return;
  send_scheduled_ = true;
  boost::asio::post(stream_->socket().get_executor(), [self = shared_from_this()] {
    self->send_scheduled_ = false;
    self->send_now();
  });
}

void FrameConnection::send_now() {
  while (open_ && (!items_.empty() || !urgent_.empty() || stream_->has_unsent())) {
    if (send_some()) continue;
    if (!open_ || wait_write_pending_) return;
    wait_write_pending_ = true;
    stream_->socket().async_wait(Socket::wait_write,
                                 [self = shared_from_this()](const boost::system::error_code& e) {
                                   self->wait_write_pending_ = false;
                                   if (!e) self->send_now();
                                 });
    return;
  }
}

// False when the socket takes no more, or has failed.
bool FrameConnection::send_some() {
  std::array<iovec, 3 * frames_per_send> parts;
  std::size_t count = 0;
  // A frame that was begun goes first, then the urgent ones, then the others.
  std::size_t next = 0;
  const auto add_item = [&](const Item& item, std::size_t skip) {
    const std::size_t head = std::min(skip, item.header.size());
    if (head < item.header.size())
      parts[count++] = io_part(item.header.data() + head, item.header.size() - head);
    if (skip - head < item.payload.size())
      parts[count++] =
          io_part(item.payload.data() + (skip - head), item.payload.size() - (skip - head));
  };
  const bool begun = front_sent_ > 0;
  if (begun) add_item(items_[next++], front_sent_);
  std::size_t urgent_left = begun ? 0 : urgent_.size();
  for (std::size_t i = 0; urgent_left > 0 && i < urgent_.size() && count < frames_per_send; ++i) {
    const std::size_t skip = i == 0 ? urgent_sent_ : 0;
    parts[count++] = io_part(urgent_[i].data() + skip, urgent_[i].size() - skip);
  }
  if (!begun && urgent_.empty())
    while (next < items_.size() && count < frames_per_send)
      add_item(items_[next++], 0);

  const StreamStep step = stream_->write(std::span(parts.data(), count));
  if (step.kind == StreamStep::Kind::blocked) return false;
  if (step.kind != StreamStep::Kind::moved) {
    fail(step.why);
    return false;
  }
  sent(step.bytes);
  return true;
}

void FrameConnection::sent(std::size_t bytes) {
  if (front_sent_ == 0) {
    while (bytes > 0 && !urgent_.empty()) {
      const std::size_t part = std::min(bytes, urgent_.front().size() - urgent_sent_);
      urgent_sent_ += part;
      bytes -= part;
      if (urgent_sent_ < urgent_.front().size()) return;
      urgent_.pop_front();
      urgent_sent_ = 0;
    }
  }
  while (bytes > 0) {
    const std::size_t whole = items_.front().header.size() + items_.front().payload.size();
    const std::size_t part = std::min(bytes, whole - front_sent_);
    front_sent_ += part;
    bytes -= part;
    queued_bytes_ -= part;
    if (front_sent_ < whole) return;
    items_.pop_front();
    ++first_queued_;
    front_sent_ = 0;
  }
}

// ---- receiving -------------------------------------------------------------------------------

void FrameConnection::wait_readable() {
  if (!open_ || paused_ || wait_read_pending_) return;
  wait_read_pending_ = true;
  // What the stream has already taken from the socket makes the socket readable no more.
  if (stream_->has_unread()) {
    boost::asio::post(stream_->socket().get_executor(), [self = shared_from_this()] {
      self->wait_read_pending_ = false;
      self->receive();
    });
    return;
  }
  stream_->socket().async_wait(Socket::wait_read,
                               [self = shared_from_this()](const boost::system::error_code& e) {
                                 self->wait_read_pending_ = false;
                                 if (!e) self->receive();
                               });
}

void FrameConnection::pause_receiving(bool paused) {
  paused_ = paused;
  if (!paused_) wait_readable();
}

void FrameConnection::receive() {
  const auto self = shared_from_this();
  for (int i = 0; i < receives_per_turn && open_ && !paused_; ++i) {
    if (area_begin_ == area_end_) area_begin_ = area_end_ = 0;
    std::array<iovec, 2> parts;
    std::size_t count = 0;
    const std::size_t payload_left = have_header_ ? payload_.size() - payload_got_ : 0;
    if (payload_left > 0) parts[count++] = {payload_.data() + payload_got_, payload_left};
    if (area_end_ < area_.size())
      parts[count++] = {area_.data() + area_end_, area_.size() - area_end_};
    const StreamStep step = stream_->read(std::span(parts.data(), count));
    if (step.kind == StreamStep::Kind::blocked) break;
    if (step.kind != StreamStep::Kind::moved) {
      fail(step.why);
      return;
    }
    last_heard_ = BootClock::now();
    if (draining_) continue;
    const std::size_t into_payload = std::min(payload_left, step.bytes);
    payload_got_ += into_payload;
    area_end_ += step.bytes - into_payload;
    if (!parse()) return;
  }
  // Reading may have made TLS answer.
  if (open_ && !draining_ && stream_->has_unsent()) schedule_send();
  wait_readable();
}

// False when the connection has ended.
bool FrameConnection::parse() {
  while (open_ && !draining_) {
    if (have_header_) {
      if (!take_payload()) return open_;
      continue;
    }
    if (area_end_ - area_begin_ < frame_header_bytes) break;
    const auto decoded =
        decode_header(std::span(area_).subspan(area_begin_, area_end_ - area_begin_));
    if (const auto* fault = std::get_if<FrameFault>(&decoded)) {
      const std::string hint = *fault == FrameFault::wrong_magic ? tls_hint() : "";
      fail(std::string("a frame is unusable: ") + to_text(*fault) + hint);
      return false;
    }
    area_begin_ += frame_header_bytes;
    header_ = std::get<FrameHeader>(decoded);
    if (!handlers_.admit(header_)) {
      fail(std::string("an unexpected ") + to_text(header_.type) + " frame came");
      return false;
    }
    have_header_ = true;
    payload_got_ = 0;
    payload_ = header_.payload_length > 0 ? Buffer(header_.payload_length) : Buffer();
  }
  if (!open_) return false;
  if (area_begin_ > 0 && area_.size() - area_begin_ < area_.size() / 2) {
    std::memmove(area_.data(), area_.data() + area_begin_, area_end_ - area_begin_);
    area_end_ -= area_begin_;
    area_begin_ = 0;
  }
  return true;
}

// What to say behind a wrong magic when a handshake of TLS lies where a frame should.
std::string FrameConnection::tls_hint() const {
  constexpr std::byte handshake_record{22};
  if (area_[area_begin_] != handshake_record) return "";
  return "; what came looks like TLS: is the other side set to TLS and this one to plain TCP?";
}

// True when a whole frame was handed on.
bool FrameConnection::take_payload() {
  const std::size_t missing = payload_.size() - payload_got_;
  const std::size_t here = std::min(missing, area_end_ - area_begin_);
  if (here > 0) std::memcpy(payload_.data() + payload_got_, area_.data() + area_begin_, here);
  payload_got_ += here;
  area_begin_ += here;
  if (area_begin_ == area_end_) area_begin_ = area_end_ = 0;
  if (payload_got_ < payload_.size()) return false;
  have_header_ = false;
  if (!check_payload(header_, std::as_const(payload_).span())) {
    fail(std::string("a frame is unusable: ") + to_text(FrameFault::wrong_payload_crc));
    return false;
  }
  handlers_.on_frame(header_, std::move(payload_));
  payload_ = Buffer();
  return open_;
}

// ---- the end ---------------------------------------------------------------------------------

void FrameConnection::close() {
  silent_ = true;
  shut();
}

void FrameConnection::shut() {
  if (!open_) return;
  open_ = false;
  stream_->close();
  linger_.cancel();
  items_.clear();
  urgent_.clear();
  // The handlers may be what is running now, and may own this object: let go of them later.
  boost::asio::post(stream_->socket().get_executor(),
                    [self = shared_from_this()] { self->handlers_ = {}; });
}

void FrameConnection::fail(const std::string& reason) {
  if (!open_) return;
  const auto handler = draining_ ? nullptr : handlers_.on_closed;
  shut();
  if (!handler) return;
  boost::asio::post(stream_->socket().get_executor(), [self = shared_from_this(), handler, reason] {
    if (!self->silent_) handler(reason);
  });
}

void FrameConnection::finish() {
  if (!open_) silent_ = true;  // guarantee 2: it failed, and on_closed has not been called yet
  if (!open_ || draining_) return;
  while (open_ && (!items_.empty() || !urgent_.empty()) && send_some()) {
  }
  if (!open_) return;
  drain_and_close();
}

// Closing with unread bytes would reset the connection and take from the other side what was just
// sent: read on, for a short while, into the void.
void FrameConnection::drain_and_close() {
  draining_ = true;
  items_.clear();
  urgent_.clear();
  front_sent_ = urgent_sent_ = 0;
  have_header_ = false;
  payload_ = Buffer();
  area_begin_ = area_end_ = 0;
  stream_->end_sending();
  linger_.expires_after(std::chrono::seconds(1));
  linger_.async_wait([self = shared_from_this()](const boost::system::error_code& e) {
    if (!e) self->close();
  });
  paused_ = false;
  wait_readable();
}

}  // namespace havm
