#include "agent/daemon/peer_service.hpp"

#include <functional>

#include "agent/daemon/havmd.hpp"
#include "agent/daemon/history_store.hpp"
#include "agent/daemon/replica_setup.hpp"
#include "agent/daemon/resync_control.hpp"
#include "agent/daemon/vm_unit.hpp"
#include "agent/daemon/wait_until.hpp"
#include "hypervisor/hypervisor.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

constexpr milliseconds setup_deadline{60000};
// A unit that was just made asks libvirt and the witness first.
constexpr milliseconds look_around_deadline{10000};

std::string joined(const std::vector<std::string>& sentences) {
  std::string all;
  for (const std::string& s : sentences)
    all += (all.empty() ? "" : "; ") + s;
  return all;
}

Result<VmDefinition> definition_of(const nlohmann::json& document) {
  Findings findings;
  auto definition = definition_from_json(document, findings);
  if (!definition) return findings.to_error("the definition sent by the partner");
  return *definition;
}

HttpResponse done() {
  return HttpResponse(200, nlohmann::json::object());
}

// ---- a new replica
// ----------------------------------------------------------------------------------

asio::awaitable<HttpResponse> prepare(Havmd& daemon, std::string vm, nlohmann::json body) {
  auto definition = definition_of(body.at("definition"));
  if (!definition) co_return HttpResponse::error(400, definition.error().message);
  const VmDefinition d = definition.value();
  const std::string xml = body.at("domain_xml").get<std::string>();
  const bool dry_run = body.at("dry_run").get<bool>();
  if (d.vm != vm) co_return HttpResponse::error(400, "the definition is of another VM");
  if (daemon.find(vm))
    co_return HttpResponse::error(
        409, "VM '" + vm + "' is already protected on node " + daemon.node().self);
  const ReplicaSetup setup(daemon.node());
  Hypervisor* const hypervisor = daemon.node().hypervisor;
  std::function<Result<void>()> work = [setup, d, xml, dry_run, hypervisor]() -> Result<void> {
    const auto obstacles = setup.obstacles(d);
    if (!obstacles.empty()) return Error(joined(obstacles));
    if (dry_run) return success();
    auto created = setup.create(d, xml, ReplicaOrigin::partner);
    if (created) created = hypervisor->define(xml);
    if (!created) {
      auto removed = setup.remove(d, ReplicaOrigin::partner);
      static_cast<void>(removed);
    }
    return created;
  };
  auto created = co_await daemon.worker().run<void>("creating the replica of VM '" + vm + "'",
                                                    std::move(work), setup_deadline);
  if (!created) co_return HttpResponse::error(409, created.error().message);
  if (!dry_run) daemon.add_unit(d, NodeNotes{});
  co_return done();
}

// Why this replica must not be deleted; empty: the partner is known to have a newer one, or nothing
// was ever registered.
std::string keep_replica(const State& s) {
  if (s.vm == VmState::unknown) return "libvirt has not told yet whether the VM is off here";
  if (s.vm != VmState::off) return "the VM is not off here";
  if (s.engine && s.engine->role == EngineRole::owner) return "its engine serves the disks";
  if (s.reg_missing) return {};
  if (!s.reg) return "the witness has not answered yet, so that nobody knows who owns the VM";
  return s.reg->owned() ? "this node owns the VM" : "";
}

bool knows_its_place(const State& s) {
  return s.vm != VmState::unknown && (s.reg || s.reg_missing);
}

asio::awaitable<HttpResponse> remove(Havmd& daemon, std::string vm) {
  // The partner may take back what it has just asked for: what is not known yet is no reason to
  // keep a replica that it will never use.
  std::function<bool()> known = [&daemon, vm] {
    VmUnit* const unit = daemon.find(vm);
    return unit == nullptr || knows_its_place(unit->state());
  };
  const bool told =
      co_await wait_until(daemon.node().executor, std::move(known), look_around_deadline);
  static_cast<void>(told);  // keep_replica() says what is missing
  VmUnit* unit = daemon.find(vm);
  if (!unit) co_return done();
  if (const auto why = keep_replica(unit->state()); !why.empty())
    co_return HttpResponse::error(
        409, "node " + daemon.node().self + " keeps its replica of VM '" + vm + "': " + why);
  const VmDefinition d = unit->definition();
  auto ended = co_await unit->quit_engine();
  if (!ended) co_return HttpResponse::error(503, ended.error().message);
  daemon.drop_unit(vm);
  const ReplicaSetup setup(daemon.node());
  Hypervisor* const hypervisor = daemon.node().hypervisor;
  std::function<Result<void>()> work = [setup, d, hypervisor]() -> Result<void> {
    auto undefined = hypervisor->undefine(d.vm);
    if (!undefined && undefined.error().code != ENOENT) return undefined;
    return setup.remove(d, ReplicaOrigin::partner);
  };
  auto removed = co_await daemon.worker().run<void>("removing the replica of VM '" + vm + "'",
                                                    std::move(work), setup_deadline);
  if (!removed) co_return HttpResponse::error(500, removed.error().message);
  daemon.node().history->forget(vm);
  co_return done();
}

