// The job of EngineLink: keep the engine (havm-repl) of one VM running, stay connected to it and
// know its state.
//
// Guarantees
//  1. An engine that already runs is adopted, never started twice (the engine itself locks its
//  record).
//  2. `changed` is called after every change of what the engine says of itself, and with nullopt
//  when it does not
//     answer; after a call() it has been called before the call returns.
// One thread. Stops trying when destroyed; the engine goes on.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/awaitable.hpp>
#include <nlohmann/json.hpp>

#include "agent/daemon/node_context.hpp"
#include "agent/failover/failover_types.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

// The engine's `status` as the failover core sees it; `received` is when it arrived.
Result<EngineView> parse_engine_status(const nlohmann::json& status, TimePoint received);

class EngineLink {
 public:
  using Changed = std::function<void(std::optional<EngineView> view, const nlohmann::json& status)>;

  EngineLink(NodeContext& node, std::string vm, Changed changed);
  ~EngineLink();
  EngineLink(const EngineLink&) = delete;
  EngineLink& operator=(const EngineLink&) = delete;

  boost::asio::awaitable<Result<nlohmann::json>> call(std::string command, nlohmann::json arguments,
                                                      std::chrono::milliseconds deadline);
  // Ends the engine in an orderly way and does not start it again.
  boost::asio::awaitable<Result<void>> quit();

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace havm
