#include "tests/unit/vmrepl/session/tcp_proxy.hpp"

#include <deque>
#include <future>
#include <utility>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

namespace havm {
namespace {

using Clock = std::chrono::steady_clock;
using Failure = boost::system::error_code;

constexpr std::size_t read_bytes = 64U << 10;
// Of one way; beyond it the sender is made to wait.
constexpr std::size_t queued_bytes_max = 4U << 20;

}  // namespace

class TcpProxy::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(TcpProxy& proxy, Tcp::socket client)
      : proxy_(proxy), client_(std::move(client)), server_(proxy.io_) {
    for (Half& h : halves_)
      h.timer = std::make_unique<boost::asio::steady_timer>(proxy.io_);
  }

  void start() {
    Failure ignored;
    client_.set_option(Tcp::no_delay(true), ignored);
    server_.async_connect(proxy_.server_, [self = shared_from_this()](const Failure& e) {
      if (e) return self->end();
      Failure no_matter;
      self->server_.set_option(Tcp::no_delay(true), no_matter);
      self->receive(Way::to_server);
      self->receive(Way::to_client);
    });
  }

  void end() {
    if (std::exchange(ended_, true)) return;
    Failure ignored;
    client_.close(ignored);
    server_.close(ignored);
    for (Half& h : halves_)
      h.timer->cancel();
    boost::asio::post(proxy_.io_,
                      [self = shared_from_this()] { self->proxy_.connections_.erase(self); });
  }

  void set_aside() { aside_ = true; }
  std::uint64_t deliver() {
    if (!std::exchange(aside_, false)) return 0;
    std::uint64_t bytes = 0;
    for (Piece& p : kept_) {
      bytes += p.bytes.size();
      half(Way::to_server).queue.push_back(std::move(p));
    }
    kept_.clear();
    pass(Way::to_server);
    return bytes;
  }

 private:
  struct Piece {
    std::vector<std::byte> bytes;
    Clock::time_point due;
    enum class End : std::uint8_t { none, stream, connection } then = End::none;
  };
  struct Half {
    std::vector<std::byte> area = std::vector<std::byte>(read_bytes);
    std::deque<Piece> queue;
    std::size_t queued = 0;
    bool receiving = false;
    bool over = false;  // nothing more comes from the sender
    bool writing = false;
    bool dead = false;
    std::unique_ptr<boost::asio::steady_timer> timer;
  };

  Half& half(Way way) { return halves_[static_cast<std::size_t>(way)]; }
  Tcp::socket& from(Way way) { return way == Way::to_server ? client_ : server_; }
  Tcp::socket& to(Way way) { return way == Way::to_server ? server_ : client_; }

  void receive(Way way) {
    Half& h = half(way);
    if (ended_ || h.over || h.receiving || h.queued > queued_bytes_max) return;
    h.receiving = true;
    from(way).async_read_some(boost::asio::buffer(h.area),
                              [self = shared_from_this(), way](const Failure& e, std::size_t n) {
                                self->half(way).receiving = false;
                                self->received(way, e, n);
                              });
  }

  void received(Way way, const Failure& e, std::size_t n) {
    if (ended_) return;
    Half& h = half(way);
    Line& line = proxy_.line(way);
    Piece piece;
    piece.due = Clock::now() + line.delay;
    if (e) {
      h.over = true;
      piece.then = e == boost::asio::error::eof ? Piece::End::stream : Piece::End::connection;
    }
    h.dead = h.dead || line.swallow;
    if (h.dead) return receive(way);
    if (line.corrupt_in && *line.corrupt_in < n) {
      h.area[*line.corrupt_in] ^= std::byte{0x10};
      ++proxy_.corrupted_;
      line.corrupt_in.reset();
    } else if (line.corrupt_in) {
      *line.corrupt_in -= n;
    }
    if (line.cut_in && *line.cut_in < n) {
      n = *line.cut_in;
      h.over = true;
      piece.then = Piece::End::connection;
      ++proxy_.cuts_;
      line.cut_in.reset();
    } else if (line.cut_in) {
      *line.cut_in -= n;
    }
    piece.bytes.assign(h.area.begin(), h.area.begin() + static_cast<std::ptrdiff_t>(n));
    h.queued += n;
    const bool kept = aside_ && way == Way::to_server;
    (kept ? kept_ : h.queue).push_back(std::move(piece));
    if (!kept) pass(way);
    receive(way);
  }

