#include <array>
#include <cerrno>
#include <optional>
#include <unordered_set>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/control/http.hpp"
#include "agent/control/http_wire.hpp"
#include "vmrepl/base/spawn_supervised.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Protocol = asio::generic::stream_protocol;
using Stream = beast::basic_stream<Protocol, asio::any_io_executor>;
using Acceptor = asio::basic_socket_acceptor<Protocol, asio::any_io_executor>;
using RequestParser = http::request_parser<http::string_body>;

constexpr std::size_t connections_max = 256;
constexpr int backlog_connections = 128;
// For one whole request including the idle time before it. The client of http_client.cpp drops idle
// connections much earlier, so that this never races with a request of ours.
constexpr std::chrono::seconds request_read_timeout{75};
constexpr std::chrono::seconds response_write_timeout{30};
constexpr std::chrono::milliseconds accept_retry_pause{100};
constexpr auto as_tuple = asio::as_tuple(asio::use_awaitable);

// Shared by the server object and its coroutines; the coroutines may outlive the object.
struct ServerState {
  asio::any_io_executor executor;
  HttpEndpoint endpoint;
  HttpHandler handler;
  Acceptor acceptor;
  asio::steady_timer pause;
  std::unordered_set<Stream*> connections;
  bool closed = false;
  dev_t socket_device = 0;
  ino_t socket_inode = 0;

  ServerState(asio::any_io_executor executor_, HttpEndpoint endpoint_, HttpHandler handler_)
      : executor(executor_),
        endpoint(std::move(endpoint_)),
        handler(std::move(handler_)),
        acceptor(executor_),
        pause(executor_) {}

  void close() {
    closed = true;
    boost::system::error_code ignored;
    acceptor.close(ignored);
    pause.cancel();
    for (Stream* stream : connections)
      stream->close();
    struct stat now {};
    if (!endpoint.unix_path.empty() && ::stat(endpoint.unix_path.c_str(), &now) == 0 &&
        now.st_ino == socket_inode && now.st_dev == socket_device)
      ::unlink(endpoint.unix_path.c_str());
  }
};

using StatePtr = std::shared_ptr<ServerState>;

// A connection; in the server's set for as long as it lives.
struct Connection {
  StatePtr state;
  Stream stream;

