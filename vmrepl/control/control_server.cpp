#include "vmrepl/control/control_server.hpp"

#include <algorithm>
#include <deque>
#include <optional>
#include <set>
#include <utility>

#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>

#include "vmrepl/control/control_lines.hpp"
#include "vmrepl/nbd/unix_listener.hpp"

namespace havm {
namespace {

using Json = nlohmann::json;
using Socket = boost::asio::local::stream_protocol::socket;
using ErrorCode = boost::system::error_code;

}  // namespace

struct ControlServer::State : std::enable_shared_from_this<ControlServer::State> {
  struct Client : std::enable_shared_from_this<Client> {
    explicit Client(Socket s, State& server) : socket(std::move(s)), state(server) {}

    void read();
    void on_read(const ErrorCode& e, std::size_t bytes);
    void send(std::string line);
    void write_next();
    void close();

    Socket socket;
    State& state;  // outlives its clients: it holds them, and they hold it while they wait
    std::string input;
    std::deque<std::string> output;
    std::size_t output_bytes = 0;
    bool writing = false;
    bool subscribed = false;
    bool closing = false;  // after what is queued
    bool closed = false;
  };
  struct Waiting {
    std::shared_ptr<Client> client;
    ControlCommand command;
  };

  State(boost::asio::any_io_executor e, std::string p, Execute x, Status s)
      : executor(std::move(e)),
        path(std::move(p)),
        execute(std::move(x)),
        status(std::move(s)),
        acceptor(executor) {}

  void accept();
  void on_line(const std::shared_ptr<Client>& client, const std::string& line);
  void run_next();

  boost::asio::any_io_executor executor;
  std::string path;
  Execute execute;
  Status status;
  std::optional<UnixListener> listener;
  boost::asio::local::stream_protocol::acceptor acceptor;
  std::set<std::shared_ptr<Client>> clients;
  std::deque<Waiting> waiting;
  bool running = false;
  bool stopped = false;
};

// ---- one client ------------------------------------------------------------------------------

void ControlServer::State::Client::read() {
  auto self = shared_from_this();
  auto server = state.shared_from_this();
  boost::asio::async_read_until(
      socket, boost::asio::dynamic_buffer(input, line_bytes_max + 1), '\n',
      [self, server](const ErrorCode& e, std::size_t bytes) { self->on_read(e, bytes); });
}

void ControlServer::State::Client::on_read(const ErrorCode& e, std::size_t bytes) {
  if (closed || closing) return;
  if (e == boost::asio::error::not_found) {
    closing = true;
    send(control_reply_line(nullptr, Error("a line is longer than 1 MiB")));
    return;
  }
  if (e) return close();
  const std::string line = input.substr(0, bytes - 1);
  input.erase(0, bytes);
  state.on_line(shared_from_this(), line);
  if (!closed && !closing) read();
}

void ControlServer::State::Client::send(std::string line) {
  if (closed) return;
  output_bytes += line.size();
  output.push_back(std::move(line));
  if (output_bytes > output_bytes_max) return close();
  if (!writing) write_next();
}

void ControlServer::State::Client::write_next() {
  if (output.empty()) {
    if (closing) close();
    return;
  }
  writing = true;
  auto self = shared_from_this();
  auto server = state.shared_from_this();
  boost::asio::async_write(socket, boost::asio::buffer(output.front()),
                           [self, server](const ErrorCode& e, std::size_t) {
                             self->writing = false;
                             if (self->closed) return;
                             if (e) return self->close();
                             self->output_bytes -= self->output.front().size();
                             self->output.pop_front();
                             self->write_next();
                           });
}

void ControlServer::State::Client::close() {
  if (closed) return;
  closed = true;
  ErrorCode ignored;
  socket.close(ignored);
  // Whoever called may be walking through the clients.
  boost::asio::post(state.executor, [self = shared_from_this(), server = state.shared_from_this()] {
    server->clients.erase(self);
  });
}

// ---- the server ------------------------------------------------------------------------------

void ControlServer::State::accept() {
  acceptor.async_accept([self = shared_from_this()](const ErrorCode& e, Socket socket) {
    if (e == boost::asio::error::operation_aborted || self->stopped) return;
    if (!e && self->clients.size() < clients_max) {
      auto client = std::make_shared<Client>(std::move(socket), *self);
      self->clients.insert(client);
      client->read();
    }
    self->accept();
  });
}

void ControlServer::State::on_line(const std::shared_ptr<Client>& client, const std::string& line) {
  auto parsed = parse_control_command(line);
  const auto refuse = [&client](const Json& id, const std::string& why) {
    client->send(control_reply_line(id, Error(why)));
  };
  if (const auto* refused = std::get_if<ControlRefusal>(&parsed))
    return refuse(refused->id, refused->why);
  auto& command = std::get<ControlCommand>(parsed);
  if (waiting.size() >= waiting_commands_max)
    return refuse(command.id, "too many commands are waiting");
  waiting.push_back({client, std::move(command)});
  run_next();
}

void ControlServer::State::run_next() {
  if (running || waiting.empty()) return;
  running = true;
  const Waiting next = std::move(waiting.front());
  waiting.pop_front();
  const ControlCommand& command = next.command;
  const std::weak_ptr<State> weak = weak_from_this();
  auto reply = [weak, client = next.client, id = command.id](const Result<Json>& outcome) {
    const auto self = weak.lock();
    if (!self) return;
    client->send(control_reply_line(id, outcome));
    self->running = false;
    boost::asio::post(self->executor, [self] { self->run_next(); });
  };
  if (command.cmd == "subscribe") {
    next.client->subscribed = true;
    reply(Json::object());
    Json first = status();
    first["event"] = "status";
    next.client->send(control_line(first));
    return;
  }
  execute(command.cmd, command.request, std::move(reply));
}

ControlServer::ControlServer(boost::asio::any_io_executor executor, std::string path,
                             Execute execute, Status status)
    : state_(std::make_shared<State>(std::move(executor), std::move(path), std::move(execute),
                                     std::move(status))) {}

ControlServer::~ControlServer() {
  stop();
}

Result<void> ControlServer::start() {
  BOOST_OUTCOME_TRY(auto listener, UnixListener::open(state_->path, 0600));
  const int fd = listener.take_fd().release();
  state_->listener.emplace(std::move(listener));
  ErrorCode e;
  state_->acceptor.assign(boost::asio::local::stream_protocol(), fd, e);
  if (e) {
    ::close(fd);
    return Error("control socket " + state_->path + ": " + e.message(), e.value());
  }
  state_->accept();
  return success();
}

void ControlServer::broadcast(const Json& event) {
  const std::string line = control_line(event);
  for (const auto& client : state_->clients)
    if (client->subscribed && !client->closing) client->send(line);
}

bool ControlServer::idle() const {
  if (state_->running || !state_->waiting.empty()) return false;
  return std::all_of(state_->clients.begin(), state_->clients.end(),
                     [](const auto& client) { return client->output.empty(); });
}

void ControlServer::stop() {
  if (state_->stopped) return;
  state_->stopped = true;
  ErrorCode ignored;
  state_->acceptor.close(ignored);
  state_->listener.reset();
  state_->waiting.clear();
  for (const auto& client : state_->clients) {
    client->closing = true;
    if (!client->writing) client->close();
  }
}

}  // namespace havm
