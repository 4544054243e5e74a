#include "agent/daemon/vm_unit.hpp"

#include <deque>
#include <filesystem>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "agent/daemon/engine_link.hpp"
#include "agent/daemon/guard_link.hpp"
#include "agent/daemon/history_store.hpp"
#include "agent/daemon/hypervisor_worker.hpp"
#include "agent/daemon/peer_client.hpp"
#include "agent/daemon/vm_actions.hpp"
#include "agent/failover/failover_core.hpp"
#include "hypervisor/hypervisor.hpp"
#include "vmrepl/base/files.hpp"
#include "vmrepl/base/spawn_supervised.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;
constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

constexpr milliseconds tick_interval{100};
constexpr milliseconds look_interval{1000};
constexpr milliseconds look_deadline{10000};

FailoverConfig failover_config(const NodeContext& node, const Policy& policy) {
  const Timing& t = node.cluster.timing;
  FailoverConfig c;
  c.self = node.self;
  c.partner = node.partner;
  c.automatic = policy.failover_mode == FailoverMode::automatic;
  c.freeze_alone = policy.on_peer_loss == OnPeerLoss::freeze;
  c.lease = t.lease;
  c.drift_ppm = t.drift_ppm;
  c.peer_timeout = t.peer_timeout;
  c.boot_grace = t.boot_grace;
  c.register_poll = milliseconds(1000);
  c.handover_timeout = t.lease * 5;
  c.retry_delay = milliseconds(200);
  return c;
}

VmState vm_state(const DomainInfo& info) {
  switch (info.state) {
    case DomainState::running:
    case DomainState::shutting_down:
      return VmState::running;
    case DomainState::paused:
      return info.reason == "I/O error" ? VmState::paused_by_error : VmState::paused;
    case DomainState::shut_off:
      return VmState::off;
    case DomainState::crashed:
    case DomainState::pm_suspended:
      return VmState::paused;
    case DomainState::unknown:
      return VmState::unknown;
  }
  return VmState::unknown;
}

bool ended_by_crash(const DomainInfo& info) {
  return info.reason == "crashed" || info.reason == "failed" || info.reason == "panicked";
}

Desired desired_of(const VmDefinition& d) {
  return d.desired == DesiredState::running ? Desired::running : Desired::off;
}

}  // namespace

Result<NodeNotes> load_node_notes(const std::string& path) {
  auto text = read_file(path);
  if (!text && text.error().code == ENOENT) return NodeNotes{};
  if (!text) return text.error();
  const auto json = nlohmann::json::parse(text.value(), nullptr, false);
  if (!json.is_object() || !json.contains("autostart") || !json["autostart"].is_boolean())
    return Error(path +
                 " is damaged: it must hold what this node promised; restore it or ask for help");
  NodeNotes notes;
  notes.autostart = json["autostart"].get<bool>();
  if (json.contains("stopped_epoch") && json["stopped_epoch"].is_number_unsigned())
    notes.stopped_epoch = Epoch(json["stopped_epoch"].get<std::uint64_t>());
  return notes;
}

Result<void> save_node_notes(const std::string& path, const NodeNotes& notes) {
  nlohmann::json json;
  json["autostart"] = notes.autostart;
  json["stopped_epoch"] = nullptr;
  if (notes.stopped_epoch) json["stopped_epoch"] = notes.stopped_epoch->value;
  return replace_file(path, json.dump(1) + "\n");
}

struct VmUnit::Shared : std::enable_shared_from_this<VmUnit::Shared> {
  Shared(NodeContext& n, VmDefinition d, NodeNotes no)
      : node(n),
        definition(std::move(d)),
        notes(no),
        worker(n.executor),
        core(make_state(failover_config(n, definition.policy), BootClock::now())),
        tick_timer(n.executor),
        look_timer(n.executor) {
    core.desired = desired_of(definition);
    core.stopped_epoch = notes.stopped_epoch;
  }

