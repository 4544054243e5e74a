#include "agent/daemon/havmd.hpp"

#include <algorithm>
#include <ctime>
#include <filesystem>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/daemon/api_service.hpp"
#include "agent/daemon/guard_link.hpp"
#include "agent/daemon/history_store.hpp"
#include "agent/daemon/peer_client.hpp"
#include "agent/daemon/peer_service.hpp"
#include "agent/daemon/replica_setup.hpp"
#include "agent/daemon/verify_service.hpp"
#include "agent/daemon/vm_view.hpp"
#include "agent/pki/identity_directory.hpp"
#include "agent/policy/own_node.hpp"
#include "agent/witness/witness_arbiter.hpp"
#include "hypervisor/hypervisor.hpp"
#include "hypervisor/libvirt/libvirt_hypervisor.hpp"
#include "vmrepl/base/files.hpp"
#include "vmrepl/base/spawn_supervised.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;
constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

constexpr milliseconds report_interval{500};
constexpr milliseconds report_deadline{1000};
constexpr milliseconds lease_deadline{1000};

constexpr std::time_t expiry_warning_s = 30 * 24 * 60 * 60;

// A node that cannot prove who it is would only find out when its partner is needed.
Result<void> check_transport(const NodeContext& node) {
  if (node.cluster.transport == Transport::plain) {
    spdlog::warn(
        "the cluster file asks for plain TCP: the VMs' data cross the links unencrypted, "
        "and anyone there can change them; for measurements only");
    return success();
  }
  const IdentityDirectory directory(node.paths.tls);
  const std::time_t now = ::time(nullptr);
  const auto checked = directory.check(node.self, now);
  if (!checked)
    return Error("no replication is possible with the certificates of this node: " +
                 checked.error().message +
                 "; make them with 'havm cluster-init' on one node and 'havm node-join' for the "
                 "other");
  BOOST_OUTCOME_TRY(const auto facts, directory.facts());
  const std::time_t end = std::min(facts.end, facts.authority_end);
  if (end - now < expiry_warning_s)
    spdlog::warn("the certificate of this node ends at {}: make a new one with 'havm node-join'",
                 utc_text(end));
  return success();
}

Result<void> make_run_directories(const Paths& paths) {
  BOOST_OUTCOME_TRY(make_directories(paths.vms()));
  BOOST_OUTCOME_TRY(make_directories(paths.run + "/vms"));
  BOOST_OUTCOME_TRY(make_directories(paths.run + "/permit"));
  // QEMU's user must be able to reach the NBD sockets below.
  for (const std::string& directory : {paths.run, paths.run + "/vms"})
    if (::chmod(directory.c_str(), 0711) != 0)
      return errno_error("cannot set the mode of " + directory, errno);
  return success();
}

}  // namespace

const nlohmann::json& PartnerReportView::vm(const std::string& name) const {
  static const nlohmann::json none;
  if (!document.is_object()) return none;
  for (const auto& entry : document.at("vms"))
    if (entry.value("vm", "") == name) return entry;
  return none;
}

Havmd::Havmd(asio::io_context& io)
    : io_(io),
      operations_(io.get_executor()),
      worker_(io.get_executor()),
      report_timer_(io),
      lease_timer_(io) {
  node_.executor = io.get_executor();
}

Havmd::~Havmd() = default;

Result<std::unique_ptr<Havmd>> Havmd::start(asio::io_context& io, const Options& options) {
  std::unique_ptr<Havmd> daemon(new Havmd(io));
  BOOST_OUTCOME_TRY(daemon->open(options));
  BOOST_OUTCOME_TRY(daemon->load_units());
  BOOST_OUTCOME_TRY(daemon->listen());
  spawn_supervised(io.get_executor(), "report-loop", daemon->report_loop());
  spawn_supervised(io.get_executor(), "lease-loop", daemon->lease_loop());
  spawn_supervised(io.get_executor(), "verify-loop", verify_loop(*daemon));
  daemon->resync_queue_ = std::make_unique<ResyncQueue>(*daemon);
  daemon->resync_queue_->start();
  return daemon;
}

