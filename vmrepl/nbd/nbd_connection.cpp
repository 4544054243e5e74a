#include "vmrepl/nbd/nbd_connection.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/error.hpp>
#include <spdlog/spdlog.h>

#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;

// One receive takes this much beside a payload: several small requests at once, yet little of a
// payload that has to be copied.
constexpr std::size_t receive_window_bytes = 16 * nbd_request_bytes;
// Shorter data is cheaper to send than to look at.
constexpr std::size_t hole_bytes_min = 4096;
// Pieces of one send; Asio passes on no more than 64 to the kernel.
constexpr std::size_t pieces_max = 64;
// A client that does nothing but wrong fills no log.
constexpr std::uint32_t refusals_logged_max = 10;

bool reads_as_zeroes(const Buffer& data) {
  return data.size() >= hole_bytes_min && data.data()[0] == std::byte{0} &&
         std::memcmp(data.data(), data.data() + 1, data.size() - 1) == 0;
}

std::size_t charge_of(const NbdRequest& request) {
  const bool moves_data = request.command == nbd_cmd_read || request.command == nbd_cmd_write;
  return moves_data ? std::min(request.length, nbd_payload_bytes_max) : 0;
}

std::size_t charge_of(const BlockRequest& request) {
  const bool moves_data = request.op == BlockOp::read || request.op == BlockOp::write;
  return moves_data ? request.length : 0;
}

}  // namespace

std::size_t NbdConnection::Outgoing::size() const {
  return reply.head_size + reply.tail.size() + payload.size();
}

NbdConnection::NbdConnection(Socket socket, BlockService& service, NbdExport served,
                             std::string label, Owner& owner)
    : socket_(std::move(socket)),
      handshake_timer_(socket_.get_executor()),
      service_(service),
      export_(served),
      label_(std::move(label)),
      owner_(&owner),
      handshake_(std::move(served)),
      inbox_wanted_(receive_window_bytes) {
  inbox_.resize(inbox_wanted_);
  pieces_.reserve(pieces_max);
}

void NbdConnection::start(std::chrono::milliseconds handshake_timeout) {
  handshake_timer_.expires_after(handshake_timeout);
  handshake_timer_.async_wait([self = shared_from_this()](const ErrorCode& error) {
    if (!error && !self->is_client()) self->end_with("the handshake took too long", true);
  });
  Outgoing greeting;
  greeting.reply.tail = NbdHandshakeCore::greeting();
  outbox_.push_back(std::move(greeting));
  send();
  receive();
}

void NbdConnection::close() {
  closed_ = true;
  owner_ = nullptr;
  handshake_timer_.cancel();
  ErrorCode ignored;  // the descriptor is gone either way
  socket_.close(ignored);
}

void NbdConnection::end_with(std::string_view reason, bool violation) {
  if (closed_) return;
  spdlog::log(violation ? spdlog::level::warn : spdlog::level::debug,
              "{}: NBD connection closed: {}", label_, reason);
  Owner* owner = owner_;
  close();
  owner->connection_closed(*this);
}

// --- receiving ---

std::span<const std::byte> NbdConnection::inbox() const {
  return {inbox_.data() + inbox_begin_, inbox_size()};
}

void NbdConnection::receive() {
  if (receiving_ || closed_) return;
  if (inbox_begin_ > 0) {
    std::memmove(inbox_.data(), inbox_.data() + inbox_begin_, inbox_size());
    inbox_end_ -= inbox_begin_;
    inbox_begin_ = 0;
  }
  if (inbox_.size() < inbox_wanted_) inbox_.resize(inbox_wanted_);
  const std::array<asio::mutable_buffer, 2> into{
      incoming_ ? asio::buffer(incoming_->payload.data() + incoming_->received,
                               incoming_->payload.size() - incoming_->received)
                : asio::mutable_buffer(),
      asio::buffer(inbox_.data() + inbox_end_, inbox_wanted_ - inbox_end_)};
  receiving_ = true;
  socket_.async_read_some(into, [self = shared_from_this()](const ErrorCode& error, std::size_t n) {
    self->receiving_ = false;
    self->received(error, n);
  });
}

void NbdConnection::received(const ErrorCode& error, std::size_t count) {
  if (closed_) return;
  if (error) return end_with(error == asio::error::eof ? "end of stream" : error.message(), false);
  if (incoming_) {
    const std::size_t missing = incoming_->payload.size() - incoming_->received;
    const std::size_t direct = std::min(count, missing);
    incoming_->received += direct;
    count -= direct;
  }
  inbox_end_ += count;
  process();
}

void NbdConnection::process() {
  corked_ = true;
  bool progress = true;
  while (progress && !closed_ && !paused_ && !draining_)
    progress = is_client() ? process_request() : process_handshake();
  corked_ = false;
  if (closed_) return;
  send();
  close_when_drained();
  if (paused_ || draining_) return watch_hangup();
  receive();
}

