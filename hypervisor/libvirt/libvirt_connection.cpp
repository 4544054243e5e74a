#include "hypervisor/libvirt/libvirt_connection.hpp"

#include <cerrno>

#include "hypervisor/libvirt/libvirt_words.hpp"

namespace havm {
namespace {

// Seconds between probes of a silent libvirtd, and the number of unanswered ones that end it.
constexpr int keep_alive_interval_s = 5;
constexpr unsigned keep_alive_count = 3;

}  // namespace

Result<std::shared_ptr<LibvirtConnection>> LibvirtConnection::open(
    const std::string& uri, const std::shared_ptr<EventQueue>& queue) {
  auto opened = std::make_shared<LibvirtConnection>();
  opened->handle_.reset(virConnectOpen(uri.c_str()));
  if (opened->handle_ == nullptr) {
    Error error = to_error("failed to connect to libvirt at " + uri, virGetLastError());
    error.message += "; is libvirtd running (systemctl status libvirtd)?";
    if (error.code == 0) error.code = ENOTCONN;
    return error;
  }
  // Drivers inside this process (test:///) have no keep-alive and need none.
  virConnectSetKeepAlive(opened->get(), keep_alive_interval_s, keep_alive_count);
  BOOST_OUTCOME_TRY(opened->registration_.attach(opened->get(), queue));
  return opened;
}

bool LibvirtConnection::lost() {
  const virError* error = virGetLastError();
  const bool transport =
      error != nullptr && (error->domain == VIR_FROM_RPC || error->domain == VIR_FROM_REMOTE);
  if (transport || virConnectIsAlive(get()) == 0) dead_ = true;
  return dead_;
}

Result<std::shared_ptr<LibvirtConnection>> LibvirtConnector::connection() {
  const std::lock_guard lock(mutex_);
  if (current_ != nullptr && current_->alive()) return current_;
  current_.reset();
  BOOST_OUTCOME_TRY(current_, LibvirtConnection::open(uri_, queue_));
  return current_;
}

}  // namespace havm
