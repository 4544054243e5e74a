#include "vmrepl/control/engine_client.hpp"

#include <cerrno>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include <boost/asio/dispatch.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "vmrepl/control/control_lines.hpp"

namespace havm {
namespace {

using boost::asio::awaitable;
using boost::asio::redirect_error;
using boost::asio::use_awaitable;
using Json = nlohmann::json;
using ErrorCode = boost::system::error_code;
using Socket = boost::asio::local::stream_protocol::socket;

Error not_connected(const std::string& path) {
  return Error("the engine at " + path + " is not connected; is havm-repl of this VM running?",
               ENOTCONN);
}

}  // namespace

struct EngineClient::State : std::enable_shared_from_this<EngineClient::State> {
  // What belongs to one connection; its handlers hold it, and compare it with the present one to
  // know that they come late.
  struct Link {
    explicit Link(Socket s) : socket(std::move(s)) {}
    Socket socket;
    std::string input;
    std::deque<std::string> output;
    bool writing = false;
  };
  struct Call {
    explicit Call(const boost::asio::any_io_executor& e) : timer(e) {}
    boost::asio::steady_timer timer;  // its end, early or late, wakes the caller
    std::optional<Result<Json>> outcome;
  };

  explicit State(boost::asio::any_io_executor e) : executor(std::move(e)) {}

  void read();
  void on_line(const std::string& line);
  void write_next();
  void end(const std::string& reason, bool tell);

  boost::asio::any_io_executor executor;
  EventHandler on_event;
  LostHandler on_lost;
  std::string path;
  std::shared_ptr<Link> link;
  std::uint64_t next_id = 1;
  std::map<std::uint64_t, std::shared_ptr<Call>> calls;
};

void EngineClient::State::read() {
  boost::asio::async_read_until(
      link->socket, boost::asio::dynamic_buffer(link->input, max_line_bytes + 1), '\n',
      [self = shared_from_this(), mine = link](const ErrorCode& e, std::size_t bytes) {
        if (self->link != mine) return;
        if (e) return self->end("the engine closed the connection: " + e.message(), true);
        const std::string line = mine->input.substr(0, bytes - 1);
        mine->input.erase(0, bytes);
        self->on_line(line);
        if (self->link == mine) self->read();
      });
}

void EngineClient::State::on_line(const std::string& line) {
  auto parsed = parse_engine_line(line);
  if (!parsed) return end(parsed.error().message, true);
  if (const auto* event = std::get_if<ControlEvent>(&parsed.value())) {
    const auto handler = on_event;
    if (handler) handler(event->event);
    return;
  }
  auto& reply = std::get<ControlReply>(parsed.value());
  const auto call = calls.find(reply.id);
  if (call == calls.end()) return;  // its caller has given up
  call->second->outcome = std::move(reply.outcome);
  call->second->timer.cancel();
}

void EngineClient::State::write_next() {
  if (!link || link->writing || link->output.empty()) return;
  link->writing = true;
  boost::asio::async_write(
      link->socket, boost::asio::buffer(link->output.front()),
      [self = shared_from_this(), mine = link](const ErrorCode& e, std::size_t) {
        if (self->link != mine) return;
        mine->writing = false;
        if (e) return self->end("writing to the engine failed: " + e.message(), true);
        mine->output.pop_front();
        self->write_next();
      });
}

void EngineClient::State::end(const std::string& reason, bool tell) {
  if (!link) return;
  ErrorCode ignored;
  link->socket.close(ignored);
  link.reset();
  for (const auto& [id, call] : calls) {
    call->outcome = Result<Json>(not_connected(path));
    call->timer.cancel();
  }
  if (!tell || !on_lost) return;
  boost::asio::post(executor, [self = shared_from_this(), reason] {
    if (self->on_lost) self->on_lost(reason);
  });
}

EngineClient::EngineClient(boost::asio::any_io_executor executor)
    : state_(std::make_shared<State>(std::move(executor))) {}

EngineClient::~EngineClient() {
  state_->on_event = nullptr;
  state_->on_lost = nullptr;
  state_->end("the client ended", false);
}

void EngineClient::on_event(EventHandler handler) {
  state_->on_event = std::move(handler);
}
void EngineClient::on_lost(LostHandler handler) {
  state_->on_lost = std::move(handler);
}
void EngineClient::close() {
  state_->end("closed", false);
}
bool EngineClient::connected() const {
  return state_->link != nullptr;
}

awaitable<Result<void>> EngineClient::connect(std::string path) {
  const std::shared_ptr<State> state = state_;
  state->end("a new connection replaces this one", false);
  state->path = path;
  if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    Error error("the socket path " + path + " is too long", ENAMETOOLONG);
    co_return error;
  }
  Socket socket(state->executor);
  const boost::asio::local::stream_protocol::endpoint where(path);
  ErrorCode failed;
  co_await socket.async_connect(where, redirect_error(use_awaitable, failed));
  if (failed) {
    Error error("cannot connect to the engine at " + path + ": " + failed.message() +
                    "; is havm-repl of this VM running?",
                failed.value());
    co_return error;
  }
  state->end("another connection came first", false);
  state->link = std::make_shared<State::Link>(std::move(socket));
  state->read();
  co_return success();
}

awaitable<Result<Json>> EngineClient::call(std::string cmd, Json args,
                                           std::chrono::milliseconds deadline) {
  const std::shared_ptr<State> state = state_;
  if (!state->link) {
    Error error = not_connected(state->path);
    co_return error;
  }
  if (state->calls.size() >= max_calls_in_flight) {
    Error error("too many commands wait for the engine at " + state->path, EBUSY);
    co_return error;
  }
  const std::uint64_t id = state->next_id++;
  Json request = args.is_object() ? std::move(args) : Json::object();
  request["id"] = id;
  request["cmd"] = cmd;
  const auto call = std::make_shared<State::Call>(state->executor);
  state->calls.emplace(id, call);
  state->link->output.push_back(request.dump(-1, ' ', false, Json::error_handler_t::replace) +
                                "\n");
  state->write_next();
  call->timer.expires_after(deadline);
  ErrorCode woken;
  if (!call->outcome) co_await call->timer.async_wait(redirect_error(use_awaitable, woken));
  state->calls.erase(id);
  if (call->outcome) co_return *call->outcome;
  Error error("the engine at " + state->path + " did not answer '" + cmd + "' within " +
                  std::to_string(deadline.count()) + " ms",
              ETIMEDOUT);
  co_return error;
}

}  // namespace havm
