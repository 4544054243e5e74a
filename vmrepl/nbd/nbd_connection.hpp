// The job of NbdConnection: one client on one socket, from the greeting to the close: bytes to
// requests, requests to the BlockService, completions to replies. Decisions are in the cores; this
// is the mover.
//
// Invariants
//  1. At most nbd_in_flight_requests_max requests and nbd_in_flight_bytes_max bytes of payload are
//     between "header read" and "reply sent". Beyond that the socket is not read (the client
//     waits), but the client's end is still noticed.
//  2. A payload is received into the Buffer that the service gets, and sent from the Buffer that
//     the service filled. Only what came in the same receive as a header (receive_window_bytes at
//     most) is copied.
//  3. One receive and one send are under way at a time; replies that come up meanwhile leave
//     together.
//  4. After close() nothing is called: not the service, not the owner. A late `done` is ignored.
// Lives as long as the owner or an operation under way holds it. One thread.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>

#include "vmrepl/nbd/block_service.hpp"
#include "vmrepl/nbd/nbd_handshake_core.hpp"
#include "vmrepl/nbd/nbd_reply_codec.hpp"
#include "vmrepl/nbd/nbd_request_core.hpp"

namespace havm {

inline constexpr std::size_t nbd_in_flight_requests_max = 128;
inline constexpr std::size_t nbd_in_flight_bytes_max = 2 * std::size_t{nbd_payload_bytes_max};

class NbdConnection final : public std::enable_shared_from_this<NbdConnection> {
 public:
  using Socket = boost::asio::basic_stream_socket<boost::asio::local::stream_protocol,
                                                  boost::asio::io_context::executor_type>;
  class Owner {
   public:
    virtual void client_ready() = 0;
    // The connection closed by itself; it is not called for close().
    virtual void connection_closed(NbdConnection& connection) = 0;

   protected:
    ~Owner() = default;
  };

  NbdConnection(Socket socket, BlockService& service, NbdExport served, std::string label,
                Owner& owner);

  void start(std::chrono::milliseconds handshake_timeout);
  void close();
  // The handshake is over: it may send requests.
  [[nodiscard]] bool is_client() const { return agreement_.has_value(); }

 private:
  using ErrorCode = boost::system::error_code;

  // A request whose payload is being received.
  struct Incoming {
    NbdRequest request;
    NbdVerdict verdict;
    Buffer payload;
    std::size_t received = 0;
  };
  struct Outgoing {
    NbdReply reply;
    Buffer payload;
    std::size_t charged_bytes = 0;
    bool ends_request = false;

    [[nodiscard]] std::size_t size() const;
  };

  void receive();
  void received(const ErrorCode& error, std::size_t count);
  void process();
  bool process_handshake();
  bool process_request();
  void fill_payload();
  void execute(Incoming incoming);
  void refuse(const Incoming& incoming);
  void submit(BlockOp op, Incoming incoming);
  void completed(std::unique_ptr<BlockRequest> request, int error, std::uint64_t cookie);
  void answer(const NbdRequest& request, NbdReply reply);
  void answer_block_status(const Incoming& incoming);
  void send();
  void sent(const ErrorCode& error, std::size_t count);
  void close_when_drained();
  void watch_hangup();
  void end_with(std::string_view reason, bool violation);
  [[nodiscard]] bool has_room_for(std::size_t bytes) const;
  [[nodiscard]] std::size_t inbox_size() const { return inbox_end_ - inbox_begin_; }
  [[nodiscard]] std::span<const std::byte> inbox() const;

  Socket socket_;
  boost::asio::steady_timer handshake_timer_;
  BlockService& service_;
  const NbdExport export_;
  const std::string label_;
  Owner* owner_;  // null after close()

  NbdHandshakeCore handshake_;
  std::optional<NbdAgreement> agreement_;

  std::vector<std::byte> inbox_;  // received, not yet understood: [inbox_begin_, inbox_end_)
  std::size_t inbox_begin_ = 0;
  std::size_t inbox_end_ = 0;
  std::size_t inbox_wanted_;
  std::optional<Incoming> incoming_;

  std::deque<Outgoing> outbox_;  // bounded by invariant 1 and by the limits of the handshake
  std::size_t front_sent_ = 0;   // bytes of outbox_.front() that were sent
  std::vector<boost::asio::const_buffer> pieces_;

  std::size_t in_flight_requests_ = 0;
  std::size_t in_flight_bytes_ = 0;

  std::uint32_t refusals_ = 0;

  bool closed_ = false;
  bool receiving_ = false;
  bool sending_ = false;
  bool corked_ = false;    // replies are collected, not sent
  bool paused_ = false;    // no room for the next request
  bool draining_ = false;  // close when everything is answered
  bool watching_hangup_ = false;
  boost::asio::cancellation_signal stop_watching_hangup_;
};

}  // namespace havm
