#include "agent/liveness/heartbeat_driver.hpp"

#include <array>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "agent/liveness/heartbeat_codec.hpp"
#include "vmrepl/base/spawn_supervised.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using asio::ip::udp;
constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

}  // namespace

struct HeartbeatDriver::Shared {
  Shared(asio::any_io_executor ex, HeartbeatConfig c, Changed f)
      : executor(ex),
        config(std::move(c)),
        changed(std::move(f)),
        liveness(config.liveness, BootClock::now()),
        timer(ex) {}

  asio::any_io_executor executor;
  HeartbeatConfig config;
  Changed changed;
  PeerLiveness liveness;
  asio::steady_timer timer;
  std::vector<udp::socket> sockets;
  std::vector<udp::endpoint> targets;
  // Starts at the boot time so that a restarted agent of the same boot goes on above its old
  // counters.
  std::uint64_t counter = static_cast<std::uint64_t>(to_ns(BootClock::now()));
  bool stopped = false;

  [[nodiscard]] std::optional<Heartbeat> from_partner(std::string_view datagram) const {
    auto beat = decode_heartbeat(datagram);
    if (beat && (beat->cluster != config.cluster || beat->node != config.partner)) beat.reset();
    return beat;
  }
  void tell(LivenessChange change) {
    if (change != LivenessChange::none && !stopped) changed(change);
  }
};

Result<std::unique_ptr<HeartbeatDriver>> HeartbeatDriver::start(asio::any_io_executor executor,
                                                                HeartbeatConfig config,
                                                                Changed changed) {
  auto shared = std::make_shared<Shared>(executor, std::move(config), std::move(changed));
  const HeartbeatConfig& c = shared->config;
  for (std::size_t i = 0; i < c.own_links.size(); ++i) {
    boost::system::error_code ec;
    const auto own = asio::ip::make_address(c.own_links[i], ec);
    if (ec)
      return Error("link address " + c.own_links[i] + " of node " + c.node + " is no IP address");
    udp::socket socket(executor);
    socket.open(own.is_v6() ? udp::v6() : udp::v4(), ec);
    if (!ec) socket.bind(udp::endpoint(own, c.port), ec);
    if (ec)
      return Error("cannot listen for heartbeats on " + c.own_links[i] + " UDP port " +
                       std::to_string(c.port) + ": " + ec.message() +
                       "; is the address up on this host and the port free?",
                   ec.value());
    shared->sockets.push_back(std::move(socket));
    shared->targets.emplace_back(asio::ip::make_address(c.partner_links[i]), c.port);
  }
  spawn_supervised(executor, "heartbeat-send", send_loop(shared));
  for (std::size_t i = 0; i < shared->sockets.size(); ++i)
    spawn_supervised(executor, "heartbeat-receive", receive_loop(shared, i));
  return std::unique_ptr<HeartbeatDriver>(new HeartbeatDriver(std::move(shared)));
}

HeartbeatDriver::~HeartbeatDriver() {
  shared_->stopped = true;
  shared_->timer.cancel();
  for (auto& socket : shared_->sockets) {
    boost::system::error_code ignored;
    socket.close(ignored);
  }
}

const PeerLiveness& HeartbeatDriver::liveness() const {
  return shared_->liveness;
}

asio::awaitable<void> HeartbeatDriver::send_loop(std::shared_ptr<Shared> shared) {
  while (!shared->stopped) {
    Heartbeat beat;
    beat.cluster = shared->config.cluster;
    beat.node = shared->config.node;
    beat.boot_id = shared->config.boot_id;
    beat.counter = ++shared->counter;
    const std::string text = encode_heartbeat(beat);
    for (std::size_t i = 0; i < shared->sockets.size(); ++i) {
      boost::system::error_code ignored;  // a link that is down is what the partner notices
      shared->sockets[i].send_to(asio::buffer(text), shared->targets[i], 0, ignored);
    }
    shared->tell(shared->liveness.tick(BootClock::now()));
    shared->timer.expires_after(shared->config.interval);
    auto waited = co_await shared->timer.async_wait(as_result);
    if (std::get<0>(waited) && shared->stopped) co_return;
  }
}

asio::awaitable<void> HeartbeatDriver::receive_loop(std::shared_ptr<Shared> shared,
                                                    std::size_t link) {
  std::array<char, heartbeat_bytes_max> bytes{};
  udp::endpoint from;
  while (!shared->stopped) {
    auto received =
        co_await shared->sockets[link].async_receive_from(asio::buffer(bytes), from, as_result);
    if (shared->stopped) co_return;
    if (std::get<0>(
            received)) {  // ICMP errors and the like: the pace of the sender bounds this loop
      asio::steady_timer pause(shared->executor, shared->config.interval);
      co_await pause.async_wait(as_result);
      continue;
    }
    const std::string_view datagram(bytes.data(), std::get<1>(received));
    if (const auto beat = shared->from_partner(datagram))
      shared->tell(
          shared->liveness.heartbeat(link, beat->boot_id, beat->counter, BootClock::now()));
  }
}

}  // namespace havm
