#include "agent/daemon/api_service.hpp"

#include <algorithm>
#include <cerrno>
#include <functional>
#include <initializer_list>

#include "agent/daemon/havmd.hpp"
#include "agent/daemon/history_store.hpp"
#include "agent/daemon/peer_client.hpp"
#include "agent/daemon/protect_operation.hpp"
#include "agent/daemon/resync_control.hpp"
#include "agent/daemon/verify_service.hpp"
#include "agent/daemon/vm_view.hpp"
#include "agent/daemon/wait_until.hpp"
#include "agent/failover/failover_core.hpp"
#include "hypervisor/hypervisor.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

constexpr milliseconds hypervisor_deadline{10000};
constexpr milliseconds peer_deadline{3000};
constexpr milliseconds start_patience{120000};
constexpr milliseconds stop_patience{60000};
constexpr milliseconds failover_patience{180000};

HttpResponse from_error(const Error& e) {
  const int status = e.code == ENOENT                                ? 404
                     : e.code == EHOSTUNREACH || e.code == ETIMEDOUT ? 503
                                                                     : 409;
  return HttpResponse::error(status, e.message);
}

HttpResponse accepted(const Operation& operation) {
  nlohmann::json body;
  body["operation"] = operation.id;
  return HttpResponse(202, std::move(body));
}

HttpResponse plan_of(const std::vector<std::string>& steps) {
  nlohmann::json body;
  body["plan"] = steps;
  return HttpResponse(200, std::move(body));
}

// Empty, or the sentence about the first field that the request must not have.
std::string unknown_field(const nlohmann::json& body, std::initializer_list<const char*> known) {
  if (body.is_null()) return {};
  if (!body.is_object()) return "the request must be a JSON object";
  for (const auto& [key, value] : body.items())
    if (std::none_of(known.begin(), known.end(), [&key = key](const char* k) { return key == k; }))
      return "unknown field '" + key + "' in the request";
  return {};
}

bool flag(const nlohmann::json& body, const char* name) {
  return body.is_object() && body.contains(name) && body.at(name).get<bool>();
}

// ---- reads
// ------------------------------------------------------------------------------------------

asio::awaitable<HttpResponse> list(Havmd& daemon) {
  Hypervisor* const hv = daemon.node().hypervisor;
  std::function<Result<std::vector<DomainInfo>>()> call = [hv] { return hv->list_domains(); };
  auto domains = co_await daemon.worker().run<std::vector<DomainInfo>>(
      "listing the domains", std::move(call), hypervisor_deadline);
  std::map<std::string, nlohmann::json> all;
  for (const auto& [name, unit] : daemon.units())
    all[name] = vm_object(daemon, *unit);
  if (domains) {
    for (const DomainInfo& d : domains.value()) {
      const auto it = all.find(d.name);
      if (it == all.end())
        all[d.name] = unprotected_object(d);
      else
        it->second["title"] = d.title;
    }
  }
  nlohmann::json body;
  body["vms"] = nlohmann::json::array();
  for (auto& [name, vm] : all)
    body["vms"].push_back(std::move(vm));
  co_return HttpResponse(200, std::move(body));
}

asio::awaitable<HttpResponse> one(Havmd& daemon, std::string vm) {
  const VmUnit* unit = daemon.find(vm);
  if (unit) co_return HttpResponse(200, vm_object(daemon, *unit));
  Hypervisor* const hv = daemon.node().hypervisor;
  std::function<Result<DomainInfo>()> call = [hv, vm] { return hv->domain_info(vm); };
  auto info = co_await daemon.worker().run<DomainInfo>("looking at VM '" + vm + "'",
                                                       std::move(call), hypervisor_deadline);
  if (!info) co_return from_error(info.error());
  co_return HttpResponse(200, unprotected_object(info.value()));
}

asio::awaitable<HttpResponse> version(Havmd& daemon) {
  Hypervisor* const hv = daemon.node().hypervisor;
  std::function<Result<std::string>()> call = [hv] { return hv->version(); };
  auto text = co_await daemon.worker().run<std::string>("asking libvirt's version", std::move(call),
                                                        hypervisor_deadline);
  co_return HttpResponse(200, version_object(daemon, text ? text.value() : "unknown"));
}