bool NbdConnection::process_handshake() {
  NbdHandshakeStep step = handshake_.step(inbox());
  if (step.outcome == NbdHandshakeOutcome::violation) {
    end_with(step.reason, true);
    return false;
  }
  if (step.consumed == 0) {
    inbox_wanted_ = std::max(step.wanted, receive_window_bytes);
    return false;
  }
  inbox_begin_ += step.consumed;
  if (!step.replies.empty()) {
    Outgoing replies;
    replies.reply.tail = std::move(step.replies);
    outbox_.push_back(std::move(replies));
  }
  if (step.outcome == NbdHandshakeOutcome::ended) draining_ = true;
  if (step.outcome == NbdHandshakeOutcome::transmission) {
    handshake_timer_.cancel();
    inbox_wanted_ = receive_window_bytes;
    agreement_ = handshake_.agreement();
    owner_->client_ready();
  }
  return true;
}

bool NbdConnection::process_request() {
  if (incoming_) {
    fill_payload();
    if (incoming_->received < incoming_->payload.size()) return false;
    Incoming complete = std::move(*incoming_);
    incoming_.reset();
    execute(std::move(complete));
    return true;
  }
  if (inbox_size() < nbd_request_bytes) return false;
  Incoming incoming;
  incoming.request = decode_nbd_request(inbox().first<nbd_request_bytes>());
  incoming.verdict = judge_nbd_request(incoming.request, export_, *agreement_);
  if (incoming.verdict.action == NbdAction::drop) {
    end_with(incoming.verdict.reason, true);
    return false;
  }
  if (incoming.verdict.action == NbdAction::disconnect) {
    draining_ = true;
    return true;
  }
  const std::size_t charge = charge_of(incoming.request);
  if (!has_room_for(charge)) {
    paused_ = true;
    return false;
  }
  ++in_flight_requests_;
  in_flight_bytes_ += charge;
  inbox_begin_ += nbd_request_bytes;
  incoming.payload = Buffer(incoming.verdict.payload_bytes);
  incoming_ = std::move(incoming);
  return true;
}

void NbdConnection::fill_payload() {
  const std::size_t missing = incoming_->payload.size() - incoming_->received;
  const std::size_t count = std::min(missing, inbox_size());
  if (count == 0) return;
  std::memcpy(incoming_->payload.data() + incoming_->received, inbox().data(), count);
  incoming_->received += count;
  inbox_begin_ += count;
}

bool NbdConnection::has_room_for(std::size_t bytes) const {
  return in_flight_requests_ < nbd_in_flight_requests_max &&
         in_flight_bytes_ + bytes <= nbd_in_flight_bytes_max;
}

// --- requests ---

void NbdConnection::execute(Incoming incoming) {
  const NbdRequest& request = incoming.request;
  switch (incoming.verdict.action) {
    case NbdAction::read:
      return submit(BlockOp::read, std::move(incoming));
    case NbdAction::write:
      return submit(BlockOp::write, std::move(incoming));
    case NbdAction::flush:
      return submit(BlockOp::flush, std::move(incoming));
    case NbdAction::trim:
      return submit(BlockOp::trim, std::move(incoming));
    case NbdAction::write_zeroes:
      return submit(BlockOp::write_zeroes, std::move(incoming));
    case NbdAction::block_status:
      return answer_block_status(incoming);
    case NbdAction::succeed: {
      const bool chunk = request.command == nbd_cmd_read && agreement_->structured_replies;
      return answer(request,
                    chunk ? nbd_no_data(request.cookie) : nbd_simple_success(request.cookie));
    }
    case NbdAction::refuse:
      return refuse(incoming);
    case NbdAction::disconnect:
    case NbdAction::drop:
      break;
  }
  HAVM_ASSERT(false, "an action that has no request");
}

void NbdConnection::refuse(const Incoming& incoming) {
  const NbdRequest& request = incoming.request;
  const NbdVerdict& verdict = incoming.verdict;
  if (++refusals_ <= refusals_logged_max)
    spdlog::warn("{}: NBD request refused: {} (command {}, flags {}, offset {}, length {}){}",
                 label_, verdict.reason, request.command, request.flags, request.offset,
                 request.length,
                 refusals_ == refusals_logged_max ? "; further ones are not logged" : "");
  answer(request, nbd_failure(request.cookie, agreement_->structured_replies, verdict.error,
                              verdict.reason));
}

void NbdConnection::submit(BlockOp op, Incoming incoming) {
  auto request = std::make_unique<BlockRequest>();
  request->op = op;
  request->offset = incoming.request.offset;
  request->length = incoming.request.length;
  request->fua = incoming.verdict.fua && op != BlockOp::read && op != BlockOp::flush;
  request->may_unmap = incoming.verdict.may_unmap;
  request->data = op == BlockOp::read ? Buffer(request->length) : std::move(incoming.payload);
  request->done = [connection = weak_from_this(), cookie = incoming.request.cookie](
                      std::unique_ptr<BlockRequest> back, int error) {
    if (const auto self = connection.lock()) self->completed(std::move(back), error, cookie);
  };
  service_.submit(std::move(request));
}

