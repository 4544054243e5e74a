#include "vmrepl/session/guard_client.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

constexpr std::size_t packet_bytes_max = 512;

int connect_to(const std::string& path, UniqueFd& fd) {
  sockaddr_un address{};
  if (path.size() >= sizeof address.sun_path) return ENAMETOOLONG;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  fd.reset(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return errno;
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  return ::connect(fd.get(), generic, sizeof address) == 0 ? 0 : errno;
}

}  // namespace

GuardClient::GuardClient(boost::asio::any_io_executor executor, std::string path, std::string vm)
    : executor_(std::move(executor)), path_(std::move(path)), vm_(std::move(vm)) {}

bool GuardClient::connected() {
  if (socket_) return true;
  const TimePoint now = BootClock::now();
  if (path_.empty() || (tried_at_ != TimePoint() && now - tried_at_ < retry_delay)) return false;
  tried_at_ = now;
  UniqueFd fd;
  if (const int error = connect_to(path_, fd); error != 0) {
    if (!std::exchange(told_, true))
      spdlog::warn("vm={} the guard at {} cannot be reached ({}); its leases are not renewed", vm_,
                   path_, std::strerror(error));
    return false;
  }
  if (std::exchange(told_, false)) spdlog::info("vm={} the guard is back", vm_);
  socket_.emplace(executor_, fd.release());
  read_answers();
  return true;
}

void GuardClient::renew(Epoch epoch, TimePoint requested) {
  if (!connected()) return;
  const std::string packet =
      "renew " + vm_ + " " + std::to_string(epoch.value) + " " + std::to_string(to_ns(requested));
  const ssize_t n = ::send(socket_->native_handle(), packet.data(), packet.size(),
                           MSG_NOSIGNAL | MSG_DONTWAIT | MSG_EOR);
  // A full socket loses this renewal; the next comes a keepalive later.
  if (n < 0 && errno != EAGAIN && errno != EINTR) disconnect(std::strerror(errno));
}

void GuardClient::read_answers() {
  socket_->async_wait(
      boost::asio::posix::stream_descriptor::wait_read, [this](const boost::system::error_code& e) {
        if (e || !socket_) return;
        std::array<char, packet_bytes_max> packet{};
        const ssize_t n =
            ::recv(socket_->native_handle(), packet.data(), packet.size(), MSG_DONTWAIT);
        if (n == 0) return disconnect("it closed the connection");
        if (n < 0 && errno != EAGAIN && errno != EINTR) return disconnect(std::strerror(errno));
        const std::string text(packet.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
        if (text.starts_with("error"))
          spdlog::warn("vm={} the guard refused a renewal: {}", vm_, text);
        read_answers();
      });
}

void GuardClient::disconnect(const std::string& why) {
  spdlog::warn("vm={} the connection to the guard ended: {}", vm_, why);
  boost::system::error_code ignored;
  socket_->close(ignored);
  socket_.reset();
  told_ = true;
}

}  // namespace havm
