// The commands of docs/protocol/engine-control.md.
#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include <spdlog/spdlog.h>

#include "vmrepl/base/spawn_supervised.hpp"
#include "vmrepl/session/engine.hpp"

namespace havm {
namespace {

using boost::asio::awaitable;
using boost::asio::redirect_error;
using boost::asio::use_awaitable;
using Json = nlohmann::json;

constexpr std::chrono::milliseconds poll_interval{2};
constexpr int farewell_polls = 250;

Result<Epoch> epoch_of(const Json& request) {
  const auto it = request.find("epoch");
  if (it == request.end() || !it->is_number_unsigned() || it->get<std::uint64_t>() == 0)
    return Error("'epoch' is not an integer above 0");
  return Epoch(it->get<std::uint64_t>());
}

}  // namespace

Result<void> Engine::check_arguments(const Json& request,
                                     std::initializer_list<const char*> known) {
  for (const auto& [key, value] : request.items())
    if (std::none_of(known.begin(), known.end(), [&](const char* k) { return key == k; }))
      return Error("unknown argument '" + key + "'");
  return success();
}

Engine::Command Engine::find_command(const std::string& name) {
  struct Entry {
    const char* name;
    Command command;
  };
  static constexpr std::array<Entry, 17> commands{{
      {"status", &Engine::do_status},
      {"promise", &Engine::do_promise},
      {"serve", &Engine::do_serve},
      {"connect", &Engine::do_connect},
      {"disconnect", &Engine::do_disconnect},
      {"grow-prepare", &Engine::do_grow_prepare},
      {"grow-commit", &Engine::do_grow_commit},
      {"freeze", &Engine::do_freeze},
      {"flush", &Engine::do_flush},
      {"shrink", &Engine::do_shrink},
      {"stand-by", &Engine::do_stand_by},
      {"resync-pause", &Engine::do_resync_pause},
      {"resync-resume", &Engine::do_resync_resume},
      {"quit", &Engine::do_quit},
      {"leave-slow-partner", &Engine::do_leave_slow_partner},
      {"verify", &Engine::do_verify},
      {"verify-cancel", &Engine::do_verify_cancel},
  }};
  for (const Entry& entry : commands)
    if (name == entry.name) return entry.command;
  return nullptr;
}

awaitable<void> Engine::execute(std::string cmd, Json request, ControlServer::Reply reply) {
  const Command command = find_command(cmd);
  Outcome outcome = Error("VM " + config_.vm + ": unknown command '" + cmd + "'");
  const bool ending = quitting_;
  if (ending)
    outcome = refuse("the engine is ending");
  else if (command != nullptr)
    outcome = co_await (this->*command)(std::move(request));
  if (!outcome)
    spdlog::warn("vm={} epoch={} {} refused: {}", config_.vm, record_.record().epoch.value, cmd,
                 outcome.error().message);
  else if (cmd != "status" && cmd != "resync-pause")  // said by itself, and renewed often
    spdlog::info("vm={} epoch={} {} done", config_.vm, record_.record().epoch.value, cmd);
  reply(outcome);
  if (cmd != "quit" || ending) co_return;
  // The reply is to arrive; a client that does not read it cannot hold the end up.
  boost::asio::steady_timer timer(io_);
  boost::system::error_code ignored;
  for (int i = 0; i < farewell_polls && !control_.idle(); ++i) {
    timer.expires_after(poll_interval);
    co_await timer.async_wait(redirect_error(use_awaitable, ignored));
  }
  control_.stop();
  quit_();
}

Error Engine::refuse(const std::string& why) const {
  return Error("VM " + config_.vm + " on " + config_.node + ": " + why);
}

Result<void> Engine::need_owner(const char* cmd) const {
  if (is_owner()) return success();
  return refuse(std::string(cmd) + " needs the owner role, which this engine does not have");
}

awaitable<Engine::Outcome> Engine::do_status(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {}));
  Json now = status();
  co_return now;
}

// ---- promise and serve -----------------------------------------------------------------------

awaitable<Engine::Outcome> Engine::do_promise(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {"epoch"}));
  BOOST_OUTCOME_CO_TRY(const Epoch epoch, epoch_of(request));
  if (is_owner() && epoch > primary_->core().epoch())
    primary_->drop_session("epoch " + std::to_string(epoch.value) + " is promised");
  promising_ = std::make_unique<OneShot<Result<void>>>(io_.get_executor());
  secondary_->promise(epoch);
  const Result<void> outcome = co_await promising_->wait();
  promising_.reset();
  BOOST_OUTCOME_CO_TRY(outcome);
  Json result = {{"grant_age_ms", to_ms(secondary_->core().grant_age(BootClock::now()))},
                 {"state", to_text(record_.record().state)},
                 {"suspect", record_.suspect()}};
  co_return result;
}