void NbdConnection::completed(std::unique_ptr<BlockRequest> request, int error,
                              std::uint64_t cookie) {
  HAVM_ASSERT(request != nullptr, "a request comes back with its completion");
  HAVM_ASSERT(error >= 0, "a completion carries 0 or a positive errno value");
  if (closed_) return;
  const bool structured = agreement_->structured_replies;
  Outgoing out;
  out.charged_bytes = charge_of(*request);
  out.ends_request = true;
  if (error != 0) {
    out.reply = nbd_failure(cookie, structured, nbd_error_of_errno(error), std::strerror(error));
  } else if (request->op != BlockOp::read) {
    out.reply = nbd_simple_success(cookie);
  } else if (structured && reads_as_zeroes(request->data)) {
    out.reply = nbd_hole(cookie, request->offset, request->length);
  } else {
    HAVM_ASSERT(request->data.size() == request->length, "a read returns what was asked for");
    out.reply = structured ? nbd_data_head(cookie, request->offset, request->length)
                           : nbd_simple_success(cookie);
    out.payload = std::move(request->data);
  }
  outbox_.push_back(std::move(out));
  if (!corked_) send();
}

// For requests that the service does not see.
void NbdConnection::answer(const NbdRequest& request, NbdReply reply) {
  Outgoing out;
  out.reply = std::move(reply);
  out.charged_bytes = charge_of(request);
  out.ends_request = true;
  outbox_.push_back(std::move(out));
}

void NbdConnection::answer_block_status(const Incoming& incoming) {
  const NbdRequest& request = incoming.request;
  std::vector<NbdExtent> extents;
  const Result<std::vector<Extent>> found = service_.extents(request.offset, request.length);
  if (closed_) return;
  if (found) {
    for (const Extent& extent : found.value())
      extents.push_back({static_cast<std::uint32_t>(extent.length), extent.hole});
  } else {
    // "Allocated" is always true enough (proto.md), and better than failing a client's copy.
    spdlog::warn("{}: extents at {} unknown, told as data: {}", label_, request.offset,
                 found.error().message);
    extents.push_back({request.length, false});
  }
  const std::size_t count = incoming.verdict.one_extent ? 1 : nbd_extents_max;
  extents = nbd_merge_extents(extents, export_.alignment_bytes, count);
  answer(request, nbd_block_status(request.cookie, extents));
}

// --- replies ---

void NbdConnection::send() {
  if (sending_ || closed_ || outbox_.empty()) return;
  pieces_.clear();
  std::size_t skip = front_sent_;
  const auto add = [&](const std::byte* data, std::size_t size) {
    const std::size_t skipped = std::min(skip, size);
    skip -= skipped;
    if (size > skipped) pieces_.emplace_back(data + skipped, size - skipped);
  };
  constexpr std::size_t pieces_per_reply = 3;
  for (const Outgoing& out : outbox_) {
    if (pieces_.size() + pieces_per_reply > pieces_max) break;
    add(out.reply.head.data(), out.reply.head_size);
    add(out.reply.tail.data(), out.reply.tail.size());
    add(out.payload.data(), out.payload.size());
  }
  sending_ = true;
  // Asio sends with MSG_NOSIGNAL: a client that is gone is an error code here, never SIGPIPE.
  socket_.async_send(std::span<const asio::const_buffer>(pieces_),
                     [self = shared_from_this()](const ErrorCode& error, std::size_t n) {
                       self->sending_ = false;
                       self->sent(error, n);
                     });
}

void NbdConnection::sent(const ErrorCode& error, std::size_t count) {
  if (closed_) return;
  if (error) return end_with(error.message(), false);
  count += front_sent_;
  while (!outbox_.empty() && count >= outbox_.front().size()) {
    const Outgoing& out = outbox_.front();
    count -= out.size();
    if (out.ends_request) {
      --in_flight_requests_;
      in_flight_bytes_ -= out.charged_bytes;
    }
    outbox_.pop_front();
  }
  front_sent_ = count;
  if (!paused_) {
    send();
    return close_when_drained();
  }
  paused_ = false;
  stop_watching_hangup_.emit(asio::cancellation_type::terminal);
  process();
}

void NbdConnection::close_when_drained() {
  if (draining_ && in_flight_requests_ == 0 && outbox_.empty())
    end_with("the client is done", false);
}

// While the socket is not read, its end would go unnoticed for as long as requests are held.
void NbdConnection::watch_hangup() {
  if (watching_hangup_ || closed_) return;
  watching_hangup_ = true;
  auto on_event = [self = shared_from_this()](const ErrorCode& error) {
    self->watching_hangup_ = false;
    if (self->closed_ || !(self->paused_ || self->draining_)) return;
    if (error == asio::error::operation_aborted) return self->watch_hangup();
    self->end_with("the client went away", false);
  };
  socket_.async_wait(Socket::wait_error, asio::bind_cancellation_slot(stop_watching_hangup_.slot(),
                                                                      std::move(on_event)));
}

}  // namespace havm
