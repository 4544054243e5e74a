#include "agent/daemon/engine_link.hpp"

#include <algorithm>
#include <cstdint>
#include <map>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/spdlog.h>

#include "agent/daemon/spawn_detached.hpp"
#include "vmrepl/base/spawn_supervised.hpp"
#include "vmrepl/control/engine_client.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

constexpr milliseconds status_interval{500};
constexpr milliseconds status_deadline{2000};
constexpr milliseconds retry_interval{200};

template <class T>
bool look_up(const std::map<std::string, T>& words, const std::string& word, T& into) {
  const auto it = words.find(word);
  if (it == words.end()) return false;
  into = it->second;
  return true;
}

bool any_disk_failed(const nlohmann::json& status) {
  const auto& disks = status.at("disks");
  return std::any_of(disks.begin(), disks.end(),
                     [](const auto& d) { return d.contains("error") && !d["error"].is_null(); });
}

// Absent in the status of an older engine, and null without the owner role.
void read_slow_partner(const nlohmann::json& session, EngineView& view) {
  const auto slow = session.find("slow");
  if (slow == session.end() || slow->is_null()) return;
  view.partner_slow = slow->at("is_slow").get<bool>();
  view.partner_left = slow->at("backoff_ms").get<std::int64_t>() > 0;
  const auto& reason = slow->at("reason");
  if (reason.is_string()) view.slow_reason = reason.get<std::string>();
}

TimePoint granted_at(const nlohmann::json& status, TimePoint received) {
  const auto uptime = milliseconds(status.at("uptime_ms").get<long long>());
  const auto& age = status.at("grant").at("given_age_ms");
  return received - (age.is_null() ? uptime : std::min(uptime, milliseconds(age.get<long long>())));
}

}  // namespace

Result<EngineView> parse_engine_status(const nlohmann::json& status, TimePoint received) {
  static const std::map<std::string, EngineRole> roles{{"none", EngineRole::none},
                                                       {"owner", EngineRole::owner},
                                                       {"secondary", EngineRole::secondary}};
  static const std::map<std::string, ReplicaState> states{
      {"uptodate", ReplicaState::uptodate},
      {"inconsistent", ReplicaState::inconsistent},
      {"outdated", ReplicaState::outdated}};
  static const std::map<std::string, RecordedSet> sets{
      {"none", RecordedSet::none}, {"self", RecordedSet::self}, {"both", RecordedSet::both}};
  static const std::map<std::string, SessionState> sessions{
      {"none", SessionState::none},       {"connecting", SessionState::connecting},
      {"syncing", SessionState::syncing}, {"synced", SessionState::synced},
      {"live", SessionState::live},       {"secondary", SessionState::secondary}};
  try {
    EngineView v;
    const auto& record = status.at("record");
    const bool known =
        look_up(roles, status.at("role").get<std::string>(), v.role) &&
        look_up(states, record.at("state").get<std::string>(), v.state) &&
        look_up(sets, record.at("in_sync").get<std::string>(), v.in_sync) &&
        look_up(sessions, status.at("session").at("state").get<std::string>(), v.session);
    if (!known)
      return Error("the engine's status has a word that this agent does not know: " +
                   status.dump());
    v.epoch = Epoch(record.at("epoch").get<std::uint64_t>());
    v.promised_epoch = Epoch(record.at("promised_epoch").get<std::uint64_t>());
    v.grow_mark = record.at("grow_mark").get<bool>();
    v.suspect = record.at("suspect").get<bool>();
    v.failed = any_disk_failed(status);
    read_slow_partner(status.at("session"), v);
    v.granted_at = granted_at(status, received);
    return v;
  } catch (const nlohmann::json::exception& e) {
    return Error(std::string("the engine's status is malformed: ") + e.what());
  }
}

struct EngineLink::Shared : std::enable_shared_from_this<EngineLink::Shared> {
  Shared(NodeContext& n, std::string v, Changed c)
      : node(n), vm(std::move(v)), changed(std::move(c)), client(n.executor), timer(n.executor) {}

  NodeContext& node;
  std::string vm;
  Changed changed;
  EngineClient client;
  asio::steady_timer timer;
  bool stopped = false;
  bool quitting = false;
  bool told_away = false;
  TimePoint spawned_at{};

