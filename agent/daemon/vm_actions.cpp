#include "agent/daemon/vm_actions.hpp"

#include <algorithm>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <unistd.h>

#include "agent/daemon/guard_link.hpp"
#include "agent/daemon/peer_client.hpp"
#include "agent/daemon/resync_queue.hpp"
#include "agent/failover/arbiter.hpp"
#include "hypervisor/hypervisor.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

constexpr milliseconds arbiter_deadline{1000};
constexpr milliseconds engine_deadline{20000};
constexpr milliseconds peer_deadline{1000};
constexpr milliseconds start_deadline{60000};
constexpr milliseconds call_deadline{15000};
constexpr milliseconds gone_interval{100};
constexpr int gone_polls_max = 150;

Completed ended(Lane lane, const Result<void>& result) {
  Completed c;
  c.lane = lane;
  if (!result) {
    c.outcome = Completed::Outcome::failed;
    c.error = result.error().message;
  }
  return c;
}

nlohmann::json epoch_argument(Epoch epoch) {
  nlohmann::json arguments;
  arguments["epoch"] = epoch.value;
  return arguments;
}

bool gone(DomainState state) {
  return state == DomainState::shut_off || state == DomainState::crashed;
}

}  // namespace

VmActions::VmActions(NodeContext& node, std::string vm, EngineLink& engine,
                     HypervisorWorker& worker, std::function<const State&()> view,
                     std::function<Result<void>(Epoch)> persist_stopped)
    : node_(node),
      vm_(std::move(vm)),
      engine_(engine),
      worker_(worker),
      view_(std::move(view)),
      persist_stopped_(std::move(persist_stopped)) {}

asio::awaitable<Completed> VmActions::execute(Action action) {
  const Lane lane = lane_of(action);
  auto running = std::visit([this](const auto& a) { return run(a); }, action);
  Completed c = co_await std::move(running);
  c.lane = lane;
  co_return c;
}

// ---- the arbiter
// ------------------------------------------------------------------------------------

Register VmActions::named(const RegisterView& view) const {
  Register r;
  r.epoch = view.epoch;
  r.owner = view.owned() ? node_.self : node_.partner;
  if (view.self_in_sync) r.in_sync.push_back(node_.self);
  if (view.partner_in_sync) r.in_sync.push_back(node_.partner);
  std::sort(r.in_sync.begin(), r.in_sync.end());
  return r;
}

Completed VmActions::answer(const Result<ArbiterAnswer>& result) const {
  Completed c;
  if (!result) {
    c.outcome = Completed::Outcome::unknown;
    c.error = result.error().message;
    return c;
  }
  const ArbiterAnswer& a = result.value();
  c.applied = a.applied;
  if (a.value) {
    RegisterView v;
    v.epoch = a.value->epoch;
    v.owner = a.value->owner == node_.self ? Side::self : Side::partner;
    const auto& members = a.value->in_sync;
    v.self_in_sync = std::find(members.begin(), members.end(), node_.self) != members.end();
    v.partner_in_sync = std::find(members.begin(), members.end(), node_.partner) != members.end();
    c.register_view = v;
  }
  const auto age = a.grant_ages.find(node_.partner);
  if (age != a.grant_ages.end()) c.partner_granted_at = BootClock::now() - age->second;
  return c;
}

asio::awaitable<Completed> VmActions::run(ReadRegister) {
  auto result = co_await node_.arbiter->read(vm_, arbiter_deadline);
  co_return answer(result);
}

asio::awaitable<Completed> VmActions::run(CompareAndSwap action) {
  Register expect = named(action.expect);
  Register to = named(action.to);
  auto result = co_await node_.arbiter->compare_and_swap(vm_, std::move(expect), std::move(to),
                                                         arbiter_deadline);
  co_return answer(result);
}

// ---- the engine
// -------------------------------------------------------------------------------------

asio::awaitable<Completed> VmActions::engine(std::string command, nlohmann::json arguments) {
  auto reply = co_await engine_.call(std::move(command), std::move(arguments), engine_deadline);
  Completed c;
  if (!reply) {
    c.outcome = Completed::Outcome::failed;
    c.error = reply.error().message;
  }
  co_return c;
}