  NodeContext& node;
  VmDefinition definition;
  NodeNotes notes;
  HypervisorWorker worker;
  State core;
  nlohmann::json engine_status;
  std::string vm_words = "unknown";
  std::string title;
  asio::steady_timer tick_timer;
  asio::steady_timer look_timer;
  std::unique_ptr<EngineLink> engine;
  std::unique_ptr<VmActions> actions;
  std::deque<Event> inbox;
  bool stepping = false;
  bool stopped = false;
  bool watched = false;  // the guard knows the present QEMU
  bool guard_alone = false;
  Epoch guard_epoch;
  std::uint64_t vm_generation =
      0;  // raised by every action on the VM: a look begun before it says nothing

  void deliver(const Event& event);
  void step_once(const Event& event);
  void note(const Decision& decision);
  void keep_desired();
  void sync_guard();
  void adopt_running(int pid);
  void guard_failed(const Error& error);
  void engine_changed(std::optional<EngineView> view, const nlohmann::json& status);
  void looked(const Result<DomainInfo>& info, const Result<int>& pid);

  static asio::awaitable<void> execute(std::shared_ptr<Shared> self, Action action);
  static asio::awaitable<void> tick_loop(std::shared_ptr<Shared> self);
  static asio::awaitable<void> look_loop(std::shared_ptr<Shared> self);
};

// ---- deciding
// ---------------------------------------------------------------------------------------

// Delivering from inside a step (an action that ends at once) is queued, so that steps never nest.
void VmUnit::Shared::deliver(const Event& event) {
  if (stopped) return;
  inbox.push_back(event);
  if (stepping) return;
  stepping = true;
  while (!inbox.empty()) {
    const Event next = std::move(inbox.front());
    inbox.pop_front();
    step_once(next);
  }
  stepping = false;
}

void VmUnit::Shared::step_once(const Event& event) {
  const std::string phase_before = core.phase;
  const std::string reason_before = core.reason;
  const StepResult result = step(core, BootClock::now(), event);
  for (const Decision& d : result.decisions) {
    const bool routine = d.action && std::holds_alternative<ReadRegister>(*d.action);
    if (!routine) note(d);
    if (!d.action) continue;
    if (lane_of(*d.action) == Lane::vm) ++vm_generation;
    spawn_supervised(node.executor, "action " + definition.vm,
                     execute(shared_from_this(), *d.action));
  }
  if (core.phase != phase_before || core.reason != reason_before)
    spdlog::info("vm={} phase={} {}", definition.vm, core.phase, core.reason);
  keep_desired();
  sync_guard();
}

void VmUnit::Shared::note(const Decision& d) {
  spdlog::info("vm={} {}: {}", definition.vm, d.kind, d.reason);
  HistoryEvent e;
  e.vm = definition.vm;
  e.node = node.self;
  e.kind = d.kind;
  e.text = d.reason;
  if (core.reg) e.epoch = core.reg->epoch.value;
  e.at = BootClock::now();
  node.history->append(e);
}

void VmUnit::Shared::keep_desired() {
  if (core.desired == desired_of(definition)) return;
  definition.desired = core.desired == Desired::running ? DesiredState::running : DesiredState::off;
  ++definition.generation;
  auto saved = save_definition(node.paths.definition(definition.vm), definition);
  if (!saved) spdlog::error("vm={} {}", definition.vm, saved.error().message);
  node.peer->push_definition(definition);
}

asio::awaitable<void> VmUnit::Shared::execute(std::shared_ptr<Shared> self, Action action) {
  Completed answer = co_await self->actions->execute(action);
  if (self->stopped) co_return;
  if (lane_of(action) == Lane::vm) ++self->vm_generation;
  if (std::holds_alternative<StartVm>(action))
    self->watched = answer.outcome == Completed::Outcome::ok;
  if (const auto* start = std::get_if<StartVm>(&action)) {
    self->guard_alone = start->alone;
    self->guard_epoch = start->epoch;
  }
  if (std::holds_alternative<KillVm>(action)) self->watched = false;
  const auto* lease = std::get_if<RequireLease>(&action);
  if (lease && answer.outcome == Completed::Outcome::ok) {
    self->guard_alone = false;
    self->guard_epoch = lease->epoch;
  }
  self->deliver(answer);
  if (lane_of(action) == Lane::vm) self->look_timer.cancel();
}

// ---- the guard follows the record
// -------------------------------------------------------------------