// ---- small requests
// ---------------------------------------------------------------------------------

HttpResponse take_definition(Havmd& daemon, const std::string& vm, const nlohmann::json& body) {
  auto definition = definition_of(body);
  if (!definition) return HttpResponse::error(400, definition.error().message);
  VmUnit* unit = daemon.find(vm);
  if (!unit || definition.value().vm != vm)
    return HttpResponse::error(404, "VM '" + vm + "' is not protected here");
  unit->adopt_definition(definition.value());
  return done();
}

HttpResponse takeover(Havmd& daemon, const std::string& vm, const nlohmann::json& body) {
  VmUnit* unit = daemon.find(vm);
  if (!unit) return HttpResponse::error(404, "VM '" + vm + "' is not protected here");
  unit->deliver(TakeoverAsked{Epoch(body.at("epoch").get<std::uint64_t>())});
  return done();
}

HttpResponse wish(Havmd& daemon, const std::string& vm, const nlohmann::json& body) {
  VmUnit* unit = daemon.find(vm);
  if (!unit) return HttpResponse::error(404, "VM '" + vm + "' is not protected here");
  if (!unit->state().reg || !unit->state().reg->owned())
    return HttpResponse::error(409, "node " + daemon.node().self + " does not own VM '" + vm + "'");
  const std::string word = body.at("wish").get<std::string>();
  if (word == "start")
    unit->deliver(Requested{Wish::start});
  else if (word == "shutdown")
    unit->deliver(Requested{Wish::shutdown});
  else if (word == "destroy")
    unit->deliver(Requested{Wish::destroy});
  else if (word == "failover")
    unit->deliver(Requested{Wish::failover});
  else
    return HttpResponse::error(400, "unknown wish '" + word + "'");
  return done();
}

asio::awaitable<HttpResponse> route(Havmd& daemon, HttpRequest request) {
  const auto& path = request.path;
  if (path.size() < 3 || path[0] != "v1" || path[1] != "peer")
    co_return HttpResponse::error(404, "no such path");
  if (path.size() == 3 && path[2] == "report" && request.method == "POST") {
    daemon.partner_reported(request.body);
    co_return HttpResponse(200, daemon.report());
  }
  if (path.size() < 4 || path[2] != "vms") co_return HttpResponse::error(404, "no such path");
  const std::string vm = path[3];
  if (path.size() == 4 && request.method == "DELETE") co_return co_await remove(daemon, vm);
  if (path.size() != 5) co_return HttpResponse::error(404, "no such path");
  if (path[4] == "prepare" && request.method == "POST")
    co_return co_await prepare(daemon, vm, request.body);
  if (path[4] == "definition" && request.method == "PUT")
    co_return take_definition(daemon, vm, request.body);
  if (path[4] == "takeover" && request.method == "POST")
    co_return takeover(daemon, vm, request.body);
  if (path[4] == "resync" && request.method == "POST")
    co_return co_await resync_from_partner(daemon, vm, request.body);
  if (path[4] == "wish" && request.method == "POST") co_return wish(daemon, vm, request.body);
  co_return HttpResponse::error(404, "no such path");
}

asio::awaitable<HttpResponse> handle(Havmd* daemon, HttpRequest request) {
  try {
    co_return co_await route(*daemon, std::move(request));
  } catch (const nlohmann::json::exception& e) {
    co_return HttpResponse::error(400, std::string("malformed request: ") + e.what());
  }
}

}  // namespace

HttpHandler make_peer_handler(Havmd& daemon) {
  return [&daemon](HttpRequest request) { return handle(&daemon, std::move(request)); };
}

}  // namespace havm
