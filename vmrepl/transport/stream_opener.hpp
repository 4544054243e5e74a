// The job of StreamOpener: make a connected socket a ByteStream to the partner: with the TLS
// handshake, or, when no TLS files are given, plain TCP at once.
//
// Guarantees
//  1. open() ends within `deadline`, whatever the other side does (a server that refuses takes one
//     more second, to let its reason arrive); nothing waits but the coroutine.
//  2. An Error says why, for a log line that already names the address; the socket is closed then.
// The object must outlive every open(). One thread.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>

#include "vmrepl/base/result.hpp"
#include "vmrepl/transport/tls_files.hpp"
#include "vmrepl/transport/tls_stream.hpp"

namespace havm {

class StreamOpener {
 public:
  using Socket = ByteStream::Socket;
  using Opened = Result<std::unique_ptr<ByteStream>>;
  static constexpr std::chrono::seconds refusal_linger{1};

  StreamOpener(std::optional<TlsFiles> tls, std::string node, std::string partner,
               std::chrono::milliseconds deadline)
      : tls_(std::move(tls)),
        node_(std::move(node)),
        partner_(std::move(partner)),
        deadline_(deadline) {}

  [[nodiscard]] bool is_tls() const { return tls_.has_value(); }
  boost::asio::awaitable<Opened> open(Socket socket, TlsRole role) const;

 private:
  using Timer = boost::asio::steady_timer;

  boost::asio::awaitable<Result<void>> shake_hands(TlsStream& stream, Timer& deadline) const;
  [[nodiscard]] Error too_late() const;

  std::optional<TlsFiles> tls_;
  std::string node_;
  std::string partner_;
  std::chrono::milliseconds deadline_;
};

}  // namespace havm
