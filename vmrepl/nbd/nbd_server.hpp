// The job of NbdServer: serve one BlockService to QEMU (and to any NBD client) on a unix stream
// socket.
//
// Guarantees
//  1. A request reaches the service only when it is valid: inside the disk, aligned, known flags.
//  2. The reply of a request is sent only after its `done`; an error of the service is told as it
//     is.
//  3. A request that the service holds is never failed: it stays unanswered, and stop() or the
//     client's end drops its connection. A `done` that comes after that does nothing.
//  4. stop() returns with the socket file gone, no connection open, and no further call of the
//     service or of on_clients_changed. start() and stop() may alternate for ever.
//  5. What one connection may occupy is bounded (nbd_connection.hpp); so are the connections.
// The service outlives the server. One thread: that of the io_context. Both on_clients_changed and
// the service may call stop() from inside a call of this server, but may not destroy it there.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include <boost/asio/io_context.hpp>
#include <sys/types.h>

#include "vmrepl/base/result.hpp"
#include "vmrepl/nbd/block_service.hpp"

namespace havm {

inline constexpr std::size_t nbd_connections_max = 16;

struct NbdServerOptions {
  std::string socket_path;
  // Clients ask for this name or for the default export "".
  std::string export_name;
  mode_t socket_mode = 0600;
  // A connection that is no client after this time is dropped.
  std::chrono::milliseconds handshake_timeout{10'000};
  // Named in messages: which disk of which VM this is.
  std::string label;
};

class NbdServer {
 public:
  using ClientsChanged = std::function<void(std::size_t clients)>;

  NbdServer(boost::asio::io_context& io, BlockService& service, NbdServerOptions options);
  NbdServer(const NbdServer&) = delete;
  NbdServer& operator=(const NbdServer&) = delete;
  // Stops; on_clients_changed is not called.
  ~NbdServer();

  // Replaces a stale socket file. Refused when a living server listens there, when the path is
  // another kind of file, or when the size of the disk is not a multiple of its alignment.
  // Idempotent.
  Result<void> start();
  void stop();
  [[nodiscard]] bool serving() const;

  // Connections that finished the handshake and may send requests.
  [[nodiscard]] std::size_t clients() const;
  // Called after each change of clients(), also by stop().
  void on_clients_changed(ClientsChanged callback);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace havm
