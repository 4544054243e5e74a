#include "hypervisor/libvirt/libvirt_words.hpp"

#include <array>
#include <cerrno>
#include <cstddef>
#include <span>
#include <utility>

namespace havm {
namespace {

using Words = std::span<const char* const>;

const char* word(Words words, int index, const char* otherwise) {
  if (index < 0 || static_cast<std::size_t>(index) >= words.size()) return otherwise;
  return words[static_cast<std::size_t>(index)];
}

// Reasons, in the order of libvirt's enumerations (virDomainRunningReason, …).
constexpr const char* running_reasons[] = {
    "unknown",       "booted",   "migrated",           "restored",
    "from snapshot", "unpaused", "migration canceled", "save canceled",
    "event wakeup",  "crashed",  "post-copy",          "post-copy failed"};
constexpr const char* paused_reasons[] = {
    "unknown",   "user",        "migrating",     "saving",           "dumping",
    "I/O error", "watchdog",    "from snapshot", "shutting down",    "creating snapshot",
    "crashed",   "starting up", "post-copy",     "post-copy failed", "api error"};
constexpr const char* shutdown_reasons[] = {"unknown", "user"};
constexpr const char* shut_off_reasons[] = {"unknown", "shutdown",      "destroyed",
                                            "crashed", "migrated",      "saved",
                                            "failed",  "from snapshot", "daemon"};
constexpr const char* crashed_reasons[] = {"unknown", "panicked"};

// Details of lifecycle events, in the order of virDomainEvent…DetailType.
constexpr const char* defined_details[] = {"added", "updated", "renamed", "snapshot"};
constexpr const char* undefined_details[] = {"removed", "renamed"};
constexpr const char* started_details[] = {"booted", "migrated", "restored", "snapshot",
                                           "event wakeup"};
constexpr const char* suspended_details[] = {"paused",    "migrated",  "I/O error",
                                             "watchdog",  "restored",  "snapshot",
                                             "API error", "post-copy", "post-copy failed"};
constexpr const char* resumed_details[] = {"unpaused", "migrated", "snapshot", "post-copy",
                                           "post-copy failed"};
constexpr const char* stopped_details[] = {"shutdown", "destroyed", "crashed", "migrated",
                                           "saved",    "failed",    "snapshot"};
constexpr const char* shutdown_details[] = {"finished", "guest request", "host request"};
constexpr const char* pm_suspended_details[] = {"memory", "disk"};
constexpr const char* crashed_details[] = {"panicked", "crashloaded"};

struct LifecycleWords {
  int event;
  DomainEvent::Kind kind;
  Words details;
};
using Kind = DomainEvent::Kind;
constexpr std::array<LifecycleWords, 9> lifecycle_words{{
    {VIR_DOMAIN_EVENT_DEFINED, Kind::defined, defined_details},
    {VIR_DOMAIN_EVENT_UNDEFINED, Kind::undefined, undefined_details},
    {VIR_DOMAIN_EVENT_STARTED, Kind::started, started_details},
    {VIR_DOMAIN_EVENT_SUSPENDED, Kind::suspended, suspended_details},
    {VIR_DOMAIN_EVENT_RESUMED, Kind::resumed, resumed_details},
    {VIR_DOMAIN_EVENT_STOPPED, Kind::stopped, stopped_details},
    {VIR_DOMAIN_EVENT_SHUTDOWN, Kind::shutdown, shutdown_details},
    {VIR_DOMAIN_EVENT_PMSUSPENDED, Kind::suspended, pm_suspended_details},
    {VIR_DOMAIN_EVENT_CRASHED, Kind::crashed, crashed_details},
}};

int errno_of(int libvirt_code) {
  constexpr std::pair<int, int> codes[] = {
      {VIR_ERR_NO_DOMAIN, ENOENT},           {VIR_ERR_DOM_EXIST, EEXIST},
      {VIR_ERR_OPERATION_INVALID, EINVAL},   {VIR_ERR_INVALID_ARG, EINVAL},
      {VIR_ERR_XML_ERROR, EINVAL},           {VIR_ERR_XML_DETAIL, EINVAL},
      {VIR_ERR_CONFIG_UNSUPPORTED, ENOTSUP}, {VIR_ERR_NO_SUPPORT, ENOTSUP},
      {VIR_ERR_OPERATION_DENIED, EACCES},    {VIR_ERR_AUTH_FAILED, EACCES},
      {VIR_ERR_AUTH_UNAVAILABLE, EACCES},    {VIR_ERR_ACCESS_DENIED, EACCES},
      {VIR_ERR_HOOK_SCRIPT_FAILED, EPERM},   {VIR_ERR_OPERATION_TIMEOUT, ETIMEDOUT},
      {VIR_ERR_RESOURCE_BUSY, EBUSY},        {VIR_ERR_NO_MEMORY, ENOMEM},
      {VIR_ERR_NO_CONNECT, ENOTCONN}};
  for (const auto& [from, to] : codes)
    if (from == libvirt_code) return to;
  return 0;
}

}  // namespace

DomainState to_domain_state(int libvirt_state) {
  switch (libvirt_state) {
    case VIR_DOMAIN_RUNNING:
    case VIR_DOMAIN_BLOCKED:
      return DomainState::running;
    case VIR_DOMAIN_PAUSED:
      return DomainState::paused;
    case VIR_DOMAIN_SHUTDOWN:
      return DomainState::shutting_down;
    case VIR_DOMAIN_SHUTOFF:
      return DomainState::shut_off;
    case VIR_DOMAIN_CRASHED:
      return DomainState::crashed;
    case VIR_DOMAIN_PMSUSPENDED:
      return DomainState::pm_suspended;
    default:
      return DomainState::unknown;
  }
}

const char* reason_in_words(int libvirt_state, int reason) {
  switch (libvirt_state) {
    case VIR_DOMAIN_RUNNING:
      return word(running_reasons, reason, "unknown");
    case VIR_DOMAIN_PAUSED:
      return word(paused_reasons, reason, "unknown");
    case VIR_DOMAIN_SHUTDOWN:
      return word(shutdown_reasons, reason, "unknown");
    case VIR_DOMAIN_SHUTOFF:
      return word(shut_off_reasons, reason, "unknown");
    case VIR_DOMAIN_CRASHED:
      return word(crashed_reasons, reason, "unknown");
    default:
      return "unknown";
  }
}

DomainEvent lifecycle_event(const std::string& domain, int event, int detail) {
  for (const LifecycleWords& words : lifecycle_words)
    if (words.event == event) return {words.kind, domain, word(words.details, detail, "unknown")};
  return {Kind::defined, domain, "unknown event"};
}

Error to_error(const std::string& what, const virError* error) {
  if (error == nullptr) return Error(what + ": libvirt gave no reason");
  const char* text = error->message;
  return Error(text == nullptr ? what : what + ": " + text, errno_of(error->code));
}

}  // namespace havm
