#include "hypervisor/fake/fake_hypervisor.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "hypervisor/domain_xml.hpp"
#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

Error not_running(const std::string& verb, const std::string& name) {
  return Error("failed to " + verb + " domain '" + name +
                   "': Requested operation is not valid: domain is not running",
               EINVAL);
}

}  // namespace

// --- Behaviour for tests ---

void FakeHypervisor::fail(const std::string& call, const std::string& domain, Error error,
                          int times) {
  const Lock lock(mutex_);
  faults_.push_back({call, domain, std::move(error), times});
}

void FakeHypervisor::hang(const std::string& call, const std::string& domain) {
  const Lock lock(mutex_);
  hangs_.emplace_back(call, domain);
}

void FakeHypervisor::release() {
  const Lock lock(mutex_);
  hangs_.clear();
  released_.notify_all();
}

int FakeHypervisor::hanging() {
  const Lock lock(mutex_);
  return hanging_;
}

void FakeHypervisor::set_start_veto(
    std::function<std::optional<std::string>(const std::string&)> veto) {
  const Lock lock(mutex_);
  veto_ = std::move(veto);
}

void FakeHypervisor::kill_process(const std::string& name) {
  Lock lock(mutex_);
  HAVM_ASSERT(domains_.contains(name), "no such domain");
  if (is_active(domains_[name])) stop(lock, name, "crashed", "failed");
}

void FakeHypervisor::guest_powers_off(const std::string& name) {
  Lock lock(mutex_);
  HAVM_ASSERT(domains_.contains(name), "no such domain");
  if (is_active(domains_[name])) stop(lock, name, "shutdown", "shutdown");
}

void FakeHypervisor::set_guest_obeys_shutdown(const std::string& name, bool obeys) {
  const Lock lock(mutex_);
  HAVM_ASSERT(domains_.contains(name), "no such domain");
  domains_[name].obeys_shutdown = obeys;
}

void FakeHypervisor::io_error(const std::string& name, const std::string& disk) {
  Lock lock(mutex_);
  HAVM_ASSERT(domains_.contains(name) && is_active(domains_[name]), "the domain must be running");
  domains_[name].info.state = DomainState::paused;
  domains_[name].info.reason = "I/O error";
  emit(lock, DomainEvent::Kind::io_error, name, "I/O error on " + disk);
  emit(lock, DomainEvent::Kind::suspended, name, "I/O error");
}

void FakeHypervisor::guest_panics(const std::string& name) {
  Lock lock(mutex_);
  HAVM_ASSERT(domains_.contains(name) && is_active(domains_[name]), "the domain must be running");
  domains_[name].info.state = DomainState::crashed;
  domains_[name].info.reason = "panicked";
  emit(lock, DomainEvent::Kind::crashed, name, "panicked");
}

void FakeHypervisor::set_free_memory_bytes(std::uint64_t bytes) {
  const Lock lock(mutex_);
  free_memory_bytes_ = bytes;
}

std::vector<std::string> FakeHypervisor::history() {
  const Lock lock(mutex_);
  return history_;
}

// --- Internals ---

bool FakeHypervisor::is_hung(const std::string& call, const std::string& domain) const {
  return std::ranges::any_of(hangs_, [&](const Key& key) {
    return key.first == call && (key.second.empty() || key.second == domain);
  });
}

std::optional<Error> FakeHypervisor::disturb(Lock& lock, const std::string& call,
                                             const std::string& domain) {
  if (is_hung(call, domain)) {
    ++hanging_;
    released_.wait(lock, [&] { return !is_hung(call, domain); });
    --hanging_;
  }
  for (Fault& fault : faults_) {
    if (fault.times_left <= 0 || fault.call != call) continue;
    if (!fault.domain.empty() && fault.domain != domain) continue;
    --fault.times_left;
    return fault.error;
  }
  return std::nullopt;
}

Result<FakeHypervisor::Domain*> FakeHypervisor::enter(Lock& lock, const char* call,
                                                      const std::string& name) {
  if (auto error = disturb(lock, call, name)) return *error;
  const auto found = domains_.find(name);
  if (found == domains_.end()) return Error("failed to get domain '" + name + "'", ENOENT);
  return &found->second;
}

