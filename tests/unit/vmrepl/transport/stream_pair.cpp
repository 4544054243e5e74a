#include "tests/unit/vmrepl/transport/stream_pair.hpp"

#include <array>

#include <boost/asio/ip/tcp.hpp>

#include "vmrepl/base/spawn_supervised.hpp"

namespace havm {
namespace {

using Tcp = boost::asio::ip::tcp;

boost::asio::awaitable<void> open_into(const StreamOpener& opener, ByteStream::Socket socket,
                                       TlsRole role, std::optional<StreamOpener::Opened>& into) {
  auto opened = co_await opener.open(std::move(socket), role);
  into.emplace(std::move(opened));
}

}  // namespace

SocketPair connect_sockets(boost::asio::io_context& io) {
  Tcp::acceptor acceptor(io, Tcp::endpoint(boost::asio::ip::address_v4::loopback(), 0));
  Tcp::socket client(io);
  client.connect(acceptor.local_endpoint());
  return {std::move(client), acceptor.accept()};
}

bool run_loop_until(boost::asio::io_context& io, const std::function<bool()>& condition) {
  for (int i = 0; i < 4000 && !condition(); ++i) {
    io.restart();
    io.run_for(std::chrono::milliseconds(5));
  }
  return condition();
}

void start_opening(boost::asio::io_context& io, const StreamOpener& opener,
                   ByteStream::Socket socket, TlsRole role,
                   std::optional<StreamOpener::Opened>& into) {
  spawn_supervised(io.get_executor(), "open", open_into(opener, std::move(socket), role, into));
}

StreamPair::StreamPair(boost::asio::io_context& io, const StreamOpener& client,
                       const StreamOpener& server)
    : io_(io) {
  SocketPair sockets = connect_sockets(io);
  start_opening(io, client, std::move(sockets.client), TlsRole::client, client_);
  start_opening(io, server, std::move(sockets.server), TlsRole::server, server_);
}

bool StreamPair::run() {
  return run_loop_until(io_, [this] { return client_ && server_; });
}

std::string StreamPair::problem(boost::asio::io_context& io, Opened& end) {
  if (!end) return end.error().message;
  std::array<std::byte, 64> bytes{};
  const iovec part{bytes.data(), bytes.size()};
  StreamStep step = StreamStep::blocked();
  for (int i = 0; i < 20 && step.kind == StreamStep::Kind::blocked; ++i) {
    io.restart();
    io.run_for(std::chrono::milliseconds(5));
    step = end.value()->read({&part, 1});
  }
  return step.why;
}

}  // namespace havm
