#include "agent/daemon/resync_control.hpp"

#include <cerrno>

#include "agent/daemon/havmd.hpp"
#include "agent/daemon/history_store.hpp"
#include "agent/daemon/peer_client.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

constexpr milliseconds engine_deadline{5000};
constexpr milliseconds peer_deadline{7000};
constexpr std::size_t reason_bytes_max = 1024;

struct Wanted {
  bool pause = false;
  std::string reason;
  bool dry_run = false;
};

Result<Wanted> wanted_of(const std::string& verb, const nlohmann::json& body) {
  Wanted w;
  w.pause = verb == "resync-pause";
  w.reason = "paused by the administrator";
  if (body.is_null()) return w;
  if (!body.is_object()) return Error("the request must be a JSON object");
  for (const auto& [key, value] : body.items()) {
    if (key == "dry_run" && value.is_boolean()) {
      w.dry_run = value.get<bool>();
      continue;
    }
    if (!w.pause || key != "reason")
      return Error("unknown field '" + key + "' in the request, or not of its type");
    if (value.is_null()) continue;
    if (!value.is_string() || value.get<std::string>().empty() ||
        value.get<std::string>().size() > reason_bytes_max)
      return Error("'reason' is not a text of 1 to " + std::to_string(reason_bytes_max) + " bytes");
    w.reason = value.get<std::string>();
  }
  return w;
}

std::string words_of(bool pause) {
  return pause ? "pause" : "resume";
}

void note(Havmd& daemon, const VmUnit& unit, const Wanted& w) {
  HistoryEvent e;
  e.vm = unit.definition().vm;
  e.node = daemon.node().self;
  e.kind = "note";
  e.text = w.pause ? "resyncs are paused: " + w.reason : "resyncs go on";
  if (unit.state().reg) e.epoch = unit.state().reg->epoch.value;
  e.at = BootClock::now();
  daemon.node().history->append(e);
}

// On the owner.
asio::awaitable<Result<void>> carry_out(Havmd& daemon, std::string vm, Wanted w) {
  VmUnit* const unit = daemon.find(vm);
  if (!unit) co_return Error("VM '" + vm + "' is not protected here", ENOENT);
  nlohmann::json arguments = nlohmann::json::object();
  if (w.pause) arguments["reason"] = w.reason;
  std::string command = "resync-" + words_of(w.pause);
  auto done = co_await unit->call_engine(std::move(command), std::move(arguments), engine_deadline);
  if (!done)
    co_return Error("VM '" + vm + "': its engine on node " + daemon.node().self + " did not " +
                        words_of(w.pause) + " the resync: " + done.error().message,
                    done.error().code == ENOTCONN ? EHOSTUNREACH : done.error().code);
  if (const VmUnit* still = daemon.find(vm)) note(daemon, *still, w);
  co_return success();
}

HttpResponse answer(const Result<void>& done) {
  if (done) return HttpResponse(200, nlohmann::json::object());
  const int code = done.error().code;
  const int status = code == ENOENT ? 404 : code == EHOSTUNREACH || code == ETIMEDOUT ? 503 : 409;
  return HttpResponse::error(status, done.error().message);
}

HttpResponse plan(const std::string& vm, const Wanted& w, const std::string& owner) {
  nlohmann::json steps = nlohmann::json::array();
  if (w.pause) {
    steps.push_back("tell the engine of VM '" + vm + "' on node " + owner +
                    " to copy nothing until it is told to go on (" + w.reason + ")");
    steps.push_back(
        "guest writes still go to both nodes; until the resync has ended the partner cannot take "
        "over");
  } else {
    steps.push_back("let the engine of VM '" + vm + "' on node " + owner +
                    " copy what its partner lacks");
  }
  nlohmann::json body;
  body["plan"] = std::move(steps);
  return HttpResponse(200, std::move(body));
}

}  // namespace

asio::awaitable<HttpResponse> resync_request(Havmd& daemon, std::string vm, std::string verb,
                                             nlohmann::json body) {
  auto wanted = wanted_of(verb, body);
  if (!wanted) co_return HttpResponse::error(400, wanted.error().message);
  const Wanted w = wanted.value();
  VmUnit* const unit = daemon.find(vm);
  if (!unit || !unit->state().reg)
    co_return HttpResponse::error(503, "who owns VM '" + vm + "' is not known");
  const bool here = unit->state().reg->owned();
  const std::string owner = here ? daemon.node().self : daemon.node().partner;
  if (here && !unit->engine_status().is_object())
    co_return HttpResponse::error(503, "the engine of VM '" + vm + "' on node " + owner +
                                           " does not answer: see havm explain " + vm);
  if (!here && daemon.liveness().state() != PeerState::up)
    co_return HttpResponse::error(503, "node " + owner + " owns VM '" + vm + "' and is not heard");
  if (w.dry_run) co_return plan(vm, w, owner);
  if (here) {
    const auto done = co_await carry_out(daemon, vm, w);
    co_return answer(done);
  }
  nlohmann::json message;
  message["do"] = words_of(w.pause);
  message["reason"] = w.reason;
  std::string path = "/v1/peer/vms/" + vm + "/resync";
  auto told = co_await daemon.node().peer->request("POST", std::move(path), std::move(message),
                                                   peer_deadline);
  if (told) co_return HttpResponse(200, nlohmann::json::object());
  co_return HttpResponse::error(told.error().code == EHOSTUNREACH ? 503 : 409,
                                "node " + owner + " owns the VM: " + told.error().message);
}

asio::awaitable<HttpResponse> resync_from_partner(Havmd& daemon, std::string vm,
                                                  nlohmann::json body) {
  const VmUnit* const unit = daemon.find(vm);
  if (!unit) co_return HttpResponse::error(404, "VM '" + vm + "' is not protected here");
  if (!unit->state().reg || !unit->state().reg->owned())
    co_return HttpResponse::error(409,
                                  "node " + daemon.node().self + " does not own VM '" + vm + "'");
  Wanted w;
  const std::string word = body.at("do").get<std::string>();
  w.pause = word == "pause";
  if (!w.pause && word != "resume")
    co_return HttpResponse::error(400, "unknown word '" + word + "'");
  w.reason = body.at("reason").get<std::string>();
  const auto done = co_await carry_out(daemon, vm, w);
  co_return answer(done);
}

}  // namespace havm
