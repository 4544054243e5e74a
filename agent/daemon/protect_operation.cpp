#include "agent/daemon/protect_operation.hpp"

#include <cerrno>

#include <spdlog/spdlog.h>
#include <unistd.h>

#include "agent/daemon/havmd.hpp"
#include "agent/daemon/peer_client.hpp"
#include "agent/daemon/plain_vm.hpp"
#include "agent/daemon/replica_setup.hpp"
#include "agent/daemon/vm_view.hpp"
#include "agent/daemon/wait_until.hpp"
#include "agent/failover/arbiter.hpp"
#include "hypervisor/hypervisor.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

constexpr milliseconds work_deadline{120000};
constexpr milliseconds peer_deadline{90000};
constexpr milliseconds arbiter_deadline{3000};
constexpr milliseconds start_patience{120000};
constexpr milliseconds handover_patience{60000};

asio::awaitable<Result<void>> work(Havmd& daemon, std::string what,
                                   std::function<Result<void>()> call) {
  co_return co_await daemon.worker().run<void>(std::move(what), std::move(call), work_deadline);
}

Register first_register(const std::string& self) {
  Register r;
  r.epoch = Epoch(1);
  r.owner = self;
  r.in_sync = {self};
  return r;
}

// ---- protect
// ----------------------------------------------------------------------------------------

Result<void> grow_images(const ProtectPlan& plan) {
  for (std::size_t i = 0; i < plan.grow_to_bytes.size(); ++i) {
    if (plan.grow_to_bytes[i] == 0) continue;
    const std::string& path = plan.definition.disks[i].path;
    if (::truncate(path.c_str(), static_cast<off_t>(plan.grow_to_bytes[i])) != 0)
      return errno_error("cannot grow " + path + " to the size a full qcow2 needs", errno);
  }
  return success();
}

Result<void> set_up_here(const ReplicaSetup& setup, Hypervisor* hv, const Paths& paths,
                         const ProtectPlan& plan) {
  const VmDefinition& d = plan.definition;
  BOOST_OUTCOME_TRY(grow_images(plan));
  BOOST_OUTCOME_TRY(setup.create(d, plan.xml, ReplicaOrigin::owner));
  NodeNotes notes;
  notes.autostart = plan.autostart;
  BOOST_OUTCOME_TRY(save_node_notes(paths.node_notes(d.vm), notes));
  BOOST_OUTCOME_TRY(hv->define(plan.xml));
  return hv->set_autostart(d.vm, false);
}

asio::awaitable<Result<void>> create_on_partner(Havmd& daemon, const ProtectPlan& plan) {
  nlohmann::json body;
  body["definition"] = definition_to_json(plan.definition);
  body["domain_xml"] = plan.xml;
  body["dry_run"] = false;
  auto created = co_await daemon.node().peer->request(
      "POST", "/v1/peer/vms/" + plan.definition.vm + "/prepare", std::move(body), peer_deadline);
  if (!created) co_return created.error();
  co_return success();
}

asio::awaitable<Result<void>> set_up(Havmd& daemon, const ProtectPlan& plan,
                                     std::shared_ptr<Operation> operation) {
  const std::string vm = plan.definition.vm;
  operation->step = "creating the replica on node " + daemon.node().partner;
  auto partner = co_await create_on_partner(daemon, plan);
  if (!partner) co_return partner;
  operation->step = "putting the disks on havm's sockets";
  const ReplicaSetup setup(daemon.node());
  Hypervisor* const hv = daemon.node().hypervisor;
  const Paths paths = daemon.node().paths;
  std::function<Result<void>()> here = [setup, hv, paths, plan] {
    return set_up_here(setup, hv, paths, plan);
  };
  auto local = co_await work(daemon, "setting up VM '" + vm + "'", std::move(here));
  if (!local) co_return local;
  operation->step = "registering the VM at the arbiter";
  Register first = first_register(daemon.node().self);
  auto registered = co_await daemon.node().arbiter->create(vm, std::move(first), arbiter_deadline);
  if (!registered) co_return registered.error();
  if (!registered.value().applied)
    co_return Error("the arbiter already has a register of VM '" + vm + "'", EEXIST);
  co_return success();
}

// Best effort, in the reverse order; what could not be taken back is told.
asio::awaitable<std::string> take_back(Havmd& daemon, const ProtectPlan& plan,
                                       std::shared_ptr<Operation> operation) {
  const std::string vm = plan.definition.vm;
  operation->step = "taking everything back";
  std::string left;
  Register first = first_register(daemon.node().self);
  auto unregistered =
      co_await daemon.node().arbiter->remove(vm, std::move(first), arbiter_deadline);
  if (!unregistered) left += "; the register at the arbiter may be left";
  const ReplicaSetup setup(daemon.node());
  Hypervisor* const hv = daemon.node().hypervisor;
  std::function<Result<void>()> here = [setup, hv, plan]() -> Result<void> {
    BOOST_OUTCOME_TRY(hv->define(plan.definition.original_xml));
    BOOST_OUTCOME_TRY(hv->set_autostart(plan.definition.vm, plan.autostart));
    return setup.remove(plan.definition, ReplicaOrigin::owner);
  };
  auto local = co_await work(daemon, "taking back the set-up of VM '" + vm + "'", std::move(here));
  if (!local) left += "; " + local.error().message;
  auto partner =
      co_await daemon.node().peer->request("DELETE", "/v1/peer/vms/" + vm, nullptr, peer_deadline);
  if (!partner) left += "; the replica on the partner is left: " + partner.error().message;
  if (plan.was_running) {
    auto started = co_await start_plain_vm(daemon, vm);
    if (!started) left += "; the VM is off: " + started.error().message;
  }
  co_return left;
}

}  // namespace