// ---- protect and unprotect
// --------------------------------------------------------------------------

Result<Policy> policy_of(const nlohmann::json& body) {
  if (!body.contains("policy") || body.at("policy").is_null()) return Policy{};
  Findings findings;
  auto policy = policy_from_json(body.at("policy"), findings);
  if (!policy) return findings.to_error("policy");
  return *policy;
}

asio::awaitable<HttpResponse> start_protect(Havmd& daemon, std::string vm, nlohmann::json body) {
  if (const auto wrong = unknown_field(body, {"peer", "policy", "restart", "dry_run"});
      !wrong.empty())
    co_return HttpResponse::error(400, wrong);
  if (!body.is_object() || !body.contains("peer"))
    co_return HttpResponse::error(400, "the request names no peer");
  auto policy = policy_of(body);
  if (!policy) co_return HttpResponse::error(400, policy.error().message);
  ProtectRequest request;
  request.vm = vm;
  request.peer = body.at("peer").get<std::string>();
  request.policy = policy.value();
  request.restart = flag(body, "restart");
  auto plan = co_await plan_protect(daemon, std::move(request));
  if (!plan) co_return from_error(plan.error());
  if (flag(body, "dry_run")) co_return plan_of(plan.value().steps);
  if (daemon.operations().running(vm))
    co_return HttpResponse::error(409, "another operation on VM '" + vm + "' is under way");
  Operations::Body work = [&daemon, p = plan.value()](std::shared_ptr<Operation> o) {
    return protect(daemon, p, std::move(o));
  };
  co_return accepted(*daemon.operations().start("protect", vm, std::move(work)));
}

asio::awaitable<HttpResponse> start_unprotect(Havmd& daemon, std::string vm, nlohmann::json body) {
  if (const auto wrong = unknown_field(body, {"restart", "dry_run"}); !wrong.empty())
    co_return HttpResponse::error(400, wrong);
  auto plan = co_await plan_unprotect(daemon, vm, flag(body, "restart"));
  if (!plan) co_return from_error(plan.error());
  if (flag(body, "dry_run")) co_return plan_of(plan.value().steps);
  Operations::Body work = [&daemon, p = plan.value()](std::shared_ptr<Operation> o) {
    return unprotect(daemon, p, std::move(o));
  };
  co_return accepted(*daemon.operations().start("unprotect", vm, std::move(work)));
}

// ---- the administrator's wishes
// ---------------------------------------------------------------------

const char* word_of(Wish wish) {
  switch (wish) {
    case Wish::start:
      return "start";
    case Wish::shutdown:
      return "shutdown";
    case Wish::destroy:
      return "destroy";
    case Wish::failover:
      return "failover";
  }
  return "";
}

// On the owner: here. Elsewhere: passed on to the owner's havmd.
asio::awaitable<Result<void>> tell_owner(Havmd& daemon, VmUnit* unit, Wish wish) {
  if (unit->state().reg->owned()) {
    unit->deliver(Requested{wish});
    co_return success();
  }
  nlohmann::json body;
  body["wish"] = word_of(wish);
  auto told = co_await daemon.node().peer->request(
      "POST", "/v1/peer/vms/" + unit->definition().vm + "/wish", std::move(body), peer_deadline);
  if (!told)
    co_return Error("node " + daemon.node().partner + " owns the VM: " + told.error().message,
                    told.error().code);
  co_return success();
}

Result<VmUnit*> known_unit(Havmd& daemon, const std::string& vm) {
  VmUnit* unit = daemon.find(vm);
  if (!unit) {
    auto info = daemon.node().hypervisor->domain_info(vm);
    if (!info) return info.error();
    return Error("domain '" + vm + "' is not protected: use virsh", EINVAL);
  }
  if (!unit->state().reg)
    return Error("the witness has not answered yet: who owns VM '" + vm + "' is not known",
                 EHOSTUNREACH);
  return unit;
}

bool runs_anywhere(Havmd& daemon, const VmUnit& unit) {
  return vm_object(daemon, unit).value("state", "") != "shut off";
}

