#include "vmrepl/transport/stream_opener.hpp"

#include <array>
#include <utility>

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "vmrepl/transport/tcp_stream.hpp"
#include "vmrepl/transport/tls_context.hpp"

namespace havm {
namespace {

using boost::asio::awaitable;
using boost::asio::redirect_error;
using boost::asio::steady_timer;
using boost::asio::use_awaitable;
using Socket = ByteStream::Socket;

// False when the deadline came first.
awaitable<bool> wait_for(Socket& socket, Socket::wait_type what, steady_timer& deadline) {
  using namespace boost::asio::experimental::awaitable_operators;
  boost::system::error_code ready;
  boost::system::error_code late;
  const auto first = co_await (socket.async_wait(what, redirect_error(use_awaitable, ready)) ||
                               deadline.async_wait(redirect_error(use_awaitable, late)));
  co_return first.index() == 0 && steady_timer::clock_type::now() < deadline.expiry();
}

// Closing with unread bytes would reset the connection and take the alert with it, and the other
// side would never know why.
awaitable<void> linger(Socket& socket) {
  boost::system::error_code ignored;
  socket.shutdown(Socket::shutdown_send, ignored);
  steady_timer deadline(socket.get_executor(), StreamOpener::refusal_linger);
  std::array<std::byte, 4096> nothing{};
  const iovec part{nothing.data(), nothing.size()};
  while (co_await wait_for(socket, Socket::wait_read, deadline)) {
    const StreamStep step = receive_now(socket.native_handle(), {&part, 1});
    if (step.kind == StreamStep::Kind::ended || step.kind == StreamStep::Kind::failed) co_return;
  }
}

}  // namespace

Error StreamOpener::too_late() const {
  return Error("TLS: the other side did not finish the handshake within " +
               std::to_string(deadline_.count()) + " ms");
}

awaitable<Result<void>> StreamOpener::shake_hands(TlsStream& stream, Timer& deadline) const {
  for (;;) {
    const StreamStep step = stream.handshake();
    if (step.kind == StreamStep::Kind::moved) co_return success();
    if (step.kind != StreamStep::Kind::blocked) co_return Error("TLS: " + step.why);
    const auto what = stream.has_unsent() ? Socket::wait_write : Socket::wait_read;
    const bool in_time = co_await wait_for(stream.socket(), what, deadline);
    if (!in_time) co_return too_late();
  }
}

awaitable<StreamOpener::Opened> StreamOpener::open(Socket socket, TlsRole role) const {
  boost::system::error_code failed;
  socket.non_blocking(true, failed);
  if (failed) co_return Error("the socket cannot be used: " + failed.message());
  if (!tls_) {
    std::unique_ptr<ByteStream> plain = std::make_unique<TcpStream>(std::move(socket));
    co_return plain;
  }
  socket.set_option(boost::asio::ip::tcp::no_delay(true), failed);
  steady_timer deadline(socket.get_executor(), deadline_);
  if (role == TlsRole::server) {
    // Who says nothing costs nothing: a context is read from files and takes its time.
    const bool speaks = co_await wait_for(socket, Socket::wait_read, deadline);
    if (!speaks) co_return too_late();
  }
  auto context = make_tls_context(*tls_, node_);
  if (!context) co_return Error("TLS: " + context.error().message);
  auto stream = TlsStream::create(std::move(socket), *context.value(), role, partner_);
  if (!stream) co_return stream.error();
  const Result<void> done = co_await shake_hands(*stream.value(), deadline);
  if (done) {
    std::unique_ptr<ByteStream> ready = std::move(stream).value();
    co_return ready;
  }
  if (role == TlsRole::server) co_await linger(stream.value()->socket());
  co_return done.error();
}

}  // namespace havm