// A lease is needed unless the record, written only after the register was known, says that this
// node is alone.
void VmUnit::Shared::sync_guard() {
  if (!watched || !core.engine || core.engine->role != EngineRole::owner) return;
  // From the check that a lease is held until the grow has ended either way, one is needed.
  const bool growing =
      core.lease_required || core.engine->grow_mark ||
      (core.storage_pending && (std::holds_alternative<RequireLease>(*core.storage_pending) ||
                                std::holds_alternative<EngineGrowPrepare>(*core.storage_pending)));
  const bool alone = core.engine->in_sync == RecordedSet::self && !growing;
  const Epoch epoch = core.engine->epoch;
  if (alone == guard_alone && epoch == guard_epoch) return;
  const std::string& vm = definition.vm;
  auto told = alone ? node.guard->alone(vm, epoch) : node.guard->require_lease(vm, epoch);
  if (!told) return guard_failed(told.error());
  guard_alone = alone;
  guard_epoch = epoch;
}

// A guard that is gone, or was started anew, knows nothing: the next look at the VM makes it watch
// again.
void VmUnit::Shared::guard_failed(const Error& error) {
  spdlog::warn("vm={} guard: {}", definition.vm, error.message);
  if (error.code != ENOENT && error.code != ENOTCONN) return;
  watched = false;
  look_timer.cancel();
}

// A VM that runs although this agent did not start it in this life: the guard may know it or not.
void VmUnit::Shared::adopt_running(int pid) {
  if (watched || !core.engine || core.vm_pending) return;
  watched = true;
  guard_epoch = Epoch();
  sync_guard();
  if (watched) return;  // it knows the VM, or nothing has to be told
  auto told = node.guard->watch(definition.vm, pid, core.engine->epoch,
                                core.lease_sent.value_or(TimePoint{}));
  if (!told) return spdlog::warn("vm={} guard: {}", definition.vm, told.error().message);
  watched = true;
  guard_alone = false;
  guard_epoch = core.engine->epoch;
  sync_guard();
}

// ---- what is heard
// ----------------------------------------------------------------------------------

void VmUnit::Shared::engine_changed(std::optional<EngineView> view, const nlohmann::json& status) {
  engine_status = status;
  if (view) {
    const auto& sent = status.at("grant").at("received_sent_ns");
    if (sent.is_number_integer()) deliver(LeaseGranted{from_ns(sent.get<long long>())});
  }
  deliver(EngineChanged{view});
}

void VmUnit::Shared::looked(const Result<DomainInfo>& info, const Result<int>& pid) {
  if (!info && info.error().code != ENOENT) return;  // libvirt does not answer: nothing is known
  VmState now = info ? vm_state(info.value()) : VmState::off;
  // Paused and the mark still there: the agent ended between start and resume. The core lets it go
  // on, or kills it, as it does with a VM that lost its disk.
  const std::string mark = node.paths.start_mark(definition.vm);
  const bool half_started = std::filesystem::exists(mark);
  if (half_started && now == VmState::paused) now = VmState::paused_by_error;
  if (half_started && now != VmState::paused_by_error) ::unlink(mark.c_str());
  vm_words = info ? to_string(info.value().state) : "shut off";
  if (info) title = info.value().title;
  const VmState before = core.vm;
  const bool existed = before != VmState::off && before != VmState::unknown;
  if (now == VmState::off) watched = false;
  if (existed && now == VmState::off) {
    const bool restart = definition.policy.on_guest_shutdown == OnGuestShutdown::restart;
    return deliver(VmEnded{!info || restart || ended_by_crash(info.value())});
  }
  if (now != VmState::off && pid) adopt_running(pid.value());
  if (now != before) deliver(VmChanged{now});
}

asio::awaitable<void> VmUnit::Shared::look_loop(std::shared_ptr<Shared> self) {
  while (!self->stopped) {
    if (!self->core.vm_pending) {
      const std::uint64_t generation = self->vm_generation;
      const std::string vm = self->definition.vm;
      Hypervisor* const hv = self->node.hypervisor;
      std::function<Result<DomainInfo>()> look = [hv, vm] { return hv->domain_info(vm); };
      std::function<Result<int>()> find = [hv, vm] { return hv->process_id(vm); };
      auto info = co_await self->worker.run<DomainInfo>("looking at VM '" + vm + "'",
                                                        std::move(look), look_deadline);
      auto pid = co_await self->worker.run<int>("finding the process of VM '" + vm + "'",
                                                std::move(find), look_deadline);
      if (self->stopped) co_return;
      if (generation == self->vm_generation) self->looked(info, pid);
    }
    self->look_timer.expires_after(look_interval);
    auto waited = co_await self->look_timer.async_wait(as_result);
    static_cast<void>(waited);
  }
}