asio::awaitable<Result<nlohmann::json>> finish(Havmd& daemon, std::string vm, std::string what,
                                               std::function<bool()> condition,
                                               milliseconds patience,
                                               std::shared_ptr<Operation> operation) {
  operation->step = what;
  const bool held = co_await wait_until(daemon.node().executor, std::move(condition), patience);
  VmUnit* unit = daemon.find(vm);
  if (!unit) co_return Error("VM '" + vm + "' is no longer protected");
  if (!held)
    co_return Error(what + " of VM '" + vm + "' takes too long: " + unit->state().reason +
                    " (havm explain " + vm + ")");
  co_return vm_object(daemon, *unit);
}

HttpResponse follow(Havmd& daemon, const std::string& vm, const std::string& kind,
                    std::function<bool()> condition, milliseconds patience) {
  Operations::Body work = [&daemon, vm, kind, condition, patience](std::shared_ptr<Operation> o) {
    return finish(daemon, vm, kind, condition, patience, std::move(o));
  };
  return accepted(*daemon.operations().start(kind, vm, std::move(work)));
}

asio::awaitable<HttpResponse> power(Havmd& daemon, std::string vm, Wish wish) {
  auto unit = known_unit(daemon, vm);
  if (!unit) co_return from_error(unit.error());
  const bool running = runs_anywhere(daemon, *unit.value());
  if (wish == Wish::start && running)
    co_return HttpResponse::error(409, "domain is already running");
  if (wish != Wish::start && !running && unit.value()->state().desired == Desired::off)
    co_return HttpResponse::error(409, "domain is not running");
  auto told = co_await tell_owner(daemon, unit.value(), wish);
  if (!told) co_return from_error(told.error());
  if (wish == Wish::shutdown) co_return HttpResponse(200, nlohmann::json::object());
  const bool want_running = wish == Wish::start;
  std::function<bool()> reached = [&daemon, vm, want_running] {
    const VmUnit* u = daemon.find(vm);
    if (!u) return true;
    const std::string state = vm_object(daemon, *u).value("state", "");
    return want_running ? state == "running" : state == "shut off";
  };
  co_return follow(daemon, vm, word_of(wish), std::move(reached),
                   want_running ? start_patience : stop_patience);
}

Result<void> failover_possible(Havmd& daemon, const VmUnit& unit, const std::string& to) {
  const NodeContext& node = daemon.node();
  const State& s = unit.state();
  const std::string owner = s.reg->owned() ? node.self : node.partner;
  if (!node.cluster.find_node(to)) return Error("failed to get node '" + to + "'", ENOENT);
  if (to == owner)
    return Error("node " + to + " already owns VM '" + unit.definition().vm + "'", EINVAL);
  if (!s.reg->both())
    return Error("node " + to + " cannot take VM '" + unit.definition().vm + "' over: only node " +
                     owner + " holds every completed write",
                 EINVAL);
  if (s.reg->owned() && daemon.liveness().state() != PeerState::up)
    return Error("node " + to + " is not heard: it cannot take over", EHOSTUNREACH);
  return success();
}

asio::awaitable<HttpResponse> failover(Havmd& daemon, std::string vm, nlohmann::json body) {
  if (const auto wrong = unknown_field(body, {"to", "dry_run"}); !wrong.empty())
    co_return HttpResponse::error(400, wrong);
  auto known = known_unit(daemon, vm);
  if (!known) co_return from_error(known.error());
  VmUnit* const unit = known.value();
  const NodeContext& node = daemon.node();
  const State& s = unit->state();
  std::string to = s.reg->owned() ? node.partner : node.self;
  if (body.is_object() && body.contains("to") && !body.at("to").is_null())
    to = body.at("to").get<std::string>();
  auto possible = failover_possible(daemon, *unit, to);
  if (!possible) co_return from_error(possible.error());
  if (flag(body, "dry_run")) {
    std::vector<std::string> steps;
    if (s.desired == Desired::running)
      steps.push_back("stop VM '" + vm + "' as if its plug were pulled");
    steps.push_back("let node " + to + " take it over at epoch " +
                    std::to_string(s.reg->epoch.next().value));
    if (s.desired == Desired::running) steps.push_back("start VM '" + vm + "' on node " + to);
    co_return plan_of(steps);
  }
  if (daemon.operations().running(vm))
    co_return HttpResponse::error(409, "another operation on VM '" + vm + "' is under way");
  const bool orphaned = !s.reg->owned() && daemon.liveness().state() != PeerState::up;
  if (orphaned) {
    unit->deliver(Requested{Wish::failover});
  } else {
    auto told = co_await tell_owner(daemon, unit, Wish::failover);
    if (!told) co_return from_error(told.error());
  }
  std::function<bool()> reached = [&daemon, vm, to] {
    const VmUnit* u = daemon.find(vm);
    if (!u) return true;
    const nlohmann::json now = vm_object(daemon, *u);
    return now["owner"] == to &&
           (now.value("desired", "") == "off" || now.value("state", "") == "running");
  };
  co_return follow(daemon, vm, "failover", std::move(reached), failover_patience);
}

