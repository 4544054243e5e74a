// The job of ByteStream: the bytes between two engines, whatever carries them: plain TCP
// (TcpStream) or TLS (TlsStream).
//
// Guarantees
//  1. No call waits. What cannot be moved now is `blocked`; the caller waits on socket(), for
//     reading after a read, for writing after a write.
//  2. What write() took is copied or sent: the caller may change it at once.
//  3. has_unread(): bytes may be had although the socket shows none; read() before waiting.
//     has_unsent(): bytes that write() took are not in the socket yet; write(), also without parts,
//     goes on with them.
// One thread.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include <boost/asio/ip/tcp.hpp>
#include <sys/uio.h>

namespace havm {

struct StreamStep {
  enum class Kind {
    moved,    // `bytes`; of a read at least one
    blocked,  // nothing now
    ended,    // read: the other side has closed its end in order
    failed,
  };
  Kind kind = Kind::moved;
  std::size_t bytes = 0;
  std::string why;  // of ended and failed

  static StreamStep moved(std::size_t bytes) { return {Kind::moved, bytes, {}}; }
  static StreamStep blocked() { return {Kind::blocked, 0, {}}; }
  static StreamStep ended(std::string why) { return {Kind::ended, 0, std::move(why)}; }
  static StreamStep failed(std::string why) { return {Kind::failed, 0, std::move(why)}; }
};

class ByteStream {
 public:
  using Socket = boost::asio::ip::tcp::socket;

  ByteStream() = default;
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;
  virtual ~ByteStream() = default;

  // For waiting and for options.
  virtual Socket& socket() = 0;
  virtual StreamStep read(std::span<const iovec> parts) = 0;
  virtual StreamStep write(std::span<const iovec> parts) = 0;
  [[nodiscard]] virtual bool has_unread() const = 0;
  [[nodiscard]] virtual bool has_unsent() const = 0;
  // Nothing more will be written; reading goes on.
  virtual void end_sending() = 0;
  virtual void close() = 0;
};

}  // namespace havm
