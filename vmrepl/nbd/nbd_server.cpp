#include "vmrepl/nbd/nbd_server.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fcntl.h>
#include <spdlog/spdlog.h>

#include "vmrepl/nbd/nbd_connection.hpp"
#include "vmrepl/nbd/unix_listener.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using Acceptor =
    asio::basic_socket_acceptor<asio::local::stream_protocol, asio::io_context::executor_type>;

// After a failed accept (for instance no descriptor left) it is tried again this much later.
constexpr std::chrono::milliseconds accept_retry{100};

Result<void> check_geometry(const BlockService& service, const std::string& label) {
  const std::uint32_t alignment = service.alignment_bytes();
  if (!std::has_single_bit(alignment) || alignment > nbd_payload_bytes_max)
    return Error(label + ": alignment " + std::to_string(alignment) + " is no usable block size",
                 EINVAL);
  if (service.size_bytes() % alignment != 0)
    return Error(label + ": size " + std::to_string(service.size_bytes()) +
                     " is not a multiple of " + std::to_string(alignment) +
                     "; grow the disk to a multiple of it",
                 EINVAL);
  return success();
}

}  // namespace

struct NbdServer::Impl final : std::enable_shared_from_this<Impl>, NbdConnection::Owner {
  Impl(asio::io_context& context, BlockService& served, NbdServerOptions given)
      : io(context),
        service(served),
        options(std::move(given)),
        acceptor(context.get_executor()),
        retry_timer(context) {}

  Result<void> start();
  void stop();
  void accept();
  void accepted(NbdConnection::Socket socket);
  [[nodiscard]] std::size_t clients() const;
  void notify();

  void client_ready() override { notify(); }
  void connection_closed(NbdConnection& connection) override;

  asio::io_context& io;
  BlockService& service;
  const NbdServerOptions options;
  ClientsChanged clients_changed;
  std::optional<UnixListener> listener;  // engaged while serving
  Acceptor acceptor;
  asio::steady_timer retry_timer;
  // Of this start(): an accept that completed before a stop() must not count after the next
  // start().
  std::uint64_t generation = 0;
  std::vector<std::shared_ptr<NbdConnection>> connections;  // at most nbd_connections_max
};

Result<void> NbdServer::Impl::start() {
  if (listener) return success();
  BOOST_OUTCOME_TRY(check_geometry(service, options.label));
  BOOST_OUTCOME_TRY(auto opened, UnixListener::open(options.socket_path, options.socket_mode));
  UniqueFd fd = opened.take_fd();
  boost::system::error_code error;
  acceptor.assign(asio::local::stream_protocol(), fd.get(), error);
  if (error) return errno_error("cannot use the socket " + options.socket_path, error.value());
  static_cast<void>(fd.release());
  listener.emplace(std::move(opened));
  ++generation;
  accept();
  return success();
}

void NbdServer::Impl::stop() {
  if (!listener) return;
  boost::system::error_code ignored;  // the descriptor is gone either way
  acceptor.close(ignored);
  retry_timer.cancel();
  listener.reset();
  ++generation;
  const std::size_t had = clients();
  const auto closing = std::exchange(connections, {});
  for (const auto& connection : closing)
    connection->close();
  if (had > 0) notify();
}

void NbdServer::Impl::accept() {
  acceptor.async_accept([self = shared_from_this(), mine = generation](
                            const boost::system::error_code& error, NbdConnection::Socket socket) {
    if (self->generation != mine) return;
    if (!error) {
      self->accepted(std::move(socket));
      if (self->generation == mine) self->accept();
      return;
    }
    spdlog::warn("{}: cannot accept an NBD client: {}", self->options.label, error.message());
    self->retry_timer.expires_after(accept_retry);
    self->retry_timer.async_wait([self, mine](const boost::system::error_code&) {
      if (self->generation == mine) self->accept();
    });
  });
}

void NbdServer::Impl::accepted(NbdConnection::Socket socket) {
  if (connections.size() >= nbd_connections_max) {
    spdlog::warn("{}: NBD client refused: {} connections are open", options.label,
                 connections.size());
    return;
  }
  if (::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC) != 0)
    spdlog::warn("{}: cannot mark an NBD connection close-on-exec", options.label);
  NbdExport served{options.export_name, service.size_bytes(), service.alignment_bytes()};
  connections.push_back(std::make_shared<NbdConnection>(std::move(socket), service,
                                                        std::move(served), options.label, *this));
  connections.back()->start(options.handshake_timeout);
}

void NbdServer::Impl::connection_closed(NbdConnection& connection) {
  const bool was_client = connection.is_client();
  std::erase_if(connections, [&](const auto& other) { return other.get() == &connection; });
  if (was_client) notify();
}

std::size_t NbdServer::Impl::clients() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(connections, [](const auto& c) { return c->is_client(); }));
}

void NbdServer::Impl::notify() {
  // A copy: the callback may replace itself.
  if (const ClientsChanged callback = clients_changed) callback(clients());
}

NbdServer::NbdServer(boost::asio::io_context& io, BlockService& service, NbdServerOptions options)
    : impl_(std::make_shared<Impl>(io, service, std::move(options))) {}

NbdServer::~NbdServer() {
  impl_->clients_changed = nullptr;
  impl_->stop();
}

Result<void> NbdServer::start() {
  return impl_->start();
}
void NbdServer::stop() {
  impl_->stop();
}
bool NbdServer::serving() const {
  return impl_->listener.has_value();
}
std::size_t NbdServer::clients() const {
  return impl_->clients();
}
void NbdServer::on_clients_changed(ClientsChanged callback) {
  impl_->clients_changed = std::move(callback);
}

}  // namespace havm