Result<void> Havmd::open(const Options& options) {
  node_.paths = options.paths;
  BOOST_OUTCOME_TRY(node_.cluster, load_cluster_config(options.cluster_file));
  BOOST_OUTCOME_TRY(node_.self, own_node(node_.cluster, options.node));
  node_.partner = node_.cluster.partner_of(node_.self).name;
  BOOST_OUTCOME_TRY(check_transport(node_));
  BOOST_OUTCOME_TRY(node_.boot_id, read_boot_id());
  BOOST_OUTCOME_TRY(make_run_directories(node_.paths));
  BOOST_OUTCOME_TRY(history_, HistoryStore::open(node_.paths.history()));
  BOOST_OUTCOME_TRY(hypervisor_, connect_libvirt(options.libvirt_uri));
  const ClusterConfig& c = node_.cluster;
  if (!c.witness)
    return Error(options.cluster_file +
                 " names no witness: without an arbiter nothing can decide between two nodes; "
                 "add \"witness\": {\"address\": …}");
  arbiter_ = make_witness_arbiter(node_.executor, c.name, *c.witness, {node_.self, node_.partner});
  guard_ =
      std::make_unique<GuardLink>(node_.paths.programs + "/havm-guard", node_.paths.guard_socket(),
                                  node_.paths.state + "/guard.log", c.timing.lease);
  BOOST_OUTCOME_TRY(guard_->ensure());
  peer_ = std::make_unique<PeerClient>(node_.executor, node_.partner,
                                       c.nodes.at(node_.partner).links, c.ports.peer);
  node_.hypervisor = hypervisor_.get();
  node_.arbiter = arbiter_.get();
  node_.guard = guard_.get();
  node_.peer = peer_.get();
  node_.history = history_.get();
  return success();
}

Result<void> Havmd::load_units() {
  for (const auto& entry : std::filesystem::directory_iterator(node_.paths.vms())) {
    const std::string vm = entry.path().filename().string();
    const std::string path = node_.paths.definition(vm);
    if (!std::filesystem::exists(path)) {
      spdlog::warn("vm={} left half set up by an interrupted protect: {} has no vm.json", vm,
                   entry.path().string());
      continue;
    }
    BOOST_OUTCOME_TRY(auto definition, load_definition(path));
    BOOST_OUTCOME_TRY(auto notes, load_node_notes(node_.paths.node_notes(vm)));
    BOOST_OUTCOME_TRY(make_directories(node_.paths.vm_run(vm)));
    // The cluster file may have changed; an engine that runs reads it when it is started again.
    BOOST_OUTCOME_TRY(ReplicaSetup(node_).write_engine_config(definition));
    add_unit(definition, notes);
  }
  hypervisor_->on_event([this](const DomainEvent& event) {
    asio::post(io_, [this, domain = event.domain] {
      if (VmUnit* unit = find(domain)) unit->look_at_vm();
    });
  });
  return success();
}

Result<void> Havmd::listen() {
  const ClusterConfig& c = node_.cluster;
  BOOST_OUTCOME_TRY(
      auto api,
      HttpServer::listen(node_.executor, HttpEndpoint::unix_socket(node_.paths.api_socket()),
                         make_api_handler(*this)));
  servers_.push_back(std::move(api));
  for (const std::string& address : c.nodes.at(node_.self).links) {
    BOOST_OUTCOME_TRY(auto server,
                      HttpServer::listen(node_.executor, HttpEndpoint::tcp(address, c.ports.peer),
                                         make_peer_handler(*this)));
    servers_.push_back(std::move(server));
  }
  HeartbeatConfig h;
  h.cluster = c.name;
  h.node = node_.self;
  h.partner = node_.partner;
  h.boot_id = node_.boot_id;
  h.own_links = c.nodes.at(node_.self).links;
  h.partner_links = c.nodes.at(node_.partner).links;
  h.port = c.ports.heartbeat;
  h.interval = c.timing.heartbeat_interval;
  h.liveness.tick = c.timing.heartbeat_interval;
  h.liveness.timeout = c.timing.peer_timeout;
  h.liveness.boot_grace = c.timing.boot_grace;
  h.liveness.links = h.own_links.size();
  BOOST_OUTCOME_TRY(heartbeat_, HeartbeatDriver::start(
                                    node_.executor, std::move(h),
                                    [this](LivenessChange change) { liveness_changed(change); }));
  return success();
}

// ---- units
// ------------------------------------------------------------------------------------------

VmUnit* Havmd::find(const std::string& vm) {
  const auto it = units_.find(vm);
  return it == units_.end() ? nullptr : it->second.get();
}

void Havmd::add_unit(const VmDefinition& definition, const NodeNotes& notes) {
  auto unit = std::make_unique<VmUnit>(node_, definition, notes);
  if (heartbeat_ && liveness().state() == PeerState::up) unit->deliver(PartnerHeard{});
  if (heartbeat_ && liveness().state() == PeerState::silent) unit->deliver(PartnerSilent{});
  units_[definition.vm] = std::move(unit);
}

void Havmd::drop_unit(const std::string& vm) {
  units_.erase(vm);
}

