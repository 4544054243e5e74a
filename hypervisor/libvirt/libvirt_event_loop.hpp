// The job of LibvirtEventLoop: run libvirt's event loop (one per process, that is libvirt's design)
// on a thread as long as anybody holds it. Keep-alive, close and domain callbacks all come from it.
// It also makes libvirt quiet: errors are read by the caller, never printed on stderr. shared()
// must be called before the first connection is opened. Any thread.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "vmrepl/base/result.hpp"

namespace havm {

class LibvirtEventLoop {
 public:
  // The loop of this process, started when nobody holds it yet.
  static Result<std::shared_ptr<LibvirtEventLoop>> shared();

  // Stops the thread. Connections must be closed before; what they left to free later is freed
  // here.
  ~LibvirtEventLoop();
  LibvirtEventLoop(const LibvirtEventLoop&) = delete;
  LibvirtEventLoop& operator=(const LibvirtEventLoop&) = delete;

 private:
  LibvirtEventLoop();
  void run();

  std::atomic<bool> stopping_{false};
  int wake_timer_ = -1;
  std::thread thread_;
};

}  // namespace havm
