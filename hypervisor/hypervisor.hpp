// The job of Hypervisor: everything havm asks of a virtualisation host. Implemented by libvirt/
// and, for tests, by fake/. All calls block (the agent runs them on a worker per VM, with a
// deadline) and may be made from any thread. Errors name the domain and what libvirt said.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vmrepl/base/result.hpp"

namespace havm {

// As libvirt's virDomainState; a SIGSTOPped QEMU is still `running` for libvirt.
enum class DomainState { running, paused, shutting_down, shut_off, crashed, pm_suspended, unknown };
const char* to_string(DomainState state);  // virsh's words: "running", "shut off", …

struct DomainInfo {
  std::string name;
  std::string uuid;
  std::string title;  // empty when none
  DomainState state = DomainState::unknown;
  std::string reason;  // virsh domstate --reason words, for instance "booted", "I/O error"
  bool persistent = false;
  bool autostart = false;
  std::uint64_t memory_kib = 0;
  unsigned vcpus = 0;
};

struct DomainEvent {
  enum class Kind {
    defined,
    undefined,
    started,
    suspended,
    resumed,
    stopped,
    shutdown,
    io_error,
    crashed,       // the guest's kernel panicked (pvpanic)
    control_error  // libvirt lost QEMU's monitor; says nothing about the guest, look at the process
  };
  Kind kind;
  std::string domain;
  std::string detail;  // libvirt's detail in words: "booted", "destroyed", "I/O error on vda", …
};

class Hypervisor {
 public:
  virtual ~Hypervisor() = default;

  virtual Result<std::vector<DomainInfo>> list_domains() = 0;
  // Error.code is ENOENT when there is no such domain ("failed to get domain 'x'").
  virtual Result<DomainInfo> domain_info(const std::string& name) = 0;
  // The persistent definition (inactive, secure XML) when `inactive`, else the live one.
  virtual Result<std::string> domain_xml(const std::string& name, bool inactive) = 0;

  virtual Result<void> define(const std::string& xml) = 0;
  virtual Result<void> undefine(const std::string& name) = 0;  // keeps NVRAM and TPM state
  virtual Result<void> set_autostart(const std::string& name, bool on) = 0;

  virtual Result<void> start(const std::string& name, bool paused) = 0;
  virtual Result<void> resume(const std::string& name) = 0;
  virtual Result<void> suspend(const std::string& name) = 0;
  virtual Result<void> shutdown(const std::string& name) = 0;  // asks the guest, returns at once
  virtual Result<void> destroy(const std::string& name) = 0;

  // Process id of the running domain's QEMU; ENOENT when it is not running.
  virtual Result<int> process_id(const std::string& name) = 0;
  // Bytes of memory the host could still give to guests.
  virtual Result<std::uint64_t> free_memory_bytes() = 0;
  // "QEMU 7.2.x / libvirt 9.0.0" for version output.
  virtual Result<std::string> version() = 0;

  // Called on a thread of the implementation until the Hypervisor is destroyed; events can be lost
  // while libvirtd is away, so poll too.
  virtual void on_event(std::function<void(DomainEvent)> handler) = 0;
};

}  // namespace havm
