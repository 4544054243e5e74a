// The commands `verify` and `verify-cancel` of docs/protocol/engine-control.md, and what the status
// says of a verify.
#include <utility>

#include "vmrepl/session/engine.hpp"

namespace havm {

using boost::asio::awaitable;
using Json = nlohmann::json;

awaitable<Engine::Outcome> Engine::do_verify(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {"repair", "rate_bytes_per_s"}));
  BOOST_OUTCOME_CO_TRY(need_owner("verify"));
  const auto repair = request.find("repair");
  if (repair != request.end() && !repair->is_boolean())
    co_return refuse("'repair' is not a boolean");
  const auto rate = request.find("rate_bytes_per_s");
  const bool rate_given = rate != request.end();
  if (rate_given && (!rate->is_number_unsigned() || rate->get<std::uint64_t>() == 0))
    co_return refuse("'rate_bytes_per_s' is not an integer above 0");
  if (primary_->verify_status().running) co_return refuse("a verify is running already");
  if (primary_->core().state() != SessionState::live)
    co_return refuse(std::string("the session is ") + to_text(primary_->state()) +
                     "; only replicas that are in sync can be verified");
  if (!primary_->partner_has_hashes())
    co_return refuse("the engine of " + config_.partner +
                     " is older and tells no checksums; upgrade it");
  const bool repairs = repair != request.end() && repair->get<bool>();
  primary_->start_verify(
      repairs, rate_given ? rate->get<std::uint64_t>() : VerifyDriver::default_rate_bytes_per_s);
  Json started = {{"id", primary_->verify_status().id}};
  co_return started;
}

awaitable<Engine::Outcome> Engine::do_verify_cancel(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {}));
  BOOST_OUTCOME_CO_TRY(need_owner("verify-cancel"));
  primary_->cancel_verify();
  co_return Json::object();
}

Json Engine::verify_json() const {
  const VerifyStatus& v = primary_->verify_status();
  if (v.id.empty()) return nullptr;
  const TimePoint now = BootClock::now();
  Json mismatches = Json::array();
  for (const VerifyMismatch& m : v.mismatches)
    mismatches.push_back({{"disk", config_.disks[m.disk].name},
                          {"offset", m.offset},
                          {"length", m.length},
                          {"reason", to_text(m.reason)},
                          {"repaired", m.repaired}});
  return {{"id", v.id},
          {"running", v.running},
          {"repair", v.repair},
          {"total_bytes", v.total_bytes},
          {"done_bytes", v.done_bytes},
          {"rate_bytes_per_s", v.rate_bytes_per_s},
          {"mismatch_bytes", v.mismatch_bytes},
          {"mismatch_count", v.mismatch_count},
          {"mismatches", std::move(mismatches)},
          {"repaired_bytes", v.repaired_bytes},
          {"started_age_ms", to_ms(now - v.started)},
          {"finished_age_ms", v.running ? Json() : Json(to_ms(now - v.finished))},
          {"result", v.running ? Json() : Json(v.result)},
          {"reason", v.running ? Json() : Json(v.reason)}};
}

}  // namespace havm