  static asio::awaitable<void> run(std::shared_ptr<Shared> self);
  static asio::awaitable<bool> ensure_connected(std::shared_ptr<Shared> self);
  static asio::awaitable<void> refresh(std::shared_ptr<Shared> self);
  asio::awaitable<void> pause(milliseconds time);
  void spawn();
  void away(const std::string& why);
};

asio::awaitable<void> EngineLink::Shared::pause(milliseconds time) {
  constexpr auto as_result = asio::as_tuple(asio::use_awaitable);
  timer.expires_after(time);
  auto waited = co_await timer.async_wait(as_result);
  static_cast<void>(waited);
}

void EngineLink::Shared::away(const std::string& why) {
  if (told_away || stopped) return;
  told_away = true;
  spdlog::warn("vm={} engine away: {}", vm, why);
  changed(std::nullopt, nlohmann::json());
}

void EngineLink::Shared::spawn() {
  const TimePoint now = BootClock::now();
  if (spawned_at != TimePoint{} && now - spawned_at < milliseconds(1000)) return;
  spawned_at = now;
  const std::vector<std::string> argv{node.paths.programs + "/havm-repl", "--config",
                                      node.paths.engine_config(vm)};
  auto started = spawn_detached(argv, node.paths.engine_log(vm));
  if (!started) return spdlog::error("vm={} {}", vm, started.error().message);
  spdlog::info("vm={} started its engine", vm);
}

asio::awaitable<bool> EngineLink::Shared::ensure_connected(std::shared_ptr<Shared> self) {
  if (self->client.connected()) co_return true;
  auto connected = co_await self->client.connect(self->node.paths.control_socket(self->vm));
  if (!connected) {
    self->away(connected.error().message);
    if (!self->quitting) self->spawn();
    co_return false;
  }
  auto subscribed = co_await self->client.call("subscribe", nullptr, status_deadline);
  co_return static_cast<bool>(subscribed);
}

asio::awaitable<void> EngineLink::Shared::refresh(std::shared_ptr<Shared> self) {
  auto status = co_await self->client.call("status", nullptr, status_deadline);
  if (self->stopped) co_return;
  if (!status) {
    self->away(status.error().message);
    co_return;
  }
  // Ages are of the moment of the reply: taking an earlier one would date a grant too early.
  auto view = parse_engine_status(status.value(), BootClock::now());
  if (!view) {
    self->away(view.error().message);
    co_return;
  }
  self->told_away = false;
  self->changed(view.value(), status.value());
}

asio::awaitable<void> EngineLink::Shared::run(std::shared_ptr<Shared> self) {
  while (!self->stopped) {
    const bool connected = co_await ensure_connected(self);
    if (self->stopped) co_return;
    if (connected) co_await refresh(self);
    if (self->stopped) co_return;
    co_await self->pause(connected ? status_interval : retry_interval);
  }
}

EngineLink::EngineLink(NodeContext& node, std::string vm, Changed changed)
    : shared_(std::make_shared<Shared>(node, std::move(vm), std::move(changed))) {
  std::weak_ptr<Shared> weak = shared_;
  const auto wake = [weak] {
    if (const auto s = weak.lock()) s->timer.cancel();
  };
  shared_->client.on_event([wake](const nlohmann::json& event) {
    if (event.value("event", "") != "progress") wake();
  });
  shared_->client.on_lost([weak, wake](const std::string& why) {
    if (const auto s = weak.lock()) s->away(why);
    wake();
  });
  spawn_supervised(node.executor, "engine-link " + shared_->vm, Shared::run(shared_));
}

EngineLink::~EngineLink() {
  shared_->stopped = true;
  shared_->timer.cancel();
  shared_->client.close();
}

asio::awaitable<Result<nlohmann::json>> EngineLink::call(std::string command,
                                                         nlohmann::json arguments,
                                                         milliseconds deadline) {
  auto shared = shared_;
  auto reply = co_await shared->client.call(std::move(command), std::move(arguments), deadline);
  if (shared->client.connected()) co_await Shared::refresh(shared);
  co_return reply;
}

asio::awaitable<Result<void>> EngineLink::quit() {
  auto shared = shared_;
  shared->quitting = true;
  if (!shared->client.connected()) {
    auto connected = co_await shared->client.connect(shared->node.paths.control_socket(shared->vm));
    if (!connected) co_return success();  // it does not run
  }
  auto reply = co_await shared->client.call("quit", nullptr, milliseconds(30000));
  const bool gone = reply || reply.error().code == ENOTCONN;
  if (!gone) co_return reply.error();
  co_return success();
}

}  // namespace havm
