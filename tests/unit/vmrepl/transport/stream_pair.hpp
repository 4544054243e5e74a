// The job of StreamPair: two ends of one loopback TCP connection, opened as streams at the same
// time, and what became of each.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/io_context.hpp>

#include "vmrepl/transport/stream_opener.hpp"

namespace havm {

struct SocketPair {
  ByteStream::Socket client;
  ByteStream::Socket server;
};
SocketPair connect_sockets(boost::asio::io_context& io);

// Runs the loop in small pieces until it holds; false after some seconds.
bool run_loop_until(boost::asio::io_context& io, const std::function<bool()>& condition);

class StreamPair {
 public:
  using Opened = StreamOpener::Opened;

  // Starts both; run() ends when both are open or refused.
  StreamPair(boost::asio::io_context& io, const StreamOpener& client, const StreamOpener& server);
  bool run();

  [[nodiscard]] Opened& client() { return *client_; }
  [[nodiscard]] Opened& server() { return *server_; }
  // Why an end is not usable: its refusal, or what its first read says; "" when it is usable.
  static std::string problem(boost::asio::io_context& io, Opened& end);

 private:
  boost::asio::io_context& io_;
  std::optional<Opened> client_;
  std::optional<Opened> server_;
};

// Opens one socket alone.
void start_opening(boost::asio::io_context& io, const StreamOpener& opener,
                   ByteStream::Socket socket, TlsRole role,
                   std::optional<StreamOpener::Opened>& into);

}  // namespace havm