bool FakeHypervisor::is_active(const Domain& domain) {
  return domain.pid != 0;
}

void FakeHypervisor::stop(Lock& lock, const std::string& name, const char* reason,
                          const char* event_detail) {
  Domain& domain = domains_[name];
  domain.pid = 0;
  domain.live_xml.clear();
  domain.info.state = DomainState::shut_off;
  domain.info.reason = reason;
  if (domain.inactive_xml.empty()) domains_.erase(name);
  emit(lock, DomainEvent::Kind::stopped, name, event_detail);
}

void FakeHypervisor::emit(Lock& lock, DomainEvent::Kind kind, const std::string& domain,
                          std::string detail) {
  const auto handler = handler_;
  if (!handler) return;
  lock.unlock();
  handler(DomainEvent{kind, domain, std::move(detail)});
  lock.lock();
}

// --- Hypervisor ---

Result<std::vector<DomainInfo>> FakeHypervisor::list_domains() {
  Lock lock(mutex_);
  if (auto error = disturb(lock, "list_domains", "")) return *error;
  std::vector<DomainInfo> infos;
  for (const auto& [name, domain] : domains_)
    infos.push_back(domain.info);
  return infos;
}

Result<DomainInfo> FakeHypervisor::domain_info(const std::string& name) {
  Lock lock(mutex_);
  BOOST_OUTCOME_TRY(const Domain* domain, enter(lock, "domain_info", name));
  return domain->info;
}

Result<std::string> FakeHypervisor::domain_xml(const std::string& name, bool inactive) {
  Lock lock(mutex_);
  BOOST_OUTCOME_TRY(const Domain* domain, enter(lock, "domain_xml", name));
  const bool use_live = !domain->live_xml.empty() && (!inactive || domain->inactive_xml.empty());
  return use_live ? domain->live_xml : domain->inactive_xml;
}

Result<void> FakeHypervisor::define(const std::string& xml) {
  Lock lock(mutex_);
  BOOST_OUTCOME_TRY(const DomainSummary summary, summarize_domain(xml));
  if (auto error = disturb(lock, "define", summary.name)) return *error;
  const bool is_new = !domains_.contains(summary.name);
  Domain& domain = domains_[summary.name];
  if (!is_new && !summary.uuid.empty() && summary.uuid != domain.info.uuid)
    return Error("failed to define domain '" + summary.name + "': operation failed: domain '" +
                     summary.name + "' already exists with uuid " + domain.info.uuid,
                 EEXIST);
  domain.inactive_xml = xml;
  domain.info.name = summary.name;
  if (is_new || !summary.uuid.empty()) domain.info.uuid = summary.uuid;
  domain.info.title = summary.title;
  domain.info.memory_kib = summary.memory_kib;
  domain.info.vcpus = summary.vcpus;
  domain.info.persistent = true;
  if (is_new) {
    domain.info.state = DomainState::shut_off;
    domain.info.reason = "unknown";
  }
  history_.push_back("define " + summary.name);
  emit(lock, DomainEvent::Kind::defined, summary.name, is_new ? "added" : "updated");
  return success();
}

Result<void> FakeHypervisor::undefine(const std::string& name) {
  Lock lock(mutex_);
  BOOST_OUTCOME_TRY(Domain * domain, enter(lock, "undefine", name));
  if (domain->inactive_xml.empty())
    return Error("failed to undefine domain '" + name +
                     "': Requested operation is not valid: cannot undefine transient domain",
                 EINVAL);
  history_.push_back("undefine " + name);
  if (is_active(*domain)) {
    domain->inactive_xml.clear();
    domain->info.persistent = false;
    domain->info.autostart = false;
  } else {
    domains_.erase(name);
  }
  emit(lock, DomainEvent::Kind::undefined, name, "removed");
  return success();
}

