// The job of ControlServer: the engine's side of docs/protocol/engine-control.md: newline JSON over
// a unix stream socket, many clients, commands executed one after the other in order of arrival.
//
// Guarantees
//  1. Every line is answered: what is no command is told so (with `id` null when it has none), a
//  line
//     longer than line_bytes_max ends the connection after its error reply.
//  2. The next command starts only when the one before has been answered. A client that goes away
//     does not undo its commands.
//  3. A client that subscribed gets a `status` event and then every broadcast, in order. One that
//  does
//     not read (more than output_bytes_max wait for it) is disconnected.
// The socket file has mode 0600; a stale one is replaced, a living one refused. One thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <nlohmann/json.hpp>

#include "vmrepl/base/result.hpp"

namespace havm {

class ControlServer {
 public:
  static constexpr std::size_t line_bytes_max = std::size_t{1} << 20;
  static constexpr std::size_t output_bytes_max = std::size_t{4} << 20;
  static constexpr std::size_t clients_max = 32;
  static constexpr std::size_t waiting_commands_max = 256;

  using Reply = std::function<void(const Result<nlohmann::json>& outcome)>;
  // Executes one command (all but `subscribe`) and calls reply once, now or later.
  using Execute =
      std::function<void(const std::string& cmd, const nlohmann::json& request, Reply reply)>;
  // The first event of a subscriber.
  using Status = std::function<nlohmann::json()>;

  ControlServer(boost::asio::any_io_executor executor, std::string path, Execute execute,
                Status status);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  Result<void> start();
  void broadcast(const nlohmann::json& event);
  // No command is waiting or running, and every reply has been written.
  [[nodiscard]] bool idle() const;
  // Replies that are queued are still written as far as the sockets take them.
  void stop();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace havm