asio::awaitable<void> VmUnit::Shared::tick_loop(std::shared_ptr<Shared> self) {
  while (!self->stopped) {
    self->deliver(Tick{});
    self->tick_timer.expires_after(tick_interval);
    auto waited = co_await self->tick_timer.async_wait(as_result);
    static_cast<void>(waited);
  }
}

// ---- the public face
// --------------------------------------------------------------------------------

VmUnit::VmUnit(NodeContext& node, VmDefinition definition, NodeNotes notes)
    : shared_(std::make_shared<Shared>(node, std::move(definition), notes)) {
  const std::weak_ptr<Shared> weak = shared_;
  shared_->engine = std::make_unique<EngineLink>(
      node, shared_->definition.vm,
      [weak](std::optional<EngineView> view, const nlohmann::json& status) {
        if (const auto s = weak.lock()) s->engine_changed(view, status);
      });
  Shared* const raw = shared_.get();
  shared_->actions = std::make_unique<VmActions>(
      node, shared_->definition.vm, *shared_->engine, shared_->worker,
      [raw]() -> const State& { return raw->core; },
      [raw](Epoch epoch) {
        raw->notes.stopped_epoch = epoch;
        return save_node_notes(raw->node.paths.node_notes(raw->definition.vm), raw->notes);
      });
  spawn_supervised(node.executor, "tick " + shared_->definition.vm, Shared::tick_loop(shared_));
  spawn_supervised(node.executor, "look " + shared_->definition.vm, Shared::look_loop(shared_));
}

VmUnit::~VmUnit() {
  shared_->stopped = true;
  shared_->tick_timer.cancel();
  shared_->look_timer.cancel();
}

void VmUnit::deliver(const Event& event) {
  shared_->deliver(event);
}
const VmDefinition& VmUnit::definition() const {
  return shared_->definition;
}
const State& VmUnit::state() const {
  return shared_->core;
}
const nlohmann::json& VmUnit::engine_status() const {
  return shared_->engine_status;
}
const std::string& VmUnit::vm_words() const {
  return shared_->vm_words;
}
const std::string& VmUnit::title() const {
  return shared_->title;
}

void VmUnit::adopt_definition(const VmDefinition& newer) {
  Shared& s = *shared_;
  if (newer.generation <= s.definition.generation) return;
  s.definition = newer;
  auto saved = save_definition(s.node.paths.definition(newer.vm), newer);
  if (!saved) spdlog::error("vm={} {}", newer.vm, saved.error().message);
  s.deliver(DesiredChanged{desired_of(newer)});
}

std::optional<Epoch> VmUnit::wants_lease() const {
  const State& core = shared_->core;
  if (!core.reg || !core.reg->owned() || !core.engine || core.engine->role != EngineRole::owner)
    return std::nullopt;
  if (!core.reg->both() && !core.engine->grow_mark) return std::nullopt;
  return core.reg->epoch;
}

void VmUnit::lease_granted(TimePoint sent) {
  Shared& s = *shared_;
  if (!s.core.reg) return;
  auto renewed = s.node.guard->renew(s.definition.vm, s.core.reg->epoch, sent);
  if (!renewed && s.watched) s.guard_failed(renewed.error());
  s.deliver(LeaseGranted{sent});
}

void VmUnit::guard_restarted() {
  shared_->watched = false;
  shared_->look_timer.cancel();
}

void VmUnit::look_at_vm() {
  shared_->look_timer.cancel();
}

asio::awaitable<Result<nlohmann::json>> VmUnit::call_engine(std::string command,
                                                            nlohmann::json arguments,
                                                            std::chrono::milliseconds deadline) {
  auto shared = shared_;
  co_return co_await shared->engine->call(std::move(command), std::move(arguments), deadline);
}

asio::awaitable<Result<void>> VmUnit::quit_engine() {
  auto shared = shared_;
  co_return co_await shared->engine->quit();
}

}  // namespace havm