Result<void> Engine::judge_serve(Epoch epoch) const {
  const Record& record = record_.record();
  const std::string wanted = "epoch " + std::to_string(epoch.value);
  if (is_owner())
    return refuse("is owner at epoch " + std::to_string(record.epoch.value) +
                  (record_.may_be_both() ? " with its partner" : "") +
                  "; serve another epoch only after shrink or stand-by");
  if (epoch < record.promised_epoch)
    return refuse(wanted + " is lower than the promised epoch " +
                  std::to_string(record.promised_epoch.value));
  if (record.state != ReplicaState::uptodate)
    return refuse(std::string("the replica is ") + to_text(record.state) + ", it cannot be served");
  if (record_.may_be_both() && epoch <= record.epoch)
    return refuse("at " + wanted +
                  " the partner may be in-sync too; to serve alone a higher "
                  "epoch is needed");
  return success();
}

awaitable<Engine::Outcome> Engine::do_serve(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {"epoch"}));
  BOOST_OUTCOME_CO_TRY(const Epoch epoch, epoch_of(request));
  const bool serves_already =
      is_owner() && epoch == record_.record().epoch && !record_.may_be_both();
  if (serves_already) co_return Json::object();
  BOOST_OUTCOME_CO_TRY(judge_serve(epoch));
  secondary_->set_owner(true);
  secondary_->close_session("this node becomes owner at epoch " + std::to_string(epoch.value));
  co_await secondary_quiet();
  const Result<void> still = judge_serve(epoch);  // the end of a session may have changed it
  if (!still) {
    secondary_->set_owner(false);
    co_return still.error();
  }
  record_.serve(epoch);
  persist();
  settle_snapshot();
  primary_->open(epoch);
  const Result<void> opened = open_nbd();
  if (opened) co_return Json::object();
  primary_->close();
  co_await primary_drained();
  secondary_->set_owner(false);
  co_return opened.error();
}

// ---- the session -----------------------------------------------------------------------------

awaitable<Engine::Outcome> Engine::do_connect(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {}));
  BOOST_OUTCOME_CO_TRY(need_owner("connect"));
  primary_->connect();
  co_return Json::object();
}

awaitable<Engine::Outcome> Engine::do_disconnect(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {}));
  BOOST_OUTCOME_CO_TRY(need_owner("disconnect"));
  if (primary_->core().partner_required())
    co_return refuse("the partner is in-sync; shrink before disconnecting it");
  primary_->disconnect("asked to disconnect");
  co_return Json::object();
}

// While the in-sync set may be both this holds all I/O, as any loss of the session; shrink follows.
awaitable<Engine::Outcome> Engine::do_leave_slow_partner(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {}));
  BOOST_OUTCOME_CO_TRY(need_owner("leave-slow-partner"));
  if (!primary_->leave_slow_partner()) co_return refuse("the partner is not slow now");
  co_return Json::object();
}

awaitable<Engine::Outcome> Engine::do_grow_prepare(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {"epoch"}));
  BOOST_OUTCOME_CO_TRY(const Epoch epoch, epoch_of(request));
  BOOST_OUTCOME_CO_TRY(need_owner("grow-prepare"));
  if (epoch != record_.record().epoch)
    co_return refuse("is owner at epoch " + std::to_string(record_.record().epoch.value) +
                     ", not at " + std::to_string(epoch.value));
  const bool prepared_already =
      record_.record().grow_mark.has_value() && primary_->state() == SessionState::synced;
  if (prepared_already) co_return Json::object();
  if (!primary_->core().can_grow())
    co_return refuse("the session is not synced; wait for the event `synced`");
  record_.grow_prepare();
  persist();
  primary_->grow_prepare();
  co_return Json::object();
}

awaitable<Engine::Outcome> Engine::do_grow_commit(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {"epoch"}));
  BOOST_OUTCOME_CO_TRY(const Epoch epoch, epoch_of(request));
  BOOST_OUTCOME_CO_TRY(need_owner("grow-commit"));
  const Record& record = record_.record();
  const bool committed_already = record.in_sync == InSync::both && epoch == record.epoch;
  if (committed_already) co_return Json::object();
  if (!record.grow_mark) co_return refuse("grow-commit without grow-prepare");
  if (epoch < *record.grow_mark || epoch < record.promised_epoch)
    co_return refuse("epoch " + std::to_string(epoch.value) + " is not the one that was prepared");
  record_.grow_commit(epoch);
  persist();
  primary_->grow_commit(epoch);
  co_return Json::object();
}

awaitable<Engine::Outcome> Engine::do_freeze(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {}));
  BOOST_OUTCOME_CO_TRY(need_owner("freeze"));
  primary_->freeze();
  co_return Json::object();
}

