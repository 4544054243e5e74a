#include "agent/daemon/verify_service.hpp"

#include <map>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/spdlog.h>

#include "agent/daemon/havmd.hpp"
#include "agent/daemon/verify_record.hpp"
#include "agent/daemon/verify_schedule.hpp"
#include "agent/daemon/vm_unit.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using nlohmann::json;
using std::chrono::milliseconds;

constexpr milliseconds engine_deadline{5000};
constexpr milliseconds look_interval{10000};

const json& engine_verify(const VmUnit& unit) {
  static const json none;
  const json& status = unit.engine_status();
  if (!status.is_object()) return none;
  const auto it = status.find("verify");
  return it == status.end() ? none : *it;
}

bool is_running(const VmUnit& unit) {
  const json& verify = engine_verify(unit);
  return verify.is_object() && verify.value("running", false);
}

bool is_live(const VmUnit& unit) {
  const State& s = unit.state();
  return s.reg && s.reg->owned() && s.engine && s.engine->session == SessionState::live;
}

// Empty, or why the body cannot be carried out.
std::string mistake_in(const json& body) {
  if (body.is_null()) return {};
  if (!body.is_object()) return "the request must be a JSON object";
  for (const auto& [key, value] : body.items()) {
    if (key != "repair" && key != "cancel") return "unknown field '" + key + "' in the request";
    if (!value.is_boolean()) return "the field '" + key + "' must be true or false";
  }
  if (body.value("repair", false) && body.value("cancel", false))
    return "a verify is either begun or cancelled";
  return {};
}

std::vector<VerifyCandidate> candidates_of(Havmd& daemon,
                                           const std::map<std::string, std::int64_t>& attempts) {
  std::vector<VerifyCandidate> all;
  for (const auto& [name, unit] : daemon.units()) {
    VerifyCandidate c;
    c.vm = name;
    c.every = unit->definition().policy.verify_every;
    c.live = is_live(*unit);
    c.running = is_running(*unit);
    c.completed_ms = unit->verify_record().completed_ms;
    const auto it = attempts.find(name);
    if (it != attempts.end()) c.attempted_ms = it->second;
    all.push_back(std::move(c));
  }
  return all;
}

asio::awaitable<void> start_due(Havmd& daemon, std::string vm) {
  spdlog::info("vm={} a verify is due by its policy", vm);
  json arguments = json::object();
  auto started =
      co_await daemon.find(vm)->call_engine("verify", std::move(arguments), engine_deadline);
  if (!started)
    spdlog::warn("vm={} the verify that is due did not start: {}", vm, started.error().message);
}

}  // namespace

asio::awaitable<HttpResponse> serve_verify(Havmd& daemon, VmUnit& unit, json body) {
  if (const std::string mistake = mistake_in(body); !mistake.empty())
    co_return HttpResponse::error(400, mistake);
  const std::string vm = unit.definition().vm;
  if (!unit.state().reg->owned())
    co_return HttpResponse::error(409, "node " + daemon.node().partner + " owns VM '" + vm +
                                           "': only there it can be verified");
  const bool cancel = body.is_object() && body.value("cancel", false);
  if (cancel && !is_running(unit))
    co_return HttpResponse::error(409, "no verify of VM '" + vm + "' is running");
  json arguments = json::object();
  if (!cancel) arguments["repair"] = body.is_object() && body.value("repair", false);
  std::string command = cancel ? "verify-cancel" : "verify";
  auto done = co_await unit.call_engine(std::move(command), std::move(arguments), engine_deadline);
  if (!done)
    co_return HttpResponse::error(done.error().code == 0 ? 409 : 503, done.error().message);
  VmUnit* const still = daemon.find(vm);
  json answer;
  answer["verify"] = still == nullptr ? json() : verify_object(*still);
  co_return HttpResponse(200, std::move(answer));
}

asio::awaitable<void> verify_loop(Havmd& daemon) {
  constexpr auto as_result = asio::as_tuple(asio::use_awaitable);
  asio::steady_timer timer(daemon.node().executor);
  std::map<std::string, std::int64_t> attempts;
  while (true) {
    timer.expires_after(look_interval);
    auto waited = co_await timer.async_wait(as_result);
    if (std::get<0>(waited)) co_return;
    const std::int64_t now = wall_time_ms();
    const auto due = due_verify(candidates_of(daemon, attempts), now);
    if (!due) continue;
    attempts[*due] = now;
    co_await start_due(daemon, *due);
  }
}

json verify_object(const VmUnit& unit) {
  json v;
  v["running"] = nullptr;
  for (const char* key : {"repair", "done_bytes", "total_bytes", "rate_bytes_per_s",
                          "mismatch_bytes", "repaired_bytes"})
    v[key] = nullptr;
  const json& engine = engine_verify(unit);
  const State& s = unit.state();
  if (s.reg && s.reg->owned() && s.engine) {
    v["running"] = is_running(unit);
    if (is_running(unit))
      for (const char* key : {"repair", "done_bytes", "total_bytes", "rate_bytes_per_s",
                              "mismatch_bytes", "repaired_bytes"})
        v[key] = engine.value(key, json());
  }
  const VerifyRecord& record = unit.verify_record();
  v["unresolved_bytes"] = record.unresolved_bytes;
  v["last"] = nullptr;
  if (record.id.empty()) return v;
  json last = to_json(record);
  last.erase("ended_ms");
  last.erase("completed_ms");
  last.erase("unresolved_bytes");
  last["time"] = wall_time_text(record.ended_ms);
  v["last"] = std::move(last);
  return v;
}

}  // namespace havm
