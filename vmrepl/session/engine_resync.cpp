// The part of Engine that shows a resync and lets it wait: the commands resync-pause and
// resync-resume.
#include <utility>

#include <spdlog/spdlog.h>

#include "vmrepl/session/engine.hpp"

namespace havm {
namespace {

using boost::asio::awaitable;
using Json = nlohmann::json;

constexpr std::size_t reason_bytes_max = 1024;
constexpr std::uint64_t hold_ms_max = 600'000;

Result<HoldBy> by_of(const Json& request) {
  const auto it = request.find("by");
  if (it == request.end() || *it == "administrator") return HoldBy::administrator;
  if (*it == "queue") return HoldBy::queue;
  return Error("'by' is neither \"administrator\" nor \"queue\"");
}

Result<ResyncHold> hold_of(const Json& request, HoldBy by, TimePoint now) {
  ResyncHold hold;
  const auto reason = request.find("reason");
  if (reason == request.end() || !reason->is_string() || reason->get<std::string>().empty() ||
      reason->get<std::string>().size() > reason_bytes_max)
    return Error("'reason' is not a text of 1 to " + std::to_string(reason_bytes_max) + " bytes");
  hold.reason = reason->get<std::string>();
  const auto time = request.find("for_ms");
  if (by == HoldBy::administrator) {
    if (time != request.end())
      return Error("a pause of the administrator has no 'for_ms': it lasts until resync-resume");
    return hold;
  }
  const bool fits = time != request.end() && time->is_number_unsigned() &&
                    time->get<std::uint64_t>() >= 1 && time->get<std::uint64_t>() <= hold_ms_max;
  if (!fits)
    return Error("'for_ms' is not in 1.." + std::to_string(hold_ms_max) +
                 ": the queue holds for a time only");
  hold.until = now + std::chrono::milliseconds(time->get<std::int64_t>());
  return hold;
}

}  // namespace

Result<void> Engine::load_pause() {
  BOOST_OUTCOME_TRY(const auto reason, pause_file_.load());
  if (!reason) return success();
  primary_->flow().hold(HoldBy::administrator, {*reason, std::nullopt});
  spdlog::warn("vm={} resyncs are paused: {}; havm resync-resume {} lets them go on", config_.vm,
               *reason, config_.vm);
  return success();
}

awaitable<Engine::Outcome> Engine::do_resync_pause(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {"by", "reason", "for_ms"}));
  BOOST_OUTCOME_CO_TRY(const HoldBy by, by_of(request));
  const TimePoint now = BootClock::now();
  BOOST_OUTCOME_CO_TRY(ResyncHold hold, hold_of(request, by, now));
  BOOST_OUTCOME_CO_TRY(need_owner("resync-pause"));
  const ResyncHold* before = primary_->flow().holds().find(by, now);
  const bool is_new = before == nullptr || before->reason != hold.reason;
  if (by == HoldBy::administrator) {
    BOOST_OUTCOME_CO_TRY(pause_file_.save(hold.reason));
  }
  if (is_new)
    spdlog::info("vm={} epoch={} the resync is to wait ({}): {}", config_.vm,
                 record_.record().epoch.value, by == HoldBy::queue ? "queued" : "paused",
                 hold.reason);
  primary_->flow().hold(by, std::move(hold));
  if (is_new) tell_resync();
  co_return Json::object();
}

awaitable<Engine::Outcome> Engine::do_resync_resume(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {"by"}));
  BOOST_OUTCOME_CO_TRY(const HoldBy by, by_of(request));
  if (by == HoldBy::administrator) {
    BOOST_OUTCOME_CO_TRY(pause_file_.remove());
  }
  primary_->flow().release(by);
  tell_resync();
  co_return Json::object();
}

// A pause is about the resyncs of this owner; who becomes owner later begins without it.
void Engine::forget_holds() {
  for (const HoldBy by : {HoldBy::administrator, HoldBy::queue})
    primary_->flow().release(by);
  const auto removed = pause_file_.remove();
  if (!removed) spdlog::warn("vm={} {}", config_.vm, removed.error().message);
}

// In sync, or the only one that counts: what was kept of it is older and nothing more.
void Engine::settle_snapshot() {
  const Record& record = record_.record();
  if (record.state == ReplicaState::uptodate && record.in_sync != InSync::none)
    snapshot_->drop("the replica is in sync again");
}

void Engine::tell_resync() {
  const Json sync = sync_json();
  control_.broadcast({{"event", "resync"}, {"state", sync["state"]}, {"reason", sync["reason"]}});
}

Engine::Json Engine::sync_json() const {
  const TimePoint now = BootClock::now();
  const ResyncProgress& p = primary_->progress();
  const ResyncFlow& flow = primary_->flow();
  const ResyncHold* paused = flow.holds().find(HoldBy::administrator, now);
  const ResyncHold* queued = flow.holds().find(HoldBy::queue, now);
  const ResyncHold* shown = paused != nullptr ? paused : queued;
  Json sync = {{"total_bytes", p.total_bytes},
               {"done_bytes", p.done_bytes},
               {"sent_bytes", p.sent_bytes},
               {"rate_bytes_per_s", p.rate_bytes_per_s}};
  sync["state"] = paused != nullptr   ? "paused"
                  : queued != nullptr ? "queued"
                  : flow.running()    ? "running"
                                      : "none";
  sync["reason"] = nullptr;
  sync["active"] = flow.running();
  sync["paused"] = paused != nullptr;
  sync["queued_for_ms"] = nullptr;
  if (shown != nullptr) sync["reason"] = shown->reason;
  if (queued != nullptr && queued->until) sync["queued_for_ms"] = to_ms(*queued->until - now);
  sync["left_s"] = nullptr;
  if (p.left) sync["left_s"] = p.left->count();
  sync["limit_bytes_per_s"] = nullptr;
  if (p.limit_bytes_per_s) sync["limit_bytes_per_s"] = *p.limit_bytes_per_s;
  return sync;
}

}  // namespace havm
