// The job of TcpProxy: a bad network between two engines: a TCP proxy on loopback, with a thread of
// its own, that delays, swallows, damages, cuts and reorders what passes. Without a fault it passes
// everything.
//
// Guarantees
//  1. Each way of each connection keeps its order; only a fault changes, drops or holds bytes.
//  2. A connection that has swallowed bytes never passes any of that way again: TCP loses
//     connections, not bytes. heal() is for the connections that come after.
//  3. A call has taken effect when it returns.
// To be called from one thread, which is not the proxy's.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <thread>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

namespace havm {

class TcpProxy {
 public:
  enum class Way : std::uint8_t { to_server, to_client };

  // Listens on a free port of 127.0.0.1 for connections to `server_port` there.
  explicit TcpProxy(std::uint16_t server_port);
  ~TcpProxy();
  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;

  [[nodiscard]] std::uint16_t port() const { return port_; }

  // On all connections, present and new, until heal().
  void delay(Way way, std::chrono::milliseconds time);
  // One way: half-open. Both ways: accepted and never heard of again.
  void swallow(Way way);
  // Once, on the connection that carries the byte with this number, counted from now.
  void corrupt(Way way, std::uint64_t byte);
  void cut(Way way, std::uint64_t byte);
  // All connections end now.
  void cut_all();
  void heal();

  // The present connections leave the line: what their clients send, and that they end, is kept
  // back, while newer connections pass.
  void set_aside();
  // What was kept back reaches the server now; the number of bytes.
  std::uint64_t deliver_aside();

  // Damaged bytes, and cuts by cut(), so far.
  [[nodiscard]] std::uint64_t corrupted();
  [[nodiscard]] std::uint64_t cuts();
  [[nodiscard]] std::uint64_t connections();  // accepted so far

 private:
  class Connection;
  struct Line {  // one way, for all connections
    std::chrono::milliseconds delay{0};
    bool swallow = false;
    std::optional<std::uint64_t> corrupt_in;  // bytes before the one to be damaged
    std::optional<std::uint64_t> cut_in;
  };
  using Tcp = boost::asio::ip::tcp;

  void accept();
  void run_there(const std::function<void()>& what);
  Line& line(Way way) { return lines_[static_cast<std::size_t>(way)]; }

  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  Tcp::acceptor acceptor_;
  Tcp::endpoint server_;
  std::uint16_t port_ = 0;
  std::array<Line, 2> lines_;
  std::set<std::shared_ptr<Connection>> connections_;
  std::uint64_t accepted_ = 0;
  std::uint64_t corrupted_ = 0;
  std::uint64_t cuts_ = 0;
  std::thread thread_;
};

}  // namespace havm
