#include "vmrepl/session/engine.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <random>
#include <utility>

#include <spdlog/spdlog.h>
#include <unistd.h>

#include "vmrepl/base/files.hpp"
#include "vmrepl/base/spawn_supervised.hpp"
#include "vmrepl/disk/open_disk.hpp"
#include "vmrepl/session/replica_files.hpp"
#include "vmrepl/transport/tls_context.hpp"

namespace havm {

Result<std::unique_ptr<Engine>> Engine::start(boost::asio::io_context& io, EngineConfig config,
                                              std::function<void()> quit) {
  BOOST_OUTCOME_TRY(auto boot_id, read_boot_id());
  BOOST_OUTCOME_TRY(auto store, RecordStore::load(config.record_path));
  BOOST_OUTCOME_TRY(check_record(config, store.record()));
  std::unique_ptr<Engine> engine(
      new Engine(io, std::move(config), std::move(store), std::move(boot_id), std::move(quit)));
  BOOST_OUTCOME_TRY(engine->open_disks());
  BOOST_OUTCOME_TRY(engine->open_marks());
  engine->make_sessions();
  engine->make_nbd_servers();
  BOOST_OUTCOME_TRY(engine->load_pause());
  engine->snapshot_->look();
  engine->settle_snapshot();
  BOOST_OUTCOME_TRY(engine->secondary_->start());
  BOOST_OUTCOME_TRY(engine->control_.start());
  const Record& record = engine->record_.record();
  spdlog::info("vm={} epoch={} engine {} started: replica {}, promised {}, in-sync {}, suspect {}",
               record.vm, record.epoch.value, HAVM_VERSION, to_text(record.state),
               record.promised_epoch.value, to_text(record.in_sync), engine->record_.suspect());
  engine->tell_transport();
  return engine;
}

Engine::Engine(boost::asio::io_context& io, EngineConfig config, RecordStore store,
               std::string boot_id, std::function<void()> quit)
    : io_(io),
      config_(std::move(config)),
      store_(std::move(store)),
      boot_id_(std::move(boot_id)),
      record_(store_.record(), boot_id_),
      started_(BootClock::now()),
      quit_(std::move(quit)),
      pause_file_(config_.record_path),
      guard_(io.get_executor(), config_.guard_socket, config_.vm),
      control_(
          io.get_executor(), config_.control_socket,
          [this](const std::string& cmd, const Json& request, ControlServer::Reply reply) {
            spawn_supervised(io_.get_executor(), "command " + cmd,
                             execute(cmd, request, std::move(reply)));
          },
          [this] { return status(); }) {}

Engine::~Engine() = default;

// Certificates that are no good cost the session, not the VM: the engine serves without a partner.
void Engine::tell_transport() const {
  if (!config_.tls) {
    spdlog::warn(
        "vm={} replication goes over plain TCP, unencrypted and open to anyone on the "
        "links: for measurements only",
        config_.vm);
    return;
  }
  const auto usable = make_tls_context(*config_.tls, config_.node);
  if (!usable)
    spdlog::error(
        "vm={} no replication is possible: {}; havm cluster-init and havm node-join make "
        "certificates",
        config_.vm, usable.error().message);
}

// An image that was cut is no replica any more, also when somebody gives it its length back. Where
// it may be the only complete one there is, that is for a person to judge.
Error Engine::distrust(const ConfigDisk& disk, const Error& error) {
  std::string text =
      "VM " + config_.vm + " on " + config_.node + ", disk " + disk.name + ": " + error.message;
  if (error.code == ESTALE && record_.record().in_sync != InSync::self) {
    record_.lost_data();
    persist();
    text += "; this replica is marked as damaged: give the image its size again (truncate -s " +
            std::to_string(disk.size_bytes) + "), and it is copied anew from the partner";
  } else if (error.code == ESTALE) {
    text += "; this is the only complete replica: restore the image before anything else";
  }
  return Error(text, error.code);
}

Result<void> Engine::open_disks() {
  const auto same = check_images(config_.record_path, config_.images());
  if (!same)
    return Error("VM " + config_.vm + " on " + config_.node + ", " + same.error().message,
                 same.error().code);
  BOOST_OUTCOME_TRY(ring_, UringLoop::create(io_.get_executor()));
  for (const ConfigDisk& disk : config_.disks) {
    auto opened = open_replica_disk(ring_, disk.path, disk.size_bytes);
    if (!opened) return distrust(disk, opened.error());
    disks_.push_back(std::move(opened).value());
    disk_errors_.emplace_back();
    repaired_.push_back(0);
  }
  // Of a replica that was made before this was kept.
  if (::access(image_identities_path(config_.record_path).c_str(), F_OK) == 0) return success();
  return remember_images(config_.record_path, config_.images());
}

Result<void> Engine::open_marks() {
  const MetadataIdentity identity{config_.vm_id, config_.disk_identities()};
  BOOST_OUTCOME_TRY(marks_, MarksDriver::open(ring_, config_.record_path, identity,
                                              [this](const std::string& what, int error) {
                                                stop_at_once(what, std::strerror(error));
                                              }));
  // Left from before a resync that has ended (R6).
  if (record_.record().owner_epoch == Epoch() && marks_->marks().dirty_bytes() != 0) {
    BOOST_OUTCOME_TRY(marks_->forget());
  }
  return success();
}

void Engine::make_sessions() {
  std::vector<ReplicaDisk*> disks;
  for (const auto& disk : disks_)
    disks.push_back(disk.get());

  PrimarySession::Callbacks p;
  p.session_changed = [this](SessionState state, const std::string& reason) {
    spdlog::info("vm={} epoch={} session {}: {}", config_.vm, primary_->core().epoch().value,
                 to_text(state), reason);
    control_.broadcast({{"event", "session"}, {"state", to_text(state)}, {"reason", reason}});
  };
  p.synced = [this] {
    control_.broadcast({{"event", "synced"}, {"epoch", primary_->core().epoch().value}});
  };
  p.deposed = [this](Epoch promised) {
    spdlog::warn("vm={} epoch={} deposed: epoch {} has been promised to another owner", config_.vm,
                 primary_->core().epoch().value, promised.value);
    control_.broadcast({{"event", "deposed"}, {"promised_epoch", promised.value}});
  };
  p.replica_failed = [this](std::uint16_t disk, int error) { replica_failed(disk, error); };
  p.granted = [this](TimePoint sent) { guard_.renew(primary_->core().epoch(), sent); };
  p.progress = [this](const ResyncProgress&) {
    control_.broadcast({{"event", "progress"}, {"sync", sync_json()}});
  };
  p.drained = [] {};
  p.new_generation = [this] { begin_generation(); };
  p.share_generation = [this] {
    record_.sync_end_sent();
    persist();
  };
  p.split_brain = [this](const std::string& reason) {
    spdlog::critical("vm={} epoch={} split brain: {}", config_.vm, primary_->core().epoch().value,
                     reason);
    control_.broadcast({{"event", "split-brain"}, {"reason", reason}});
  };
  p.verify_changed = [this] {
    control_.broadcast({{"event", "verify"}, {"verify", verify_json()}});
  };
  p.partner_slow = [this](bool is_slow, const std::string& reason) {
    spdlog::warn("vm={} epoch={} {}{}", config_.vm, primary_->core().epoch().value,
                 is_slow ? "" : "over: ", reason);
    control_.broadcast({{"event", "partner-slow"}, {"slow", is_slow}, {"reason", reason}});
  };
  p.repaired = [this](std::uint16_t disk, std::uint64_t offset, std::uint32_t length, int error) {
    repaired(disk, offset, length, error);
  };
  primary_ = std::make_unique<PrimarySession>(io_.get_executor(), config_, boot_id_, disks, record_,
                                              *marks_, std::move(p));

  SecondarySession::Callbacks s;
  s.prepare_target = [this](bool everything, std::function<void()> ready) {
    const bool consistent = record_.record().state != ReplicaState::inconsistent;
    snapshot_->prepare(consistent, everything, std::move(ready));
  };
  s.persist = [this] { persist(); };
  s.forget_dirty = [this] { forget_dirty(); };
  s.changed = [this] { secondary_changed(); };
  s.replica_failed = [this](std::uint16_t disk, int error) { replica_failed(disk, error); };
  s.deposed = [this](Epoch claimed) {
    primary_->freeze();
    spdlog::warn("vm={} epoch={} deposed: the partner is owner at epoch {}", config_.vm,
                 primary_->core().epoch().value, claimed.value);
    control_.broadcast({{"event", "deposed"}, {"promised_epoch", claimed.value}});
  };
  s.promised = [this](const Result<void>& outcome) {
    if (promising_) promising_->set(outcome);
  };
  secondary_ = std::make_unique<SecondarySession>(io_.get_executor(), config_, boot_id_, disks,
                                                  record_, marks_->marks(), std::move(s));
  snapshot_ = std::make_unique<TargetSnapshot>(io_.get_executor(), config_, real_snapshot_files());
}

void Engine::make_nbd_servers() {
  for (std::size_t i = 0; i < config_.disks.size(); ++i) {
    const ConfigDisk& disk = config_.disks[i];
    NbdServerOptions options;
    options.socket_path = disk.nbd_socket;
    options.export_name = disk.name;
    options.socket_mode = config_.nbd_socket_mode;
    options.label = "vm=" + config_.vm + " disk=" + disk.name;
    nbd_.push_back(std::make_unique<NbdServer>(io_, primary_->service(i), std::move(options)));
    nbd_.back()->on_clients_changed([this](std::size_t) {
      if (clients() == last_clients_) return;
      last_clients_ = clients();
      control_.broadcast({{"event", "client"}, {"clients", last_clients_}});
    });
  }
}

Result<void> Engine::open_nbd() {
  for (const auto& server : nbd_) {
    const auto started = server->start();
    if (started) continue;
    close_nbd();
    return started.error();
  }
  return success();
}

void Engine::close_nbd() {
  for (const auto& server : nbd_)
    server->stop();
}

// E2.
void Engine::persist() {
  const auto written = store_.write(record_.record());
  if (!written) stop_at_once(config_.record_path, written.error().message);
}

void Engine::stop_at_once(const std::string& what, const std::string& why) const {
  spdlog::critical("vm={} {} cannot be written: {}; the engine stops", config_.vm, what, why);
  spdlog::default_logger()->flush();
  ::_exit(EXIT_FAILURE);
}

void Engine::begin_generation() {
  std::random_device device;
  std::uint64_t id = 0;
  while (id == 0)
    id = (std::uint64_t{device()} << 32U) | device();
  record_.new_generation(id);
  persist();
}

void Engine::forget_dirty() {
  const auto forgotten = marks_->forget();
  if (!forgotten) stop_at_once("the activity log", forgotten.error().message);
}

// ---- status and events -----------------------------------------------------------------------

std::size_t Engine::clients() const {
  std::size_t n = 0;
  for (const auto& server : nbd_)
    n += server->clients();
  return n;
}

void Engine::replica_failed(std::uint16_t disk, int error) {
  const std::string trouble = disks_[disk]->trouble();
  disk_errors_[disk] = trouble.empty() ? std::strerror(error) : trouble;
  if (!trouble.empty()) secondary_->set_broken(trouble);
  // The partner holds every completed write and this replica perhaps not: a restart must not make
  // it trusted again. Alone it is the only copy there is.
  if (record_.record().in_sync == InSync::both) {
    record_.lost_data();
    persist();
  }
  spdlog::error("vm={} disk={} the local replica failed: {}; guest I/O is held", config_.vm,
                config_.disks[disk].name, disk_errors_[disk]);
  control_.broadcast({{"event", "replica-failed"},
                      {"disk", config_.disks[disk].name},
                      {"error", disk_errors_[disk]}});
}

void Engine::repaired(std::uint16_t disk, std::uint64_t offset, std::uint32_t length, int error) {
  ++repaired_[disk];
  const std::string why = std::strerror(error);
  spdlog::warn(
      "vm={} disk={} {} bytes at {} could not be read ({}) and were written again with the "
      "partner's data; look at the health of {}",
      config_.vm, config_.disks[disk].name, length, offset, why, config_.disks[disk].path);
  control_.broadcast({{"event", "repaired"},
                      {"disk", config_.disks[disk].name},
                      {"offset", offset},
                      {"length", length},
                      {"error", why}});
}

void Engine::secondary_changed() {
  const SecondaryCore& core = secondary_->core();
  const Record& record = record_.record();
  settle_snapshot();
  const Epoch epoch = core.has_session() ? core.session_epoch() : record.epoch;
  Json event = {{"event", "secondary"},
                {"epoch", epoch.value},
                {"state", to_text(record.state)},
                {"session", core.has_session()}};
  if (event == last_secondary_event_) return;
  last_secondary_event_ = event;
  spdlog::info("vm={} epoch={} secondary: session {}, replica {}", config_.vm, epoch.value,
               core.has_session() ? "open" : "none", to_text(record.state));
  control_.broadcast(event);
}

Engine::Json Engine::session_json() const {
  const TimePoint now = BootClock::now();
  const SecondaryCore& secondary = secondary_->core();
  if (!is_owner() && secondary.has_session())
    return {{"state", to_text(SessionState::secondary)},
            {"epoch", secondary.session_epoch().value},
            {"peer_boot_id", secondary.peer_boot_id()},
            {"silent_ms", to_ms(secondary_->silence(now))}};
  return {{"state", to_text(is_owner() ? primary_->state() : SessionState::none)},
          {"epoch", is_owner() ? primary_->core().epoch().value : 0},
          {"peer_boot_id", primary_->peer_boot_id()},
          {"silent_ms", to_ms(primary_->silence(now))},
          {"slow", is_owner() ? slow_json() : Json()}};
}

Engine::Json Engine::slow_json() const {
  const TimePoint now = BootClock::now();
  const SlowPartnerCore& slow = primary_->slow_partner();
  return {{"is_slow", slow.is_slow()},
          {"reason", slow.reason().empty() ? Json() : Json(slow.reason())},
          {"partner_ms", to_ms(slow.partner_latency(now))},
          {"own_ms", to_ms(slow.own_latency(now))},
          {"bad_ms", to_ms(slow.bad_time())},
          {"limit_ms", slow.limits().limit.count()},
          {"times_left", slow.times_left()},
          {"backoff_ms", to_ms(slow.backoff_left(now))}};
}

Engine::Json Engine::status() const {
  const TimePoint now = BootClock::now();
  const Record& record = record_.record();
  const PrimaryCore& core = primary_->core();
  const bool owner = is_owner();
  const bool secondary = !owner && secondary_->core().has_session();
  const auto sent = primary_->last_grant_sent();
  Json disks = Json::array();
  for (std::size_t i = 0; i < disks_.size(); ++i)
    disks.push_back({{"name", config_.disks[i].name},
                     {"size", config_.disks[i].size_bytes},
                     {"path", config_.disks[i].path},
                     {"socket", config_.disks[i].nbd_socket},
                     {"repaired", repaired_[i]},
                     {"error", disk_errors_[i].empty() ? Json() : Json(disk_errors_[i])}});
  return {
      {"vm", config_.vm},
      {"node", config_.node},
      {"pid", ::getpid()},
      {"boot_id", boot_id_},
      {"uptime_ms", to_ms(now - started_)},
      {"version", HAVM_VERSION},
      {"role", owner       ? "owner"
               : secondary ? "secondary"
                           : "none"},
      {"record",
       {{"epoch", record.epoch.value},
        {"promised_epoch", record.promised_epoch.value},
        {"state", to_text(record.state)},
        {"in_sync", to_text(record.in_sync)},
        {"grow_mark", record.grow_mark.has_value()},
        {"suspect", record_.suspect()}}},
      {"session", session_json()},
      {"held", {{"frozen", owner && core.held()}, {"requests", owner ? core.held_requests() : 0}}},
      {"sync", sync_json()},
      {"verify", verify_json()},
      {"snapshot", snapshot_->status()},
      {"dirty_bytes", marks_->marks().dirty_bytes()},
      {"grant",
       {{"given_age_ms", to_ms(secondary_->core().grant_age(now))},
        {"received_sent_ns", sent ? to_ns(*sent) : 0}}},
      {"clients", clients()},
      {"disks", std::move(disks)}};
}

}  // namespace havm