  void pass(Way way) {
    Half& h = half(way);
    if (ended_ || h.writing || h.queue.empty()) return;
    h.writing = true;
    h.timer->expires_at(h.queue.front().due);
    h.timer->async_wait([self = shared_from_this(), way](const Failure&) {
      if (!self->ended_) self->write(way);
    });
  }

  void write(Way way) {
    Piece& piece = half(way).queue.front();
    boost::asio::async_write(
        to(way), boost::asio::buffer(piece.bytes),
        [self = shared_from_this(), way](const Failure& e, std::size_t) { self->written(way, e); });
  }

  void written(Way way, const Failure& e) {
    if (ended_) return;
    Half& h = half(way);
    const Piece piece = std::move(h.queue.front());
    h.queue.pop_front();
    h.queued -= piece.bytes.size();
    h.writing = false;
    // A client that went away while it is set aside is not to be seen by the server.
    if (e && !(aside_ && way == Way::to_client)) return end();
    if (piece.then == Piece::End::connection) return end();
    if (piece.then == Piece::End::stream) {
      Failure ignored;
      to(way).shutdown(Tcp::socket::shutdown_send, ignored);
      if (!aside_ && half(Way::to_server).over && half(Way::to_client).over &&
          half(Way::to_server).queue.empty() && half(Way::to_client).queue.empty())
        return end();
    }
    pass(way);
    receive(way);
  }

  TcpProxy& proxy_;
  Tcp::socket client_;
  Tcp::socket server_;
  std::array<Half, 2> halves_;
  std::deque<Piece> kept_;
  bool aside_ = false;
  bool ended_ = false;
};

TcpProxy::TcpProxy(std::uint16_t server_port)
    : work_(io_.get_executor()),
      acceptor_(io_, Tcp::endpoint(boost::asio::ip::address_v4::loopback(), 0)),
      server_(boost::asio::ip::address_v4::loopback(), server_port),
      port_(acceptor_.local_endpoint().port()) {
  accept();
  thread_ = std::thread([this] { io_.run(); });
}

TcpProxy::~TcpProxy() {
  io_.stop();
  thread_.join();
  connections_.clear();
}

void TcpProxy::accept() {
  acceptor_.async_accept([this](const Failure& e, Tcp::socket socket) {
    if (e == boost::asio::error::operation_aborted) return;
    if (!e) {
      ++accepted_;
      const auto connection = std::make_shared<Connection>(*this, std::move(socket));
      connections_.insert(connection);
      connection->start();
    }
    accept();
  });
}

void TcpProxy::run_there(const std::function<void()>& what) {
  std::promise<void> done;
  boost::asio::post(io_, [&] {
    what();
    done.set_value();
  });
  done.get_future().wait();
}

void TcpProxy::delay(Way way, std::chrono::milliseconds time) {
  run_there([&] { line(way).delay = time; });
}

void TcpProxy::swallow(Way way) {
  run_there([&] { line(way).swallow = true; });
}

void TcpProxy::corrupt(Way way, std::uint64_t byte) {
  run_there([&] { line(way).corrupt_in = byte; });
}

void TcpProxy::cut(Way way, std::uint64_t byte) {
  run_there([&] { line(way).cut_in = byte; });
}

void TcpProxy::cut_all() {
  run_there([&] {
    for (const auto& connection : connections_)
      connection->end();
  });
}

void TcpProxy::heal() {
  run_there([&] { lines_ = {}; });
}

void TcpProxy::set_aside() {
  run_there([&] {
    for (const auto& connection : connections_)
      connection->set_aside();
  });
}

std::uint64_t TcpProxy::deliver_aside() {
  std::uint64_t bytes = 0;
  run_there([&] {
    for (const auto& connection : connections_)
      bytes += connection->deliver();
  });
  return bytes;
}

std::uint64_t TcpProxy::corrupted() {
  std::uint64_t n = 0;
  run_there([&] { n = corrupted_; });
  return n;
}

std::uint64_t TcpProxy::cuts() {
  std::uint64_t n = 0;
  run_there([&] { n = cuts_; });
  return n;
}

std::uint64_t TcpProxy::connections() {
  std::uint64_t n = 0;
  run_there([&] { n = accepted_; });
  return n;
}

}  // namespace havm