  Connection(StatePtr state_, Protocol::socket socket)
      : state(std::move(state_)), stream(std::move(socket)) {
    state->connections.insert(&stream);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() { state->connections.erase(&stream); }
};

// Runs the handler; what it throws becomes a 500.
asio::awaitable<HttpResponse> call_handler(StatePtr state, HttpRequest request) {
  HttpResponse response;
  try {
    response = co_await state->handler(std::move(request));
  } catch (const std::exception& e) {
    response = HttpResponse::error(500, e.what());
  }
  co_return response;
}

asio::awaitable<HttpResponse> answer(StatePtr state, http::request<http::string_body>& message) {
  const auto& target = message.target();
  auto decoded = decode_http_target(std::string_view(target.data(), target.size()));
  if (!decoded) co_return HttpResponse::error(400, decoded.error().message);
  auto body = parse_http_body(message.body());
  if (!body) co_return HttpResponse::error(400, body.error().message);
  HttpRequest request;
  request.method = std::string(message.method_string());
  request.path = std::move(decoded.value().path);
  request.query = std::move(decoded.value().query);
  request.body = std::move(body.value());
  co_return co_await call_handler(state, std::move(request));
}

asio::awaitable<bool> send(Stream& stream, const HttpResponse& response, unsigned version,
                           bool keep_alive) {
  http::response<http::string_body> message(static_cast<http::status>(response.status), version);
  message.set(http::field::server, "havm/" HAVM_VERSION);
  message.set(http::field::content_type, "application/json");
  message.keep_alive(keep_alive);
  message.body() = dump_http_body(response.body) + "\n";
  message.prepare_payload();
  stream.expires_after(response_write_timeout);
  const auto [ec, n] = co_await http::async_write(stream, message, as_tuple);
  co_return !ec && keep_alive;
}

// Answers a request that could not be read, where there is still somebody to answer.
asio::awaitable<void> refuse(Stream& stream, boost::system::error_code ec) {
  const bool from_parser = ec.category() == make_error_code(http::error::bad_target).category();
  if (!from_parser || ec == http::error::end_of_stream || ec == http::error::partial_message)
    co_return;
  const int status = ec == http::error::body_limit ? 413 : 400;
  const std::string sentence = status == 413 ? "the body is larger than 4 MiB"
                                             : "the request is not valid HTTP: " + ec.message();
  const HttpResponse response = HttpResponse::error(status, sentence);
  co_await send(stream, response, 11, false);
}

asio::awaitable<void> serve(StatePtr state, std::shared_ptr<Connection> connection) {
  Stream& stream = connection->stream;
  beast::flat_buffer buffer;
  bool go_on = true;
  while (go_on && !state->closed) {
    RequestParser parser;
    parser.body_limit(http_request_bytes_max);
    stream.expires_after(request_read_timeout);
    const auto [ec, n] = co_await http::async_read(stream, buffer, parser, as_tuple);
    if (ec) {
      co_await refuse(stream, ec);
      break;
    }
    stream.expires_never();  // a handler keeps its own deadlines
    auto message = parser.release();
    // The answer to HEAD may not have a body; nobody needs it, so the connection ends with it.
    const bool keep_alive = message.keep_alive() && message.method() != http::verb::head;
    const HttpResponse response = co_await answer(state, message);
    if (state->closed) break;
    go_on = co_await send(stream, response, message.version(), keep_alive);
  }
  boost::system::error_code ignored;
  if (stream.socket().is_open()) stream.socket().shutdown(Protocol::socket::shutdown_send, ignored);
}

// Above the limit a connection is told so at once instead of waiting without a word.
void turn_away(Protocol::socket& socket) {
  static constexpr std::string_view text =
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 33\r\n"
      "Connection: close\r\n\r\n{\"error\": \"too many connections\"}";
  boost::system::error_code ignored;
  socket.non_blocking(true, ignored);
  socket.send(asio::buffer(text), 0, ignored);
  socket.shutdown(Protocol::socket::shutdown_send, ignored);
}

asio::awaitable<void> accept_loop(StatePtr state) {
  while (!state->closed) {
    auto [ec, socket] = co_await state->acceptor.async_accept(as_tuple);
    if (state->closed) break;
    if (ec) {  // out of file descriptors, or the peer is gone already: neither ends the server
      state->pause.expires_after(accept_retry_pause);
      co_await state->pause.async_wait(as_tuple);
      continue;
    }
    if (state->connections.size() >= connections_max) {
      turn_away(socket);
      continue;
    }
    auto connection = std::make_shared<Connection>(state, std::move(socket));
    spawn_supervised(state->executor, "http " + state->endpoint.text(), serve(state, connection));
  }
}

class BeastServer final : public HttpServer {
 public:
  explicit BeastServer(StatePtr state) : state_(std::move(state)) {}
  BeastServer(const BeastServer&) = delete;
  BeastServer& operator=(const BeastServer&) = delete;
  ~BeastServer() override { state_->close(); }
  [[nodiscard]] HttpEndpoint endpoint() const override { return state_->endpoint; }

 private:
  StatePtr state_;
};

Error in_use(const HttpEndpoint& endpoint) {
  return Error("cannot listen on " + endpoint.text() +
                   ": it is in use; stop the program that listens there or choose another",
               EADDRINUSE);
}

// Removes the socket file of a server that no longer lives. Connecting tells a live server from a
// file.
Result<void> remove_stale_socket(const HttpEndpoint& endpoint, const SocketAddress& address) {
  struct stat found {};
  if (::lstat(endpoint.unix_path.c_str(), &found) != 0) {
    if (errno == ENOENT) return success();
    return errno_error("cannot look at " + endpoint.unix_path, errno);
  }
  if (!S_ISSOCK(found.st_mode))
    return Error("cannot listen on " + endpoint.unix_path +
                     ": there is a file that is not a socket; remove it or choose another path",
                 EEXIST);
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!probe.valid()) return errno_error("cannot create a socket", errno);
  if (::connect(probe.get(), address.get(), address.size_bytes) == 0) return in_use(endpoint);
  if (errno != ECONNREFUSED) return in_use(endpoint);
  if (::unlink(endpoint.unix_path.c_str()) != 0)
    return errno_error("cannot remove the stale socket " + endpoint.unix_path, errno);
  return success();
}

