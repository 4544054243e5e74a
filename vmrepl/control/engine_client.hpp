// The job of EngineClient: one control connection to the engine (havm-repl) of one VM, for the
// agent. It speaks docs/protocol/engine-control.md: newline JSON over a unix stream socket.
//
// Guarantees
//  1. Every call() ends: with the reply's `result`, with an Error that carries the engine's own
//  sentence
//     (code 0), with Error.code = ETIMEDOUT after its deadline, or ENOTCONN when the connection is
//     gone. A call that timed out may still be executed by the engine: ask `status` before acting
//     on it.
//  2. Events arrive on on_event in the order the engine sent them, after `subscribe` was called.
//  3. on_lost is called exactly once for each connection that was up and ended, except by close()
//  or
//     by destruction. It may call connect() again only from a later turn of the executor.
// Handlers run on the executor given; never from inside connect/call/close themselves. One thread.
// Several calls may be in flight. Destroying the client with calls in flight ends them with
// ENOTCONN.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <nlohmann/json.hpp>

#include "vmrepl/base/result.hpp"

namespace havm {

class EngineClient {
 public:
  using EventHandler = std::function<void(const nlohmann::json& event)>;
  using LostHandler = std::function<void(const std::string& reason)>;

  static constexpr std::size_t max_line_bytes = std::size_t{1} << 20;
  static constexpr std::size_t max_calls_in_flight = 64;

  explicit EngineClient(boost::asio::any_io_executor executor);
  ~EngineClient();
  EngineClient(const EngineClient&) = delete;
  EngineClient& operator=(const EngineClient&) = delete;

  // Set both before connect().
  void on_event(EventHandler handler);
  void on_lost(LostHandler handler);

  // Connects to the socket file `path`. A connection that is still up is closed first.
  boost::asio::awaitable<Result<void>> connect(std::string path);

  // Sends `{"id", "cmd": cmd, …args}` and waits for the reply; the value is its `result` (an
  // object, empty when the engine sent none). `args` is an object or null.
  boost::asio::awaitable<Result<nlohmann::json>> call(std::string cmd, nlohmann::json args,
                                                      std::chrono::milliseconds deadline);

  void close();
  [[nodiscard]] bool connected() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace havm
