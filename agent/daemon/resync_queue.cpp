#include "agent/daemon/resync_queue.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/spdlog.h>

#include "agent/daemon/havmd.hpp"
#include "vmrepl/base/spawn_supervised.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

constexpr milliseconds engine_deadline{5000};

bool is(const nlohmann::json& object, const char* key) {
  return object.contains(key) && object[key].is_boolean() && object[key].get<bool>();
}

// `sync` of an engine that is owner; what it does not tell counts as nothing to do.
bool wants_a_turn(const nlohmann::json& sync) {
  return sync.is_object() && is(sync, "active") && !is(sync, "paused");
}

QueuedResync entry_of(const std::string& vm, const nlohmann::json& sync) {
  return {vm, sync.contains("state") && sync["state"] == "running"};
}

const nlohmann::json& sync_of(const nlohmann::json& status) {
  static const nlohmann::json none;
  if (!status.is_object() || !status.contains("sync")) return none;
  return status["sync"];
}

// Owner of a VM whose partner may lack something.
bool may_resync(const VmUnit& unit) {
  const State& s = unit.state();
  if (!s.engine || s.engine->role != EngineRole::owner) return false;
  return s.engine->session != SessionState::live && s.engine->session != SessionState::synced;
}

}  // namespace

ResyncQueue::ResyncQueue(Havmd& daemon) : daemon_(daemon), timer_(daemon.node().executor) {}

void ResyncQueue::start() {
  spawn_supervised(daemon_.node().executor, "resync-queue", loop());
}

asio::awaitable<void> ResyncQueue::loop() {
  constexpr auto as_result = asio::as_tuple(asio::use_awaitable);
  while (true) {
    look();
    timer_.expires_after(interval);
    auto waited = co_await timer_.async_wait(as_result);
    if (std::get<0>(waited)) co_return;
  }
}

void ResyncQueue::look() {
  std::vector<QueuedResync> own;
  std::vector<QueuedResync> partners;
  for (const auto& [vm, unit] : daemon_.units()) {
    if (may_resync(*unit)) {
      const nlohmann::json& sync = sync_of(unit->engine_status());
      if (wants_a_turn(sync)) own.push_back(entry_of(vm, sync));
      continue;
    }
    const nlohmann::json& told = sync_of(daemon_.partner_report().vm(vm));
    if (wants_a_turn(told)) partners.push_back(entry_of(vm, told));
  }
  const auto verdicts = decide_resync_queue(daemon_.node().cluster.resyncs_at_once, own, partners);
  for (const auto& [vm, unit] : daemon_.units()) {
    if (!may_resync(*unit)) continue;
    bool go = false;
    std::string reason = waits_for_turn;
    for (const QueueVerdict& v : verdicts) {
      if (v.vm != vm) continue;
      go = v.go;
      reason = v.reason;
    }
    carry_out(*unit, go, reason);
  }
}

void ResyncQueue::carry_out(const VmUnit& unit, bool go, const std::string& reason) {
  const std::string vm = unit.definition().vm;
  const nlohmann::json& sync = sync_of(unit.engine_status());
  const bool can_wait = sync.is_object() && sync.contains("active");  // an older engine cannot
  if (!can_wait || telling_.contains(vm)) return;
  const bool held = sync.contains("queued_for_ms") && sync["queued_for_ms"].is_number();
  nlohmann::json arguments = nlohmann::json::object();
  arguments["by"] = "queue";
  std::string command = "resync-resume";
  if (go && !held) return;
  if (!go) {
    const bool paused = is(sync, "paused");
    const bool same = paused || (sync.contains("reason") && sync["reason"] == reason);
    if (held && same && sync["queued_for_ms"].get<std::int64_t>() > renew_before.count()) return;
    command = "resync-pause";
    arguments["reason"] = reason;
    arguments["for_ms"] = hold_time.count();
  }
  telling_.insert(vm);
  spawn_supervised(daemon_.node().executor, "resync-queue " + vm,
                   tell(vm, std::move(command), std::move(arguments)));
}

asio::awaitable<void> ResyncQueue::tell(std::string vm, std::string command,
                                        nlohmann::json arguments) {
  if (VmUnit* const unit = daemon_.find(vm)) {
    auto told =
        co_await unit->call_engine(std::move(command), std::move(arguments), engine_deadline);
    // It may have stopped being owner meanwhile; the next look knows.
    if (!told) spdlog::warn("vm={} the resync queue: {}", vm, told.error().message);
  }
  telling_.erase(vm);
}

}  // namespace havm
