// The job of FakeHypervisor: a virtualisation host in memory, for tests. It keeps libvirt's rules
// (what may be started, defined, destroyed in which state) and its error texts, and can be told to
// misbehave.
//
// Guarantees: thread-safe; deterministic (no clock, no thread of its own, process ids count up from
// `first_pid`). Events are delivered on the calling thread, after the call has taken effect and
// without a lock held, so a handler may call back.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "hypervisor/hypervisor.hpp"

namespace havm {

class FakeHypervisor final : public Hypervisor {
 public:
  static constexpr int first_pid = 1000;

  // --- behaviour for tests ---

  // `call` is the name of a Hypervisor function ("start", "domain_xml", …), `domain` its domain or
  // "" for any. The next `times` such calls return `error` and change nothing.
  void fail(const std::string& call, const std::string& domain, Error error, int times = 1);
  // Such calls wait (as a libvirtd that does not answer) until release() and then proceed.
  void hang(const std::string& call, const std::string& domain = "");
  void release();
  // Number of calls that are waiting in a hang().
  int hanging();

  // Refuses start() with the returned text, as the libvirt hook does.
  void set_start_veto(std::function<std::optional<std::string>(const std::string& domain)> veto);

  // The QEMU of a running domain disappears, as after SIGKILL or a crash: as with libvirt the event
  // says "failed" and the state's reason "crashed".
  void kill_process(const std::string& name);
  // The guest powers itself off.
  void guest_powers_off(const std::string& name);
  // When false (the default is true) the guest ignores shutdown().
  void set_guest_obeys_shutdown(const std::string& name, bool obeys);
  // The domain is paused by an I/O error on `disk`.
  void io_error(const std::string& name, const std::string& disk);
  // pvpanic: the guest's kernel panicked.
  void guest_panics(const std::string& name);
  void set_free_memory_bytes(std::uint64_t bytes);

  // Every call so far that names a domain and was let through, for instance "start web1 paused",
  // "define web1", "destroy web1"; reading calls are not kept.
  std::vector<std::string> history();

  // --- Hypervisor ---
  Result<std::vector<DomainInfo>> list_domains() override;
  Result<DomainInfo> domain_info(const std::string& name) override;
  Result<std::string> domain_xml(const std::string& name, bool inactive) override;
  Result<void> define(const std::string& xml) override;
  Result<void> undefine(const std::string& name) override;
  Result<void> set_autostart(const std::string& name, bool on) override;
  Result<void> start(const std::string& name, bool paused) override;
  Result<void> resume(const std::string& name) override;
  Result<void> suspend(const std::string& name) override;
  Result<void> shutdown(const std::string& name) override;
  Result<void> destroy(const std::string& name) override;
  Result<int> process_id(const std::string& name) override;
  Result<std::uint64_t> free_memory_bytes() override;
  Result<std::string> version() override;
  void on_event(std::function<void(DomainEvent)> handler) override;

 private:
  struct Domain {
    DomainInfo info;
    std::string inactive_xml;  // empty: not defined (runs only until it stops)
    std::string live_xml;      // empty: not running
    int pid = 0;
    bool obeys_shutdown = true;
  };
  struct Fault {
    std::string call;
    std::string domain;
    Error error;
    int times_left;
  };
  using Key = std::pair<std::string, std::string>;  // call, domain
  using Lock = std::unique_lock<std::mutex>;

  // Waits out hangs, then returns the injected error if there is one.
  std::optional<Error> disturb(Lock& lock, const std::string& call, const std::string& domain);
  bool is_hung(const std::string& call, const std::string& domain) const;
  // disturb() and look up.
  Result<Domain*> enter(Lock& lock, const char* call, const std::string& name);
  static bool is_active(const Domain& domain);
  // Forgets the process; the domain is gone when it was not defined.
  void stop(Lock& lock, const std::string& name, const char* reason, const char* event_detail);
  void emit(Lock& lock, DomainEvent::Kind kind, const std::string& domain, std::string detail);

  std::mutex mutex_;
  std::condition_variable released_;
  std::map<std::string, Domain> domains_;
  std::vector<Fault> faults_;
  std::vector<Key> hangs_;
  std::vector<std::string> history_;
  std::function<std::optional<std::string>(const std::string&)> veto_;
  std::function<void(DomainEvent)> handler_;
  std::uint64_t free_memory_bytes_ = std::uint64_t{64} << 30;
  int next_pid_ = first_pid;
  int hanging_ = 0;
};

}  // namespace havm