awaitable<Engine::Outcome> Engine::do_shrink(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {"epoch"}));
  BOOST_OUTCOME_CO_TRY(const Epoch epoch, epoch_of(request));
  BOOST_OUTCOME_CO_TRY(need_owner("shrink"));
  const Record& record = record_.record();
  if (epoch < record.promised_epoch)
    co_return refuse("epoch " + std::to_string(epoch.value) + " is lower than the promised epoch " +
                     std::to_string(record.promised_epoch.value));
  if (epoch == record.epoch && record_.may_be_both())
    co_return refuse("at epoch " + std::to_string(epoch.value) +
                     " the partner may be in-sync; a shrink has a higher epoch");
  const bool nothing_to_do = epoch == record.epoch && !primary_->core().frozen();
  if (nothing_to_do) co_return Json::object();
  record_.shrink(epoch);
  persist();
  primary_->shrink(epoch);
  co_return Json::object();
}

// ---- the end of a role, and of the engine ----------------------------------------------------

awaitable<Engine::Outcome> Engine::do_flush(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {}));
  const Result<void> flushed = co_await flush_replica();
  BOOST_OUTCOME_CO_TRY(flushed);
  co_return Json::object();
}

awaitable<Engine::Outcome> Engine::do_stand_by(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {"epoch", "outdated"}));
  BOOST_OUTCOME_CO_TRY(const Epoch epoch, epoch_of(request));
  const auto flag = request.find("outdated");
  if (flag != request.end() && !flag->is_boolean()) co_return refuse("'outdated' is not a boolean");
  const bool outdated = flag != request.end() && flag->get<bool>();
  if (epoch < record_.record().epoch)
    co_return refuse("epoch " + std::to_string(epoch.value) + " is over: this replica is at " +
                     std::to_string(record_.record().epoch.value));
  close_nbd();
  if (is_owner()) primary_->close();
  co_await primary_drained();
  // The replica of an open session is what the session makes of it.
  const bool in_session = secondary_->core().has_session();
  if (!in_session) {
    record_.stand_by(outdated);
    persist();
  }
  secondary_->set_owner(false);
  forget_holds();
  co_return Json::object();
}

awaitable<Engine::Outcome> Engine::do_quit(Json request) {
  BOOST_OUTCOME_CO_TRY(check_arguments(request, {}));
  quitting_ = true;
  co_await finish_and_quit();
  co_return Json::object();
}

awaitable<void> Engine::finish_and_quit() {
  close_nbd();
  const bool failed = is_owner() && primary_->core().failed();
  if (is_owner()) primary_->close();
  co_await primary_drained();
  secondary_->set_owner(true);  // accepts no session any more
  secondary_->close_session("the engine of " + config_.node + " ends");
  co_await secondary_quiet();
  const Result<void> flushed = co_await flush_replica();
  if (!flushed || failed) {
    spdlog::error("vm={} the replica could not be flushed at the end; it is not marked clean",
                  config_.vm);
    co_return;
  }
  const Result<void> emptied = co_await settle_marks();
  if (!emptied)
    spdlog::warn("vm={} {}; more is compared after the next start", config_.vm,
                 emptied.error().message);
  record_.ended_cleanly();
  persist();
  spdlog::info("vm={} epoch={} ended in order", config_.vm, record_.record().epoch.value);
}

// The replica is flushed and at rest: the saved bitmaps tell all that the log could.
awaitable<Result<void>> Engine::settle_marks() {
  boost::asio::steady_timer timer(io_);
  boost::system::error_code ignored;
  if (marks_->marks().changed()) marks_->save();
  while (!marks_->marks().is_saved() || marks_->marks().is_saving()) {
    timer.expires_after(poll_interval);
    co_await timer.async_wait(redirect_error(use_awaitable, ignored));
  }
  co_return marks_->empty_log();
}

void Engine::quit() {
  if (quitting_) return;
  Json none = Json::object();
  ControlServer::Reply nobody = [](const Result<Json>&) {};
  spawn_supervised(io_.get_executor(), "quit", execute("quit", std::move(none), std::move(nobody)));
}

awaitable<void> Engine::secondary_quiet() {
  boost::asio::steady_timer timer(io_);
  boost::system::error_code ignored;
  while (!secondary_->core().is_quiet()) {
    timer.expires_after(poll_interval);
    co_await timer.async_wait(redirect_error(use_awaitable, ignored));
  }
}

awaitable<void> Engine::primary_drained() {
  boost::asio::steady_timer timer(io_);
  boost::system::error_code ignored;
  while (!primary_->core().is_drained()) {
    timer.expires_after(poll_interval);
    co_await timer.async_wait(redirect_error(use_awaitable, ignored));
  }
}

awaitable<Result<void>> Engine::flush_replica() {
  Result<void> outcome = success();
  for (std::size_t i = 0; i < disks_.size(); ++i) {
    OneShot<int> flushed(io_.get_executor());
    const auto done = [&flushed](int error) { flushed.set(error); };
    disks_[i]->flush(done);
    const int error = co_await flushed.wait();
    if (error == 0) continue;
    replica_failed(static_cast<std::uint16_t>(i), error);
    if (outcome)
      outcome = errno_error("VM " + config_.vm + " on " + config_.node + ": flushing disk " +
                                config_.disks[i].name + " failed",
                            error);
  }
  co_return outcome;
}

}  // namespace havm
