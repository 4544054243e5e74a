// The job of LibvirtConnector: hand out a connection that is open, opening a new one (and
// registering for its events) when the last one was lost. Internal to hypervisor/libvirt/. Any
// thread.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "hypervisor/libvirt/libvirt_events.hpp"
#include "hypervisor/libvirt/libvirt_handles.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

// One open connection with its callbacks; closed when its last user lets go.
class LibvirtConnection {
 public:
  static Result<std::shared_ptr<LibvirtConnection>> open(const std::string& uri,
                                                         const std::shared_ptr<EventQueue>& queue);

  [[nodiscard]] virConnectPtr get() const { return handle_.get(); }
  [[nodiscard]] bool alive() const { return !dead_ && virConnectIsAlive(get()) == 1; }
  // Looks at the error of the call that has just failed on this thread and remembers when it means
  // that the connection is gone. True then.
  bool lost();

 private:
  ConnectHandle handle_;
  EventRegistration registration_;  // after handle_: taken back before the connection is closed
  std::atomic<bool> dead_{false};
};

class LibvirtConnector {
 public:
  LibvirtConnector(std::string uri, std::shared_ptr<EventQueue> queue)
      : uri_(std::move(uri)), queue_(std::move(queue)) {}

  Result<std::shared_ptr<LibvirtConnection>> connection();

 private:
  const std::string uri_;
  const std::shared_ptr<EventQueue> queue_;
  std::mutex mutex_;
  std::shared_ptr<LibvirtConnection> current_;
};

}  // namespace havm
