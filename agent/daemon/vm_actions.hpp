// The job of VmActions: carry out one action of the failover core and answer it with one Completed
// event. It decides nothing. One thread; every call ends (each step has a deadline).
#pragma once

#include <functional>
#include <string>

#include <boost/asio/awaitable.hpp>

#include "agent/daemon/engine_link.hpp"
#include "agent/daemon/hypervisor_worker.hpp"
#include "agent/daemon/node_context.hpp"
#include "agent/failover/failover_state.hpp"

namespace havm {

struct Register;
struct ArbiterAnswer;

class VmActions {
 public:
  // `view` tells what the core knows at the moment of the call.
  VmActions(NodeContext& node, std::string vm, EngineLink& engine, HypervisorWorker& worker,
            std::function<const State&()> view, std::function<Result<void>(Epoch)> persist_stopped);

  boost::asio::awaitable<Completed> execute(Action action);

 private:
  boost::asio::awaitable<Completed> run(ReadRegister action);
  boost::asio::awaitable<Completed> run(CompareAndSwap action);
  boost::asio::awaitable<Completed> run(EnginePromise action);
  boost::asio::awaitable<Completed> run(EngineServe action);
  boost::asio::awaitable<Completed> run(EngineConnect action);
  boost::asio::awaitable<Completed> run(EngineLeaveSlowPartner action);
  boost::asio::awaitable<Completed> run(EngineFlush action);
  boost::asio::awaitable<Completed> run(EngineShrink action);
  boost::asio::awaitable<Completed> run(EngineGrowPrepare action);
  boost::asio::awaitable<Completed> run(EngineGrowCommit action);
  boost::asio::awaitable<Completed> run(EngineStandBy action);
  boost::asio::awaitable<Completed> run(RequireLease action);
  boost::asio::awaitable<Completed> run(PersistStopped action);
  boost::asio::awaitable<Completed> run(AskTakeover action);
  boost::asio::awaitable<Completed> run(StartVm action);
  boost::asio::awaitable<Completed> run(ResumeVm action);
  boost::asio::awaitable<Completed> run(PauseVm action);
  boost::asio::awaitable<Completed> run(KillVm action);
  boost::asio::awaitable<Completed> run(ShutdownVm action);

  boost::asio::awaitable<Completed> engine(std::string command, nlohmann::json arguments);
  boost::asio::awaitable<Result<void>> start(StartVm action);
  boost::asio::awaitable<Result<void>> start_watched(StartVm action);
  boost::asio::awaitable<Result<void>> start_permitted();
  boost::asio::awaitable<Result<void>> watch(Epoch epoch);
  [[nodiscard]] Register named(const RegisterView& view) const;
  [[nodiscard]] Completed answer(const Result<ArbiterAnswer>& result) const;

  NodeContext& node_;
  std::string vm_;
  EngineLink& engine_;
  HypervisorWorker& worker_;
  std::function<const State&()> view_;
  std::function<Result<void>(Epoch)> persist_stopped_;
};

}  // namespace havm
