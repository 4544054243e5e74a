#include "agent/daemon/vm_view.hpp"

#include <algorithm>
#include <ctime>

#include <unistd.h>

#include "agent/daemon/havmd.hpp"
#include "agent/daemon/verify_service.hpp"
#include "agent/daemon/vm_unit.hpp"
#include "agent/pki/identity_directory.hpp"

namespace havm {
namespace {

bool partner_up(Havmd& daemon) {
  return daemon.liveness().state() == PeerState::up;
}

std::string sync_state(const State& s) {
  if (!s.engine || !s.reg) return "unknown";
  switch (s.engine->session) {
    case SessionState::live:
      return "in-sync";
    case SessionState::syncing:
    case SessionState::synced:
      return "resyncing";
    case SessionState::secondary:
      return s.reg->both() ? "in-sync" : "resyncing";
    case SessionState::none:
    case SessionState::connecting:
      break;
  }
  if (s.reg->owned() && s.reg->both()) return "frozen";
  if (s.reg->owned()) return "alone";
  return "unknown";
}

// The engine of the owner copies, so only it knows: `status` is its status, or the partner's report
// of it.
nlohmann::json sync_object(const State& s, const nlohmann::json& status) {
  nlohmann::json sync;
  sync["state"] = sync_state(s);
  sync["copying"] = nullptr;
  sync["slow_partner"] = nullptr;
  if (s.engine && (s.engine->partner_slow || s.engine->partner_left))
    sync["slow_partner"] = s.engine->slow_reason;
  const bool told = status.is_object() && status.contains("sync") && status["sync"].is_object();
  for (const char* key :
       {"done_bytes", "total_bytes", "rate_bytes_per_s", "left_s", "limit_bytes_per_s", "reason"}) {
    sync[key] = nullptr;
    if (told && status["sync"].contains(key)) sync[key] = status["sync"][key];
  }
  if (told && status["sync"].contains("state")) sync["copying"] = status["sync"]["state"];
  return sync;
}

const nlohmann::json& owners_status(Havmd& daemon, const VmUnit& unit) {
  static const nlohmann::json none;
  const State& s = unit.state();
  if (!s.reg) return none;
  return s.reg->owned() ? unit.engine_status() : daemon.partner_report().vm(unit.definition().vm);
}

struct Judgement {
  bool yes = false;
  std::string reason;
};

Judgement protection(const State& s, const std::string& partner) {
  if (!s.reg) return {false, "the register has not been read yet"};
  if (!s.engine) return {false, "the engine of this node does not answer"};
  if (s.engine->partner_left && s.reg->owned() && !s.reg->both())
    return {false, "degraded because node " + partner + " is too slow (" + s.engine->slow_reason +
                       "): only " + s.config.self + " holds every completed write"};
  if (!s.reg->both())
    return {false, "only " + std::string(s.reg->owned() ? s.config.self : partner) +
                       " holds every completed write"};
  const bool streaming =
      s.engine->session == SessionState::live || s.engine->session == SessionState::secondary;
  if (!streaming)
    return {false, "the replication session is down; I/O is held until that is resolved"};
  return {true, "every completed write is on both nodes"};
}

Judgement readiness(const State& s, const Judgement& protect, bool partner_alive,
                    const ArbiterHealth& arbiter, const std::string& partner) {
  if (!protect.yes) return {false, protect.reason};
  if (!partner_alive) return {false, "node " + partner + " is not heard"};
  if (!arbiter.up) return {false, "the witness does not answer"};
  if (!s.config.automatic) return {false, "the policy leaves the failover to a person"};
  return {true, "both replicas are in sync, node " + partner + " is alive and the witness answers"};
}

nlohmann::json in_sync_list(const State& s) {
  std::vector<std::string> names;
  if (s.reg && s.reg->self_in_sync) names.push_back(s.config.self);
  if (s.reg && s.reg->partner_in_sync) names.push_back(s.config.partner);
  std::sort(names.begin(), names.end());
  return names;
}

nlohmann::json disks_list(const VmUnit& unit) {
  nlohmann::json disks = nlohmann::json::array();
  for (const DiskDefinition& d : unit.definition().disks) {
    nlohmann::json one;
    one["target"] = d.target;
    one["path"] = d.path;
    one["format"] = d.format;
    one["size_bytes"] = d.size_bytes;
    one["error"] = nullptr;
    one["repaired"] = nullptr;
    const auto& status = unit.engine_status();
    if (status.is_object() && status.contains("disks"))
      for (const auto& e : status["disks"])
        if (e.value("name", "") == d.target)
          for (const char* key : {"error", "repaired"})
            if (e.contains(key)) one[key] = e[key];
    disks.push_back(std::move(one));
  }
  return disks;
}

// The states from before a resync that are kept, or why none is: of each node that tells.
nlohmann::json snapshots_list(Havmd& daemon, const VmUnit& unit) {
  nlohmann::json all = nlohmann::json::array();
  const auto add = [&all](const std::string& node, const nlohmann::json& status) {
    if (!status.is_object() || !status.contains("snapshot") || !status["snapshot"].is_object())
      return;
    nlohmann::json one = status["snapshot"];
    one["node"] = node;
    if (one.value("state", "none") != "none") all.push_back(std::move(one));
  };
  add(daemon.node().self, unit.engine_status());
  add(daemon.node().partner, daemon.partner_report().vm(unit.definition().vm));
  return all;
}

// The VM's state in virsh's words, wherever it runs.
std::string state_words(Havmd& daemon, const VmUnit& unit) {
  const State& s = unit.state();
  const bool here = !s.reg || s.reg->owned();
  if (here || unit.vm_words() == "running") return unit.vm_words();
  const auto& entry = daemon.partner_report().vm(unit.definition().vm);
  return entry.is_object() ? entry.value("state", "unknown") : "unknown";
}

nlohmann::json bytes_at_risk(const State& s, const Judgement& protect) {
  if (protect.yes) return 0;
  static_cast<void>(s);
  return nullptr;
}

// Of the files as they are now: the engines take them as they are when they connect.
nlohmann::json replication_object(const NodeContext& node) {
  const bool tls = node.cluster.transport == Transport::tls;
  nlohmann::json r;
  r["transport"] = tls ? "tls" : "plain";
  r["certificate_until"] = nullptr;
  r["problem"] = nullptr;
  if (!tls) return r;
  const IdentityDirectory directory(node.paths.tls);
  if (const auto facts = directory.facts())
    r["certificate_until"] = utc_text(std::min(facts.value().end, facts.value().authority_end));
  const auto checked = directory.check(node.self, ::time(nullptr));
  if (!checked) r["problem"] = checked.error().message;
  return r;
}

}  // namespace

nlohmann::json vm_object(Havmd& daemon, const VmUnit& unit) {
  const State& s = unit.state();
  const VmDefinition& d = unit.definition();
  const Judgement protect = protection(s, s.config.partner);
  const Judgement ready =
      readiness(s, protect, partner_up(daemon), daemon.arbiter_health(), s.config.partner);
  nlohmann::json v;
  v["vm"] = d.vm;
  v["uuid"] = d.uuid;
  v["title"] = unit.title();
  v["protected"] = true;
  v["state"] = state_words(daemon, unit);
  v["owner"] = nullptr;
  v["role"] = "unknown";
  v["epoch"] = nullptr;
  if (s.reg) {
    v["owner"] = s.reg->owned() ? s.config.self : s.config.partner;
    v["role"] = s.reg->owned() ? "owner" : "partner";
    v["epoch"] = s.reg->epoch.value;
  }
  v["partner"] = s.config.partner;
  v["in_sync"] = in_sync_list(s);
  v["sync"] = sync_object(s, owners_status(daemon, unit));
  v["verify"] = verify_object(unit);
  v["ready"] = ready.yes;
  v["ready_reason"] = ready.reason;
  v["protection"]["protected"] = protect.yes;
  v["protection"]["reason"] = protect.reason;
  v["protection"]["bytes_at_risk"] = bytes_at_risk(s, protect);
  v["desired"] = s.desired == Desired::running ? "running" : "off";
  v["disks"] = disks_list(unit);
  v["snapshots"] = snapshots_list(daemon, unit);
  v["policy"] = policy_to_json(d.policy);
  v["phase"] = s.phase;
  v["reason"] = s.reason;
  return v;
}

nlohmann::json unprotected_object(const DomainInfo& info) {
  nlohmann::json v;
  v["vm"] = info.name;
  v["uuid"] = info.uuid;
  v["title"] = info.title;
  v["protected"] = false;
  v["state"] = to_string(info.state);
  return v;
}

nlohmann::json report_entry(const VmUnit& unit) {
  const State& s = unit.state();
  nlohmann::json e;
  e["vm"] = unit.definition().vm;
  e["generation"] = unit.definition().generation;
  e["state"] = unit.vm_words();
  e["verify"] = to_json(unit.verify_record());
  e["engine"] = nullptr;
  e["sync"] = nullptr;
  e["snapshot"] = nullptr;
  if (!s.engine) return e;
  const nlohmann::json& status = unit.engine_status();
  if (s.engine->role == EngineRole::owner && status.is_object() && status.contains("sync"))
    e["sync"] = status["sync"];
  if (status.is_object() && status.contains("snapshot")) e["snapshot"] = status["snapshot"];
  e["engine"]["suspect"] = s.engine->suspect;
  e["engine"]["uptodate"] = s.engine->state == ReplicaState::uptodate;
  e["engine"]["promised_epoch"] = s.engine->promised_epoch.value;
  return e;
}

nlohmann::json nodes_object(Havmd& daemon) {
  NodeContext& node = daemon.node();
  const TimePoint now = BootClock::now();
  nlohmann::json nodes = nlohmann::json::array();
  int owned_here = 0;
  int owned_there = 0;
  for (const auto& [name, unit] : daemon.units())
    if (unit->state().reg) ++(unit->state().reg->owned() ? owned_here : owned_there);
  const auto link = [](const std::string& address, const char* state,
                       const nlohmann::json& silent_ms) {
    nlohmann::json l;
    l["address"] = address;
    l["state"] = state;
    l["silent_ms"] = silent_ms;
    return l;
  };
  nlohmann::json self;
  self["name"] = node.self;
  self["self"] = true;
  self["state"] = "up";
  self["version"] = HAVM_VERSION;
  self["boot_id"] = node.boot_id;
  self["links"] = nlohmann::json::array();
  for (const auto& address : node.cluster.nodes.at(node.self).links)
    self["links"].push_back(link(address, "up", 0));
  self["vms_owned"] = owned_here;

  const PeerLiveness& liveness = daemon.liveness();
  const char* words[] = {"unknown", "up", "silent"};
  nlohmann::json partner;
  partner["name"] = node.partner;
  partner["self"] = false;
  partner["state"] = words[static_cast<int>(liveness.state())];
  partner["version"] = nullptr;
  if (daemon.partner_report().document.is_object())
    partner["version"] = daemon.partner_report().document.value("version", "");
  partner["boot_id"] = nullptr;
  if (!liveness.boot_id().empty()) partner["boot_id"] = liveness.boot_id();
  partner["links"] = nlohmann::json::array();
  const auto& links = node.cluster.nodes.at(node.partner).links;
  for (std::size_t i = 0; i < links.size(); ++i) {
    const auto silent = liveness.link_silent(i, now);
    const bool up = silent && *silent < node.cluster.timing.peer_timeout;
    partner["links"].push_back(link(links[i],
                                    !silent ? "unknown"
                                    : up    ? "up"
                                            : "silent",
                                    silent ? nlohmann::json(to_ms(*silent)) : nlohmann::json()));
  }
  partner["vms_owned"] = owned_there;

  nodes.push_back(std::move(self));
  nodes.push_back(std::move(partner));
  nlohmann::json arbiter;
  const bool witness = node.cluster.witness.has_value();
  const ArbiterHealth& health = daemon.arbiter_health();
  arbiter["kind"] = witness ? "witness" : "none";
  arbiter["endpoint"] = nullptr;
  if (witness)
    arbiter["endpoint"] =
        node.cluster.witness->address + ":" + std::to_string(node.cluster.witness->port);
  arbiter["state"] = !witness             ? "none"
                     : health.up          ? "up"
                     : health.answered_at ? "silent"
                                          : "unknown";
  arbiter["silent_ms"] = nullptr;
  if (health.answered_at) arbiter["silent_ms"] = to_ms(now - *health.answered_at);
  nlohmann::json all;
  all["nodes"] = std::move(nodes);
  all["arbiter"] = std::move(arbiter);
  all["replication"] = replication_object(node);
  return all;
}

nlohmann::json version_object(Havmd& daemon, const std::string& hypervisor) {
  nlohmann::json v;
  v["version"] = HAVM_VERSION;
  v["node"] = daemon.node().self;
  v["cluster"] = daemon.node().cluster.name;
  v["hypervisor"] = hypervisor;
  v["pid"] = ::getpid();
  v["uptime_ms"] = to_ms(BootClock::now().time_since_epoch());
  return v;
}

}  // namespace havm
