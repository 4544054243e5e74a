#include "hypervisor/libvirt/libvirt_event_loop.hpp"

#include <chrono>
#include <mutex>

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include "hypervisor/libvirt/libvirt_words.hpp"

namespace havm {
namespace {

void say_nothing(void*, virErrorPtr) {}
void wake(int, void*) {}

// Once per process: the default implementation cannot be unregistered.
bool register_default_loop() {
  if (virInitialize() < 0) return false;
  virSetErrorFunc(nullptr, say_nothing);
  return virEventRegisterDefaultImpl() == 0;
}

}  // namespace

Result<std::shared_ptr<LibvirtEventLoop>> LibvirtEventLoop::shared() {
  static std::mutex mutex;
  static std::weak_ptr<LibvirtEventLoop> running;
  static const bool registered = register_default_loop();
  if (!registered) return to_error("cannot initialise libvirt", virGetLastError());
  const std::lock_guard lock(mutex);
  if (auto loop = running.lock()) return loop;
  std::shared_ptr<LibvirtEventLoop> loop(new LibvirtEventLoop());
  running = loop;
  return loop;
}

LibvirtEventLoop::LibvirtEventLoop() {
  // A timer that is off (-1); setting it to 0 makes a sleeping loop return.
  wake_timer_ = virEventAddTimeout(-1, wake, nullptr, nullptr);
  thread_ = std::thread([this] { run(); });
}

LibvirtEventLoop::~LibvirtEventLoop() {
  stopping_ = true;
  virEventUpdateTimeout(wake_timer_, 0);
  thread_.join();
  // libvirt frees removed handles in the next turn of the loop; the still armed timer keeps it
  // short.
  constexpr int turns = 3;
  for (int turn = 0; turn < turns; ++turn)
    virEventRunDefaultImpl();
  virEventRemoveTimeout(wake_timer_);
}

void LibvirtEventLoop::run() {
  constexpr std::chrono::milliseconds pause_after_error{100};
  while (!stopping_)
    if (virEventRunDefaultImpl() < 0) std::this_thread::sleep_for(pause_after_error);
}

}  // namespace havm
