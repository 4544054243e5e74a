// The job of LibvirtEvents: carry news from libvirt's event loop thread to the handler, on a thread
// of its own, so that a slow handler (or one that calls libvirt) never stops the loop; and see to
// it that a lost connection is opened again, since events flow only over an open one.
//
// Invariants
//  1. The handler runs on one thread, in the order of the events, and never after stop() returned.
//  2. At most `queued_events_max` events wait; beyond that the oldest is dropped (poll too).
// LibvirtEvents is used by the Hypervisor that owns it; EventQueue by any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <libvirt/libvirt.h>

#include "hypervisor/hypervisor.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

// Shared by the callbacks of all connections and the delivering thread.
class EventQueue {
 public:
  static constexpr std::size_t queued_events_max = 1024;

  void push(DomainEvent event);
  void stop();

  struct News {
    bool stop = false;
    std::vector<DomainEvent> events;
  };
  // Waits until there is news, at most `patience`.
  News wait(std::chrono::milliseconds patience);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<DomainEvent> events_;
  bool stopped_ = false;
};

// The callbacks of one connection; they are taken back on destruction, before the connection is
// closed.
class EventRegistration {
 public:
  EventRegistration() = default;
  EventRegistration(const EventRegistration&) = delete;
  EventRegistration& operator=(const EventRegistration&) = delete;
  ~EventRegistration();

  // Lifecycle, disk error and monitor error events of all domains.
  Result<void> attach(virConnectPtr connection, const std::shared_ptr<EventQueue>& queue);

 private:
  Result<void> add(int event_id, virConnectDomainEventGenericCallback callback,
                   const std::shared_ptr<EventQueue>& queue);

  virConnectPtr connection_ = nullptr;
  std::vector<int> callback_ids_;
};

class LibvirtEvents {
 public:
  static constexpr std::chrono::milliseconds check_interval{1'000};

  // `check` makes sure that there is an open connection; it is called on the delivering thread
  // every check_interval. (libvirt's close callback would be quicker, but it cannot be taken back
  // from a connection that is lost, which then is never freed.)
  LibvirtEvents(std::shared_ptr<EventQueue> queue, std::function<void()> check);
  ~LibvirtEvents() { stop(); }
  LibvirtEvents(const LibvirtEvents&) = delete;
  LibvirtEvents& operator=(const LibvirtEvents&) = delete;

  void on_event(std::function<void(DomainEvent)> handler);
  void stop();

 private:
  void deliver();

  const std::shared_ptr<EventQueue> queue_;
  const std::function<void()> check_;
  std::mutex handler_mutex_;
  std::function<void(DomainEvent)> handler_;
  std::thread thread_;
};

}  // namespace havm
