// The job of NbdTestClient: a raw NBD client in the thread of the server under test. It never
// blocks: while it waits it runs the io_context, for at most a few seconds (then the test fails).
#pragma once

#include <functional>
#include <span>
#include <string>

#include <boost/asio/io_context.hpp>

#include "tests/unit/vmrepl/nbd/nbd_client_bytes.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm::nbd_test {

// Runs `io` until `condition` holds; false when it does not within the time limit.
bool run_until(boost::asio::io_context& io, const std::function<bool()>& condition);

class NbdTestClient {
 public:
  NbdTestClient(boost::asio::io_context& io, const std::string& socket_path);

  [[nodiscard]] bool connected() const { return fd_.valid(); }
  // False when the server closed the connection or takes nothing.
  bool send(std::span<const std::byte> bytes);
  // Exactly `count` bytes, fewer when the server closed the connection or sends no more.
  Bytes receive(std::size_t count);
  // The server closed the connection (unread bytes are thrown away).
  bool sees_end();
  // Nothing arrives while the server has nothing more to do.
  bool sees_silence();
  void close() { fd_.reset(); }

  // The whole handshake with the default export; false when it did not go as it must.
  bool go(bool structured, bool block_status = false);

  struct SimpleReply {
    std::uint32_t magic = 0;
    std::uint32_t error = 0;
    std::uint64_t cookie = 0;
  };
  SimpleReply simple_reply();

  struct Chunk {
    std::uint32_t magic = 0;
    std::uint16_t flags = 0;
    std::uint16_t type = 0;
    std::uint64_t cookie = 0;
    Bytes payload;
  };
  Chunk chunk();

 private:
  boost::asio::io_context& io_;
  UniqueFd fd_;
};

}  // namespace havm::nbd_test