asio::awaitable<Completed> VmActions::run(EnginePromise a) {
  return engine("promise", epoch_argument(a.epoch));
}
asio::awaitable<Completed> VmActions::run(EngineServe a) {
  return engine("serve", epoch_argument(a.epoch));
}
// A resync begins by waiting for its turn. An engine that cannot wait refuses that, and goes.
asio::awaitable<Completed> VmActions::run(EngineConnect) {
  nlohmann::json hold = nlohmann::json::object();
  hold["by"] = "queue";
  hold["reason"] = ResyncQueue::waits_for_turn;
  hold["for_ms"] = ResyncQueue::hold_time.count();
  auto held = co_await engine("resync-pause", std::move(hold));
  static_cast<void>(held);
  co_return co_await engine("connect", nullptr);
}
asio::awaitable<Completed> VmActions::run(EngineLeaveSlowPartner) {
  return engine("leave-slow-partner", nullptr);
}
asio::awaitable<Completed> VmActions::run(EngineFlush) {
  return engine("flush", nullptr);
}
asio::awaitable<Completed> VmActions::run(EngineShrink a) {
  return engine("shrink", epoch_argument(a.epoch));
}
asio::awaitable<Completed> VmActions::run(EngineGrowPrepare a) {
  return engine("grow-prepare", epoch_argument(a.epoch));
}
asio::awaitable<Completed> VmActions::run(EngineGrowCommit a) {
  return engine("grow-commit", epoch_argument(a.epoch));
}
asio::awaitable<Completed> VmActions::run(EngineStandBy a) {
  nlohmann::json arguments = epoch_argument(view_().reg ? view_().reg->epoch : Epoch());
  arguments["outdated"] = a.outdated;
  return engine("stand-by", std::move(arguments));
}

// ---- leases and the partner
// -------------------------------------------------------------------------

asio::awaitable<Completed> VmActions::run(RequireLease a) {
  auto required = node_.guard->require_lease(vm_, a.epoch);
  const bool unwatched = !required && required.error().code == ENOENT && view_().vm == VmState::off;
  if (unwatched) co_return Completed{};
  co_return ended(Lane::storage, required);
}

asio::awaitable<Completed> VmActions::run(PersistStopped a) {
  co_return ended(Lane::storage, persist_stopped_(a.epoch));
}

asio::awaitable<Completed> VmActions::run(AskTakeover a) {
  auto asked = co_await node_.peer->ask_takeover(vm_, a.epoch, peer_deadline);
  co_return ended(Lane::storage, asked);
}

// ---- the VM
// -----------------------------------------------------------------------------------------

asio::awaitable<Result<void>> VmActions::watch(Epoch epoch) {
  const auto find = [hv = node_.hypervisor, vm = vm_] { return hv->process_id(vm); };
  std::function<Result<int>()> call = find;
  auto pid = co_await worker_.run<int>("finding the QEMU process of VM '" + vm_ + "'",
                                       std::move(call), call_deadline);
  if (!pid) co_return pid.error();
  const TimePoint sent = view_().lease_sent.value_or(TimePoint{});
  co_return node_.guard->watch(vm_, pid.value(), epoch, sent);
}

asio::awaitable<Result<void>> VmActions::start_permitted() {
  const auto start_paused = [hv = node_.hypervisor, vm = vm_,
                             xml_path = node_.paths.domain_xml(vm_)]() -> Result<void> {
    auto info = hv->domain_info(vm);
    if (!info && info.error().code == ENOENT) {
      BOOST_OUTCOME_TRY(auto xml, read_file(xml_path));
      BOOST_OUTCOME_TRY(hv->define(xml));
    }
    return hv->start(vm, true);
  };
  std::function<Result<void>()> call = start_paused;
  const std::string permit = node_.paths.permit(vm_);
  auto permitted = replace_file(permit, "start\n");
  if (!permitted) co_return permitted.error();
  auto started =
      co_await worker_.run<void>("starting VM '" + vm_ + "'", std::move(call), start_deadline);
  ::unlink(permit.c_str());
  co_return started;
}

