// The job of TcpStream: a ByteStream that is the TCP connection itself, one system call for each
// step. No protection: for measurements and tests.
#pragma once

#include "vmrepl/transport/byte_stream.hpp"

namespace havm {

// sendmsg and recvmsg on a socket without waiting; an interrupted call is repeated.
StreamStep receive_now(int fd, std::span<const iovec> parts);
StreamStep send_now(int fd, std::span<const iovec> parts);

class TcpStream final : public ByteStream {
 public:
  explicit TcpStream(Socket socket) : socket_(std::move(socket)) {}

  Socket& socket() override { return socket_; }
  StreamStep read(std::span<const iovec> parts) override;
  StreamStep write(std::span<const iovec> parts) override;
  [[nodiscard]] bool has_unread() const override { return false; }
  [[nodiscard]] bool has_unsent() const override { return false; }
  void end_sending() override;
  void close() override;

 private:
  Socket socket_;
};

}  // namespace havm