// A bound and listening descriptor; for TCP port 0 `endpoint.port` becomes the chosen one.
Result<UniqueFd> open_listener(HttpEndpoint& endpoint, unsigned unix_mode) {
  const bool local = !endpoint.unix_path.empty();
  BOOST_OUTCOME_TRY(const SocketAddress address, socket_address(endpoint));
  const int family = address.get()->sa_family;
  if (local) {
    BOOST_OUTCOME_TRY(remove_stale_socket(endpoint, address));
  }
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return errno_error("cannot create a socket for " + endpoint.text(), errno);
  const int on = 1;
  if (!local && ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0)
    return errno_error("cannot set SO_REUSEADDR on " + endpoint.text(), errno);
  // Set before bind the mode holds from the first instant (less the umask), so no window is open.
  if (local && ::fchmod(fd.get(), unix_mode) != 0)
    return errno_error("cannot set the mode of " + endpoint.text(), errno);
  if (::bind(fd.get(), address.get(), address.size_bytes) != 0) {
    if (errno == EADDRINUSE) return in_use(endpoint);
    return errno_error("cannot listen on " + endpoint.text(), errno);
  }
  if (local && ::chmod(endpoint.unix_path.c_str(), unix_mode) != 0)
    return errno_error("cannot set the mode of " + endpoint.text(), errno);
  if (::listen(fd.get(), backlog_connections) != 0) {
    if (errno == EADDRINUSE) return in_use(endpoint);
    return errno_error("cannot listen on " + endpoint.text(), errno);
  }
  return fd;
}

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::listen(asio::any_io_executor executor,
                                                       const HttpEndpoint& endpoint,
                                                       HttpHandler handler, unsigned unix_mode) {
  auto state = std::make_shared<ServerState>(executor, endpoint, std::move(handler));
  BOOST_OUTCOME_TRY(UniqueFd fd, open_listener(state->endpoint, unix_mode));
  SocketAddress bound;
  bound.size_bytes = sizeof bound.storage;
  auto* raw = static_cast<sockaddr*>(static_cast<void*>(&bound.storage));
  if (::getsockname(fd.get(), raw, &bound.size_bytes) != 0)
    return errno_error("cannot read the address of " + endpoint.text(), errno);
  const int family = raw->sa_family;
  if (family != AF_UNIX) {
    const auto* v4 = static_cast<const sockaddr_in*>(static_cast<const void*>(raw));
    const auto* v6 = static_cast<const sockaddr_in6*>(static_cast<const void*>(raw));
    state->endpoint.port = ntohs(family == AF_INET ? v4->sin_port : v6->sin6_port);
  }
  struct stat file {};
  if (family == AF_UNIX && ::stat(endpoint.unix_path.c_str(), &file) == 0) {
    state->socket_device = file.st_dev;
    state->socket_inode = file.st_ino;
  }
  boost::system::error_code ec;
  state->acceptor.assign(Protocol(family, family == AF_UNIX ? 0 : IPPROTO_TCP), fd.get(), ec);
  if (ec) return Error("cannot listen on " + endpoint.text() + ": " + ec.message(), ec.value());
  (void)fd.release();
  spawn_supervised(executor, "http accept " + endpoint.text(), accept_loop(state));
  return std::unique_ptr<HttpServer>(std::make_unique<BeastServer>(std::move(state)));
}

}  // namespace havm