asio::awaitable<Result<nlohmann::json>> protect(Havmd& daemon, ProtectPlan plan,
                                                std::shared_ptr<Operation> operation) {
  const std::string vm = plan.definition.vm;
  if (plan.was_running) {
    auto stopped = co_await stop_plain_vm(daemon, vm, operation);
    if (!stopped) co_return stopped.error();
  }
  auto ready = co_await set_up(daemon, plan, operation);
  if (!ready) {
    const std::string left = co_await take_back(daemon, plan, operation);
    co_return Error(ready.error().message + "; nothing was changed" + left);
  }
  NodeNotes notes;
  notes.autostart = plan.autostart;
  daemon.add_unit(plan.definition, notes);
  VmUnit* const unit = daemon.find(vm);
  operation->step = plan.was_running ? "starting the VM again" : "opening the disks";
  const bool run = plan.was_running;
  std::function<bool()> up = [unit, run] {
    const State& s = unit->state();
    const bool serves = s.engine && s.engine->role == EngineRole::owner;
    return serves && (!run || s.vm == VmState::running);
  };
  const bool done = co_await wait_until(daemon.node().executor, std::move(up), start_patience);
  if (!done)
    co_return Error("VM '" + vm + "' is protected, but it is not up yet: " + unit->state().reason +
                    " (havm explain " + vm + ")");
  co_return vm_object(daemon, *unit);
}

// ---- unprotect
// --------------------------------------------------------------------------------------

namespace {

asio::awaitable<Result<void>> remove_register(Havmd& daemon, const std::string& vm) {
  auto present = co_await daemon.node().arbiter->read(vm, arbiter_deadline);
  if (!present) co_return present.error();
  if (!present.value().value) co_return success();
  Register expect = *present.value().value;
  auto removed = co_await daemon.node().arbiter->remove(vm, std::move(expect), arbiter_deadline);
  if (!removed) co_return removed.error();
  if (!removed.value().applied)
    co_return Error("the register of VM '" + vm + "' changed meanwhile: try again");
  co_return success();
}

asio::awaitable<Result<void>> back_to_files(Havmd& daemon, VmDefinition definition,
                                            bool autostart) {
  const ReplicaSetup setup(daemon.node());
  Hypervisor* const hv = daemon.node().hypervisor;
  const std::string vm = definition.vm;
  std::function<Result<void>()> here = [setup, hv, definition, autostart]() -> Result<void> {
    BOOST_OUTCOME_TRY(auto present, hv->domain_xml(definition.vm, true));
    BOOST_OUTCOME_TRY(auto plain, setup.plain_xml(present, definition));
    BOOST_OUTCOME_TRY(hv->define(plain));
    BOOST_OUTCOME_TRY(setup.remove(definition, ReplicaOrigin::owner));
    return hv->set_autostart(definition.vm, autostart);
  };
  co_return co_await work(daemon, "putting VM '" + vm + "' back on its files", std::move(here));
}

}  // namespace

asio::awaitable<Result<nlohmann::json>> unprotect(Havmd& daemon, UnprotectPlan plan,
                                                  std::shared_ptr<Operation> operation) {
  const std::string vm = plan.vm;
  VmUnit* const unit = daemon.find(vm);
  if (!unit) co_return Error("domain '" + vm + "' is not protected");
  const VmDefinition definition = unit->definition();
  auto notes = load_node_notes(daemon.node().paths.node_notes(vm));
  if (!notes) co_return notes.error();
  if (plan.was_running) {
    operation->step = "stopping the VM";
    unit->deliver(Requested{Wish::shutdown});
    std::function<bool()> off = [unit] { return unit->state().vm == VmState::off; };
    const bool gone = co_await wait_until(daemon.node().executor, off, shutdown_patience);
    if (!gone) {
      operation->step = "the guest did not react to its power button: pulling its plug";
      unit->deliver(Requested{Wish::destroy});
      const bool killed =
          co_await wait_until(daemon.node().executor, std::move(off), handover_patience);
      if (!killed) co_return Error("VM '" + vm + "' could not be stopped; it stays protected");
    }
  }
  operation->step = "deleting the replica on node " + daemon.node().partner;
  auto partner =
      co_await daemon.node().peer->request("DELETE", "/v1/peer/vms/" + vm, nullptr, peer_deadline);
  if (!partner)
    co_return Error(partner.error().message + "; VM '" + vm + "' stays protected on this node");
  operation->step = "closing the engine";
  auto ended = co_await unit->quit_engine();
  if (!ended) co_return ended.error();
  daemon.drop_unit(vm);
  operation->step = "removing the register at the arbiter";
  auto unregistered = co_await remove_register(daemon, vm);
  operation->step = "putting the disks back on their files";
  auto restored = co_await back_to_files(daemon, definition, notes.value().autostart);
  if (!restored) co_return restored.error();
  if (!unregistered)
    co_return Error("VM '" + vm +
                    "' is on its files again, but its register is left at the arbiter: " +
                    unregistered.error().message);
  if (plan.was_running) {
    operation->step = "starting the VM again";
    auto started = co_await start_plain_vm(daemon, vm);
    if (!started) co_return started.error();
  }
  co_return nlohmann::json::object();
}

}  // namespace havm
