#include <algorithm>
#include <cerrno>
#include <deque>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <sys/socket.h>

#include "agent/control/http.hpp"
#include "agent/control/http_wire.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Protocol = asio::generic::stream_protocol;
using Stream = beast::basic_stream<Protocol, asio::any_io_executor>;
using Clock = std::chrono::steady_clock;

constexpr std::size_t waiting_calls_max = 1024;
// Well below the server's idle limit: a request is never sent into a connection being closed for
// age.
constexpr std::chrono::seconds idle_max{30};
constexpr auto as_tuple = asio::as_tuple(asio::use_awaitable);

struct Turn;

// Shared by the client object and its calls; the calls may outlive the object.
struct ClientState {
  asio::any_io_executor executor;
  HttpEndpoint endpoint;
  std::unique_ptr<Stream> stream;  // null: not connected
  beast::flat_buffer buffer;
  Clock::time_point idle_since;
  Turn* holder = nullptr;     // whose request is on the connection
  std::deque<Turn*> waiting;  // in order of arrival
  bool closed = false;

  ClientState(asio::any_io_executor executor_, HttpEndpoint endpoint_)
      : executor(std::move(executor_)), endpoint(std::move(endpoint_)) {}
  void drop_connection() {
    stream.reset();
    buffer.clear();
  }
  void close();
};

using StatePtr = std::shared_ptr<ClientState>;

// A call's right to use the connection. Its end, also by cancellation, passes the right on, and
// drops the connection unless the exchange was complete (an answer still on its way would answer
// the next call).
struct Turn {
  StatePtr state;
  asio::steady_timer wake;
  bool complete = false;

  explicit Turn(StatePtr state_) : state(std::move(state_)), wake(state->executor) {
    if (state->holder == nullptr)
      state->holder = this;
    else
      state->waiting.push_back(this);
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() {
    if (!held()) {
      std::erase(state->waiting, this);
      return;
    }
    if (!complete) state->drop_connection();
    state->holder = nullptr;
    if (state->waiting.empty()) return;
    state->holder = state->waiting.front();
    state->waiting.pop_front();
    state->holder->wake.cancel();
  }
  [[nodiscard]] bool held() const { return state->holder == this; }
};

void ClientState::close() {
  closed = true;
  for (Turn* turn : waiting)
    turn->wake.cancel();
  if (stream) stream->close();  // the operation on it ends; its Turn drops the stream
}

Error closed_error(const HttpEndpoint& endpoint) {
  return Error("the connection to " + endpoint.text() + " was given up", ECANCELED);
}

Error transport_error(const ClientState& state, const std::string& what,
                      boost::system::error_code ec) {
  if (state.closed) return closed_error(state.endpoint);
  if (ec == beast::error::timeout)
    return Error(state.endpoint.text() + " did not answer within the deadline", ETIMEDOUT);
  if (ec == http::error::end_of_stream || ec == http::error::partial_message ||
      ec == asio::error::eof)
    return Error(
        what + " " + state.endpoint.text() + ": it closed the connection without an answer",
        ECONNRESET);
  const bool is_errno = ec.category() == boost::system::system_category();
  return Error(what + " " + state.endpoint.text() + ": " + ec.message(),
               is_errno ? ec.value() : EIO);
}

// A kept connection can be used when it is not old and the peer has neither closed it nor said
// anything.
bool connection_usable(ClientState& state) {
  if (!state.stream || Clock::now() - state.idle_since > idle_max) return false;
  char byte = 0;
  const ssize_t n =
      ::recv(state.stream->socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

asio::awaitable<Result<void>> connect(StatePtr state, Clock::time_point until) {
  state->drop_connection();
  const auto address = socket_address(state->endpoint);
  if (!address) co_return address.error();
  const SocketAddress& to = address.value();
  const Protocol::endpoint endpoint(to.get(), to.size_bytes,
                                    to.get()->sa_family == AF_UNIX ? 0 : IPPROTO_TCP);
  state->stream = std::make_unique<Stream>(state->executor);
  state->stream->expires_at(until);
  const auto [ec] = co_await state->stream->async_connect(endpoint, as_tuple);
  if (ec) co_return transport_error(*state, "cannot connect to", ec);
  if (state->closed) co_return closed_error(state->endpoint);
  co_return success();
}

asio::awaitable<Result<HttpResponse>> exchange(StatePtr state, Turn& turn,
                                               http::request<http::string_body>& message,
                                               Clock::time_point until) {
  Stream& stream = *state->stream;
  stream.expires_at(until);
  const auto [write_error, sent] = co_await http::async_write(stream, message, as_tuple);
  if (write_error) co_return transport_error(*state, "cannot send to", write_error);
  http::response_parser<http::string_body> parser;
  parser.body_limit(http_response_bytes_max);
  const auto [read_error, n] = co_await http::async_read(stream, state->buffer, parser, as_tuple);
  if (read_error) co_return transport_error(*state, "no answer from", read_error);
  stream.expires_never();
  state->idle_since = Clock::now();
  turn.complete = parser.get().keep_alive() && !state->closed;
  auto body = parse_http_body(parser.get().body());
  if (!body)
    co_return Error(state->endpoint.text() + " answered something else: " + body.error().message,
                    EBADMSG);
  co_return HttpResponse(parser.get().result_int(), std::move(body.value()));
}

asio::awaitable<Result<HttpResponse>> run_request(StatePtr state, std::string method,
                                                  std::string target, nlohmann::json body,
                                                  std::chrono::milliseconds deadline) {
  const Clock::time_point until = Clock::now() + deadline;
  if (state->closed) co_return closed_error(state->endpoint);
  if (state->waiting.size() >= waiting_calls_max)
    co_return Error("too many requests are waiting for " + state->endpoint.text(), EBUSY);
  http::request<http::string_body> message;
  message.version(11);
  message.method_string(method);
  message.target(target);
  message.set(http::field::host,
              state->endpoint.unix_path.empty() ? state->endpoint.text() : "localhost");
  message.set(http::field::user_agent, "havm/" HAVM_VERSION);
  if (!body.is_null()) {
    message.set(http::field::content_type, "application/json");
    message.body() = dump_http_body(body);
  }
  message.prepare_payload();

  Turn turn(state);
  if (!turn.held()) {
    turn.wake.expires_at(until);
    co_await turn.wake.async_wait(as_tuple);
  }
  if (state->closed) co_return closed_error(state->endpoint);
  if (!turn.held() || Clock::now() >= until)
    co_return Error(state->endpoint.text() + " did not answer earlier requests within the deadline",
                    ETIMEDOUT);
  if (!connection_usable(*state)) {
    const auto connected = co_await connect(state, until);
    if (!connected) co_return connected.error();
  }
  co_return co_await exchange(state, turn, message, until);
}

class BeastClient final : public HttpClient {
 public:
  explicit BeastClient(StatePtr state) : state_(std::move(state)) {}
  BeastClient(const BeastClient&) = delete;
  BeastClient& operator=(const BeastClient&) = delete;
  ~BeastClient() override { state_->close(); }

  asio::awaitable<Result<HttpResponse>> request(std::string method, std::string target,
                                                nlohmann::json body,
                                                std::chrono::milliseconds deadline) override {
    return run_request(state_, std::move(method), std::move(target), std::move(body), deadline);
  }

 private:
  StatePtr state_;
};

}  // namespace

std::unique_ptr<HttpClient> HttpClient::create(asio::any_io_executor executor,
                                               HttpEndpoint endpoint) {
  return std::make_unique<BeastClient>(
      std::make_shared<ClientState>(std::move(executor), std::move(endpoint)));
}

}  // namespace havm