std::uint16_t Havmd::free_replication_port() const {
  const PortRange& range = node_.cluster.ports.replication;
  for (unsigned port = range.first; port <= range.last; ++port) {
    bool free = true;
    for (const auto& [name, unit] : units_)
      free = free && unit->definition().replication_port != port;
    for (const std::string& address : node_.cluster.nodes.at(node_.self).links)
      free = free && port_is_free(address, static_cast<std::uint16_t>(port));
    if (free) return static_cast<std::uint16_t>(port);
  }
  return 0;
}

// ---- the partner
// ------------------------------------------------------------------------------------

void Havmd::liveness_changed(LivenessChange change) {
  spdlog::info("partner={} {}", node_.partner,
               change == LivenessChange::silent     ? "silent"
               : change == LivenessChange::rebooted ? "rebooted"
                                                    : "heard");
  if (change != LivenessChange::heard) partner_report_ = {};
  for (const auto& [name, unit] : units_) {
    if (change == LivenessChange::silent) {
      unit->deliver(PartnerSilent{});
      continue;
    }
    if (change == LivenessChange::rebooted) unit->deliver(PartnerReported{});
    unit->deliver(PartnerHeard{});
  }
}

nlohmann::json Havmd::report() const {
  nlohmann::json r;
  r["node"] = node_.self;
  r["boot_id"] = node_.boot_id;
  r["version"] = HAVM_VERSION;
  r["vms"] = nlohmann::json::array();
  for (const auto& [name, unit] : units_)
    r["vms"].push_back(report_entry(*unit));
  return r;
}

// A report of another version, or of somebody else, must not stop this daemon.
void Havmd::partner_reported(const nlohmann::json& report) {
  try {
    take_report(report);
  } catch (const nlohmann::json::exception& e) {
    spdlog::warn("partner={} its report is malformed: {}", node_.partner, e.what());
  }
}

void Havmd::take_report(const nlohmann::json& report) {
  const bool of_this_boot = heartbeat_ && report.value("boot_id", "") == liveness().boot_id();
  if (!of_this_boot || liveness().state() != PeerState::up) return;
  partner_report_ = {report, BootClock::now()};
  for (const auto& entry : report.at("vms")) {
    VmUnit* unit = find(entry.value("vm", ""));
    if (!unit) continue;
    if (entry.at("generation").get<std::uint64_t>() < unit->definition().generation)
      node_.peer->push_definition(unit->definition());
    if (entry.contains("verify")) unit->adopt_verify(entry["verify"]);
    const auto& engine = entry.at("engine");
    if (!engine.is_object()) {
      unit->deliver(PartnerReported{});
      continue;
    }
    PartnerReport told;
    told.suspect = engine.at("suspect").get<bool>();
    told.uptodate = engine.at("uptodate").get<bool>();
    told.promised_epoch = Epoch(engine.at("promised_epoch").get<std::uint64_t>());
    unit->deliver(PartnerReported{told});
  }
}

asio::awaitable<void> Havmd::report_loop() {
  while (true) {
    auto reply = co_await node_.peer->request("POST", "/v1/peer/report", report(), report_deadline);
    if (reply && reply.value().is_object() && reply.value().contains("vms"))
      partner_reported(reply.value());
    report_timer_.expires_after(report_interval);
    auto waited = co_await report_timer_.async_wait(as_result);
    if (std::get<0>(waited)) co_return;
  }
}

// ---- the arbiter
// ------------------------------------------------------------------------------------

void Havmd::keep_guard() {
  auto started = guard_->ensure();
  if (!started) return spdlog::error("{}", started.error().message);
  if (!started.value()) return;
  for (const auto& [name, unit] : units_)
    unit->guard_restarted();
}

asio::awaitable<void> Havmd::request_leases() {
  std::vector<LeaseRequest> wanted;
  for (const auto& [name, unit] : units_)
    if (const auto epoch = unit->wants_lease()) wanted.push_back(LeaseRequest{name, *epoch});
  const TimePoint sent = BootClock::now();
  std::string self = node_.self;
  auto granted = co_await arbiter_->lease(std::move(self), std::move(wanted), lease_deadline);
  arbiter_health_.up = static_cast<bool>(granted);
  if (!granted) co_return;
  arbiter_health_.answered_at = BootClock::now();
  for (const std::string& vm : granted.value())
    if (VmUnit* unit = find(vm)) unit->lease_granted(sent);
}

// One request for all VMs of the node; with none it still tells whether the arbiter answers.
asio::awaitable<void> Havmd::lease_loop() {
  const auto interval = node_.cluster.timing.heartbeat_interval * 2;
  while (true) {
    keep_guard();
    co_await request_leases();
    lease_timer_.expires_after(interval);
    auto waited = co_await lease_timer_.async_wait(as_result);
    if (std::get<0>(waited)) co_return;
  }
}

}  // namespace havm