Result<void> FakeHypervisor::set_autostart(const std::string& name, bool on) {
  Lock lock(mutex_);
  BOOST_OUTCOME_TRY(Domain * domain, enter(lock, "set_autostart", name));
  domain->info.autostart = on;
  history_.push_back("autostart " + name + (on ? " on" : " off"));
  return success();
}

Result<void> FakeHypervisor::start(const std::string& name, bool paused) {
  Lock lock(mutex_);
  BOOST_OUTCOME_TRY(Domain * domain, enter(lock, "start", name));
  if (is_active(*domain))
    return Error("failed to start domain '" + name +
                     "': Requested operation is not valid: domain is already running",
                 EINVAL);
  if (veto_)
    if (const auto refusal = veto_(name))
      return Error(
          "failed to start domain '" + name + "': Hook script execution failed: " + *refusal,
          EPERM);
  domain->pid = next_pid_++;
  domain->live_xml = domain->inactive_xml;
  domain->info.state = paused ? DomainState::paused : DomainState::running;
  domain->info.reason = paused ? "user" : "booted";
  history_.push_back("start " + name + (paused ? " paused" : ""));
  emit(lock, DomainEvent::Kind::started, name, "booted");
  if (paused) emit(lock, DomainEvent::Kind::suspended, name, "paused");
  return success();
}

Result<void> FakeHypervisor::resume(const std::string& name) {
  Lock lock(mutex_);
  BOOST_OUTCOME_TRY(Domain * domain, enter(lock, "resume", name));
  if (!is_active(*domain)) return not_running("resume", name);
  history_.push_back("resume " + name);
  if (domain->info.state == DomainState::running) return success();
  domain->info.state = DomainState::running;
  domain->info.reason = "unpaused";
  emit(lock, DomainEvent::Kind::resumed, name, "unpaused");
  return success();
}

Result<void> FakeHypervisor::suspend(const std::string& name) {
  Lock lock(mutex_);
  BOOST_OUTCOME_TRY(Domain * domain, enter(lock, "suspend", name));
  if (!is_active(*domain)) return not_running("suspend", name);
  history_.push_back("suspend " + name);
  if (domain->info.state == DomainState::paused) return success();
  domain->info.state = DomainState::paused;
  domain->info.reason = "user";
  emit(lock, DomainEvent::Kind::suspended, name, "paused");
  return success();
}

Result<void> FakeHypervisor::shutdown(const std::string& name) {
  Lock lock(mutex_);
  BOOST_OUTCOME_TRY(Domain * domain, enter(lock, "shutdown", name));
  if (!is_active(*domain)) return not_running("shutdown", name);
  history_.push_back("shutdown " + name);
  if (!domain->obeys_shutdown || domain->info.state != DomainState::running) return success();
  stop(lock, name, "shutdown", "shutdown");
  return success();
}

Result<void> FakeHypervisor::destroy(const std::string& name) {
  Lock lock(mutex_);
  BOOST_OUTCOME_TRY(Domain * domain, enter(lock, "destroy", name));
  if (!is_active(*domain)) return not_running("destroy", name);
  history_.push_back("destroy " + name);
  stop(lock, name, "destroyed", "destroyed");
  return success();
}

Result<int> FakeHypervisor::process_id(const std::string& name) {
  Lock lock(mutex_);
  if (auto error = disturb(lock, "process_id", name)) return *error;
  const auto found = domains_.find(name);
  if (found == domains_.end() || !is_active(found->second))
    return Error("domain '" + name + "' is not running", ENOENT);
  return found->second.pid;
}

Result<std::uint64_t> FakeHypervisor::free_memory_bytes() {
  Lock lock(mutex_);
  if (auto error = disturb(lock, "free_memory_bytes", "")) return *error;
  return free_memory_bytes_;
}

Result<std::string> FakeHypervisor::version() {
  Lock lock(mutex_);
  if (auto error = disturb(lock, "version", "")) return *error;
  return std::string("QEMU 7.2.0 / libvirt 9.0.0");
}

void FakeHypervisor::on_event(std::function<void(DomainEvent)> handler) {
  const Lock lock(mutex_);
  handler_ = std::move(handler);
}

}  // namespace havm
