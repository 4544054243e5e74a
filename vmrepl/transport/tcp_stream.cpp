#include "vmrepl/transport/tcp_stream.hpp"

#include <cerrno>
#include <cstring>

#include <sys/socket.h>

namespace havm {
namespace {

msghdr message_of(std::span<const iovec> parts) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());  // only read by the kernel
  message.msg_iovlen = parts.size();
  return message;
}

}  // namespace

StreamStep receive_now(int fd, std::span<const iovec> parts) {
  msghdr message = message_of(parts);
  ssize_t n = 0;
  do {
    n = ::recvmsg(fd, &message, MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n > 0) return StreamStep::moved(static_cast<std::size_t>(n));
  if (n == 0) return StreamStep::ended("the other side closed the connection");
  if (errno == EAGAIN) return StreamStep::blocked();
  return StreamStep::failed(std::string("receiving failed: ") + std::strerror(errno));
}

StreamStep send_now(int fd, std::span<const iovec> parts) {
  msghdr message = message_of(parts);
  ssize_t n = 0;
  do {
    n = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n >= 0) return StreamStep::moved(static_cast<std::size_t>(n));
  if (errno == EAGAIN) return StreamStep::blocked();
  return StreamStep::failed(std::string("sending failed: ") + std::strerror(errno));
}

StreamStep TcpStream::read(std::span<const iovec> parts) {
  return receive_now(socket_.native_handle(), parts);
}

StreamStep TcpStream::write(std::span<const iovec> parts) {
  if (parts.empty()) return StreamStep::moved(0);
  return send_now(socket_.native_handle(), parts);
}

void TcpStream::end_sending() {
  boost::system::error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
}

void TcpStream::close() {
  boost::system::error_code ignored;
  socket_.close(ignored);
}

}  // namespace havm
