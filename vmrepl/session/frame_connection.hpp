// The job of FrameConnection: carry frames over one ByteStream (TCP or TLS), many per system call,
// payloads received straight into their Buffer.
//
// Guarantees
//  1. on_frame sees only frames whose header and payload CRC are right, in the order they came,
//  never
//     from inside a call of this object. A damaged or impossible frame ends the connection.
//  2. on_closed is called at most once, from a later turn of the executor, and not after close() or
//     finish(): after it, and after those two, no handler is called any more.
//  3. Frames are sent in order of send(); urgent ones (leases, keepalive) overtake those not begun.
//  4. At most queued_bytes_max wait to be sent; beyond that the connection ends (the callers' own
//     limits lie far below, so this is a partner that does not read).
// A payload given to send() must stay valid and unchanged until is_sent() or the end of the
// connection; detach() frees the caller of that. One thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <boost/asio/steady_timer.hpp>

#include "vmrepl/base/buffer.hpp"
#include "vmrepl/base/clock.hpp"
#include "vmrepl/transport/byte_stream.hpp"
#include "vmrepl/wire/frame_codec.hpp"

namespace havm {

class FrameConnection : public std::enable_shared_from_this<FrameConnection> {
 public:
  static constexpr std::uint64_t queued_bytes_max = 1ULL << 30;
  static constexpr std::size_t receive_area_bytes = 128U << 10;
  static constexpr int frames_per_send = 32;
  static constexpr int receives_per_turn = 16;

  struct Handlers {
    // Called before the payload is received: false ends the connection.
    std::function<bool(const FrameHeader& header)> admit;
    std::function<void(const FrameHeader& header, Buffer payload)> on_frame;
    std::function<void(const std::string& reason)> on_closed;
  };
  using Socket = ByteStream::Socket;

  // A stream that is ready for data. Sets TCP_NODELAY and TCP_USER_TIMEOUT.
  FrameConnection(std::unique_ptr<ByteStream> stream, std::chrono::milliseconds silence_max);

  void start(Handlers handlers);
  // The number of this frame among all sent here.
  std::uint64_t send(const FrameHeader& header, std::span<const std::byte> payload);
  // As send, with a payload kept here.
  void send_text(const FrameHeader& header, const std::string& payload);
  void send_urgent(const FrameHeader& header);
  [[nodiscard]] bool is_sent(std::uint64_t number) const { return number < first_queued_; }
  void detach(std::uint64_t number);

  void close();
  // Sends what is queued as far as the socket takes it at once, then closes so that the other side
  // can still read it.
  void finish();
  [[nodiscard]] bool is_open() const { return open_; }

  // While paused nothing is received (the kernel's buffers fill up and slow the sender down).
  void pause_receiving(bool paused);

  // When bytes last came in.
  [[nodiscard]] TimePoint last_heard() const { return last_heard_; }
  [[nodiscard]] const std::string& peer() const { return peer_; }

 private:
  struct Item {
    FrameHeaderBytes header;
    std::span<const std::byte> payload;
    std::vector<std::byte> own;
  };

  void queue(Item item);
  void schedule_send();
  void send_now();
  bool send_some();
  void sent(std::size_t bytes);
  void wait_readable();
  void receive();
  [[nodiscard]] std::string tls_hint() const;
  bool parse();
  bool take_payload();
  void fail(const std::string& reason);
  void shut();
  void drain_and_close();

  std::unique_ptr<ByteStream> stream_;
  Handlers handlers_;
  std::string peer_;
  bool open_ = true;
  bool draining_ = false;
  bool silent_ = false;  // the owner of this object is not to be called any more
  bool paused_ = false;
  bool wait_read_pending_ = false;
  bool send_scheduled_ = false;
  bool wait_write_pending_ = false;

  std::deque<Item> items_;
  std::uint64_t first_queued_ = 0;  // number of items_.front()
  std::uint64_t queued_bytes_ = 0;
  std::size_t front_sent_ = 0;  // bytes of items_.front() already sent
  std::deque<FrameHeaderBytes> urgent_;
  std::size_t urgent_sent_ = 0;  // bytes of urgent_.front() already sent

  std::vector<std::byte> area_;
  std::size_t area_begin_ = 0;
  std::size_t area_end_ = 0;
  bool have_header_ = false;
  FrameHeader header_;
  Buffer payload_;
  std::size_t payload_got_ = 0;
  TimePoint last_heard_;
  boost::asio::steady_timer linger_;
};

}  // namespace havm