// Guarantee 3 of VmUnit: paused, watched, resumed.
asio::awaitable<Result<void>> VmActions::start_watched(StartVm action) {
  auto started = co_await start_permitted();
  if (!started) co_return started;
  auto watched = co_await watch(action.epoch);
  if (watched && action.alone) watched = node_.guard->alone(vm_, action.epoch);
  if (!watched) co_return watched;
  const auto resume = [hv = node_.hypervisor, vm = vm_] { return hv->resume(vm); };
  std::function<Result<void>()> call = resume;
  co_return co_await worker_.run<void>("resuming VM '" + vm_ + "'", std::move(call), call_deadline);
}

// A start that failed half way leaves no paused QEMU behind.
asio::awaitable<Result<void>> VmActions::start(StartVm action) {
  auto guarded = node_.guard->ensure();
  if (!guarded) co_return guarded.error();
  const std::string mark = node_.paths.start_mark(vm_);
  auto marked = replace_file(mark, "start\n");
  if (!marked) co_return marked.error();
  auto started = co_await start_watched(action);
  if (!started) {
    const auto destroy = [hv = node_.hypervisor, vm = vm_] { return hv->destroy(vm); };
    std::function<Result<void>()> undo = destroy;
    auto undone =
        co_await worker_.run<void>("stopping VM '" + vm_ + "'", std::move(undo), call_deadline);
    static_cast<void>(undone);
  }
  ::unlink(mark.c_str());
  co_return started;
}

asio::awaitable<Completed> VmActions::run(StartVm a) {
  auto started = co_await start(a);
  co_return ended(Lane::vm, started);
}

asio::awaitable<Completed> VmActions::run(ResumeVm) {
  const auto resume = [hv = node_.hypervisor, vm = vm_] { return hv->resume(vm); };
  std::function<Result<void>()> call = resume;
  auto resumed =
      co_await worker_.run<void>("resuming VM '" + vm_ + "'", std::move(call), call_deadline);
  co_return ended(Lane::vm, resumed);
}

asio::awaitable<Completed> VmActions::run(PauseVm) {
  auto watched = co_await watch(view_().engine ? view_().engine->epoch : Epoch());
  if (!watched) co_return ended(Lane::vm, watched);
  co_return ended(Lane::vm, node_.guard->stop(vm_));
}

asio::awaitable<Completed> VmActions::run(KillVm) {
  auto watched = co_await watch(view_().engine ? view_().engine->epoch : Epoch());
  if (watched) watched = node_.guard->kill(vm_);
  const bool already_gone = !watched && watched.error().code == ENOENT;
  if (!watched && !already_gone) co_return ended(Lane::vm, watched);
  for (int i = 0; i < gone_polls_max; ++i) {
    const auto look = [hv = node_.hypervisor, vm = vm_] { return hv->domain_info(vm); };
    std::function<Result<DomainInfo>()> call = look;
    auto info = co_await worker_.run<DomainInfo>("looking at VM '" + vm_ + "'", std::move(call),
                                                 call_deadline);
    const bool undefined = !info && info.error().code == ENOENT;
    if (undefined || (info && gone(info.value().state))) {
      auto forgotten = node_.guard->forget(vm_);
      static_cast<void>(forgotten);
      co_return Completed{};
    }
    asio::steady_timer timer(node_.executor, gone_interval);
    constexpr auto as_result = asio::as_tuple(asio::use_awaitable);
    auto waited = co_await timer.async_wait(as_result);
    static_cast<void>(waited);
  }
  co_return ended(Lane::vm,
                  Error("libvirt still shows VM '" + vm_ + "' although its QEMU was killed"));
}

asio::awaitable<Completed> VmActions::run(ShutdownVm) {
  const auto shutdown = [hv = node_.hypervisor, vm = vm_] { return hv->shutdown(vm); };
  std::function<Result<void>()> call = shutdown;
  auto asked = co_await worker_.run<void>("asking VM '" + vm_ + "' to shut down", std::move(call),
                                          call_deadline);
  co_return ended(Lane::vm, asked);
}

}  // namespace havm
