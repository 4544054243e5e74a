// The job of HeartbeatDriver: send this node's heartbeat on every link at a fixed pace and feed
// what arrives from the partner into PeerLiveness. UDP, one small JSON datagram
// (docs/protocol/peer.md); one driver per pair of nodes. One thread: the executor given. Runs until
// destroyed.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/steady_timer.hpp>

#include "agent/liveness/peer_liveness_core.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

struct HeartbeatConfig {
  std::string cluster;
  std::string node;
  std::string partner;
  std::string boot_id;
  std::vector<std::string> own_links;
  std::vector<std::string> partner_links;  // index i of both is one link
  std::uint16_t port = 0;
  Duration interval{};
  LivenessConfig liveness;
};

class HeartbeatDriver {
 public:
  using Changed = std::function<void(LivenessChange)>;

  // Binds every own link at once; the Error names the address that failed.
  static Result<std::unique_ptr<HeartbeatDriver>> start(boost::asio::any_io_executor executor,
                                                        HeartbeatConfig config, Changed changed);
  ~HeartbeatDriver();

  [[nodiscard]] const PeerLiveness& liveness() const;

 private:
  struct Shared;
  explicit HeartbeatDriver(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  static boost::asio::awaitable<void> send_loop(std::shared_ptr<Shared> shared);
  static boost::asio::awaitable<void> receive_loop(std::shared_ptr<Shared> shared,
                                                   std::size_t link);

  std::shared_ptr<Shared> shared_;
};

}  // namespace havm