asio::awaitable<HttpResponse> verify(Havmd& daemon, std::string vm, nlohmann::json body) {
  auto unit = known_unit(daemon, vm);
  if (!unit) co_return from_error(unit.error());
  co_return co_await serve_verify(daemon, *unit.value(), std::move(body));
}

// ---- routing
// ----------------------------------------------------------------------------------------

asio::awaitable<HttpResponse> get(Havmd& daemon, const std::vector<std::string>& path) {
  if (path.size() == 2 && path[1] == "version") co_return co_await version(daemon);
  if (path.size() == 2 && path[1] == "nodes") co_return HttpResponse(200, nodes_object(daemon));
  if (path.size() == 2 && path[1] == "vms") co_return co_await list(daemon);
  if (path.size() == 3 && path[1] == "vms") co_return co_await one(daemon, path[2]);
  if (path.size() == 3 && path[1] == "operations") {
    const auto operation = daemon.operations().find(path[2]);
    if (!operation) co_return HttpResponse::error(404, "no operation '" + path[2] + "'");
    co_return HttpResponse(200, operation->to_json());
  }
  if (path.size() == 4 && path[1] == "vms" && path[3] == "explain") {
    auto known = known_unit(daemon, path[2]);
    if (!known && known.error().code != EHOSTUNREACH) co_return from_error(known.error());
    nlohmann::json body;
    body["events"] = daemon.node().history->events(path[2]);
    co_return HttpResponse(200, std::move(body));
  }
  co_return HttpResponse::error(404, "no such path");
}

asio::awaitable<HttpResponse> post(Havmd& daemon, HttpRequest request) {
  const auto& path = request.path;
  if (path.size() != 4 || path[1] != "vms") co_return HttpResponse::error(404, "no such path");
  const std::string vm = path[2];
  const std::string verb = path[3];
  if (verb == "protect") co_return co_await start_protect(daemon, vm, request.body);
  if (verb == "unprotect") co_return co_await start_unprotect(daemon, vm, request.body);
  if (verb == "failover") co_return co_await failover(daemon, vm, request.body);
  if (verb == "verify") co_return co_await verify(daemon, vm, request.body);
  if (verb == "resync-pause" || verb == "resync-resume") {
    auto known = known_unit(daemon, vm);
    if (!known) co_return from_error(known.error());
    co_return co_await resync_request(daemon, vm, verb, request.body);
  }
  if (const auto wrong = unknown_field(request.body, {}); !wrong.empty())
    co_return HttpResponse::error(400, wrong);
  if (verb == "start") co_return co_await power(daemon, vm, Wish::start);
  if (verb == "shutdown") co_return co_await power(daemon, vm, Wish::shutdown);
  if (verb == "destroy") co_return co_await power(daemon, vm, Wish::destroy);
  co_return HttpResponse::error(404, "no such path");
}

asio::awaitable<HttpResponse> handle(Havmd* daemon, HttpRequest request) {
  if (request.path.empty() || request.path[0] != "v1")
    co_return HttpResponse::error(404, "no such path");
  try {
    if (request.method == "GET") co_return co_await get(*daemon, request.path);
    if (request.method == "POST") co_return co_await post(*daemon, std::move(request));
  } catch (const nlohmann::json::exception& e) {
    co_return HttpResponse::error(400, std::string("malformed request: ") + e.what());
  }
  co_return HttpResponse::error(404, "no such path");
}

}  // namespace

HttpHandler make_api_handler(Havmd& daemon) {
  return [&daemon](HttpRequest request) { return handle(&daemon, std::move(request)); };
}

}  // namespace havm
