#include "hypervisor/libvirt/libvirt_events.hpp"

#include <utility>

#include <libvirt/virterror.h>

#include "hypervisor/libvirt/libvirt_words.hpp"

namespace havm {
namespace {

// What the callbacks get as their opaque pointer: a reference of their own, freed by libvirt.
using QueueRef = std::shared_ptr<EventQueue>;

EventQueue& queue_of(void* opaque) {
  return **static_cast<QueueRef*>(opaque);
}

void free_queue_ref(void* opaque) {
  delete static_cast<QueueRef*>(opaque);
}

std::string name_of(virDomainPtr domain) {
  const char* name = virDomainGetName(domain);
  return name == nullptr ? "" : name;
}

void on_lifecycle(virConnectPtr, virDomainPtr domain, int event, int detail, void* opaque) {
  queue_of(opaque).push(lifecycle_event(name_of(domain), event, detail));
}

void on_io_error(virConnectPtr, virDomainPtr domain, const char* source, const char* device,
                 int action, const char* reason, void* opaque) {
  const auto text = [](const char* t) { return std::string(t == nullptr ? "" : t); };
  std::string detail = "I/O error on " + text(device);
  if (!text(source).empty()) detail += " (" + text(source) + ")";
  if (!text(reason).empty()) detail += ": " + text(reason);
  constexpr const char* actions[] = {"", ", the VM is paused", ", reported to the guest"};
  if (action >= 0 && action < 3) detail += actions[action];
  queue_of(opaque).push({DomainEvent::Kind::io_error, name_of(domain), std::move(detail)});
}

void on_control_error(virConnectPtr, virDomainPtr domain, void* opaque) {
  queue_of(opaque).push(
      {DomainEvent::Kind::control_error, name_of(domain), "libvirt lost the monitor of QEMU"});
}

// libvirt keeps callbacks of different signatures in one type; this is its
// VIR_DOMAIN_EVENT_CALLBACK.
template <class Callback>
virConnectDomainEventGenericCallback generic(Callback callback) {
  return reinterpret_cast<virConnectDomainEventGenericCallback>(
      reinterpret_cast<void (*)()>(callback));
}

}  // namespace

// --- EventQueue ---

void EventQueue::push(DomainEvent event) {
  const std::lock_guard lock(mutex_);
  if (events_.size() == queued_events_max) events_.pop_front();
  events_.push_back(std::move(event));
  changed_.notify_one();
}

void EventQueue::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_one();
}

EventQueue::News EventQueue::wait(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience, [this] { return stopped_ || !events_.empty(); });
  News news;
  news.stop = stopped_;
  news.events.assign(std::make_move_iterator(events_.begin()),
                     std::make_move_iterator(events_.end()));
  events_.clear();
  return news;
}

// --- EventRegistration ---

Result<void> EventRegistration::add(int event_id, virConnectDomainEventGenericCallback callback,
                                    const std::shared_ptr<EventQueue>& queue) {
  auto* const opaque = new QueueRef(queue);
  const int id = virConnectDomainEventRegisterAny(connection_, nullptr, event_id, callback, opaque,
                                                  free_queue_ref);
  if (id < 0) {
    free_queue_ref(opaque);
    return to_error("cannot listen to libvirt's events", virGetLastError());
  }
  callback_ids_.push_back(id);
  return success();
}

Result<void> EventRegistration::attach(virConnectPtr connection,
                                       const std::shared_ptr<EventQueue>& queue) {
  connection_ = connection;
  BOOST_OUTCOME_TRY(add(VIR_DOMAIN_EVENT_ID_LIFECYCLE, generic(on_lifecycle), queue));
  BOOST_OUTCOME_TRY(add(VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, generic(on_io_error), queue));
  return add(VIR_DOMAIN_EVENT_ID_CONTROL_ERROR, generic(on_control_error), queue);
}

EventRegistration::~EventRegistration() {
  for (const int id : callback_ids_)
    virConnectDomainEventDeregisterAny(connection_, id);
}

// --- LibvirtEvents ---

LibvirtEvents::LibvirtEvents(std::shared_ptr<EventQueue> queue, std::function<void()> check)
    : queue_(std::move(queue)), check_(std::move(check)) {
  thread_ = std::thread([this] { deliver(); });
}

void LibvirtEvents::on_event(std::function<void(DomainEvent)> handler) {
  const std::lock_guard lock(handler_mutex_);
  handler_ = std::move(handler);
}

void LibvirtEvents::stop() {
  queue_->stop();
  if (thread_.joinable()) thread_.join();
}

void LibvirtEvents::deliver() {
  using Clock = std::chrono::steady_clock;
  Clock::time_point next_check = Clock::now() + check_interval;
  while (true) {
    const EventQueue::News news = queue_->wait(check_interval);
    if (news.stop) return;
    // A copy, so that a handler can be replaced by itself.
    std::unique_lock lock(handler_mutex_);
    const auto handler = handler_;
    lock.unlock();
    for (const DomainEvent& event : news.events)
      if (handler) handler(event);
    if (Clock::now() < next_check) continue;
    check_();
    next_check = Clock::now() + check_interval;
  }
}

}  // namespace havm
