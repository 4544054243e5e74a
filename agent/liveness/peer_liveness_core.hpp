// The job of PeerLiveness: decide whether a node is heard or silent, from the counters in its
// heartbeats on all links together. Pure; one for each pair of nodes, never one for each VM.
//
// Guarantees
//  LV-1  Silent is said only after `timeout` of this node's own *running* time without an advancing
//  counter: a
//        gap in which this process did not run proves nothing (unknown is not dead, rule 15).
//  LV-2  A node never heard since this process started is silent only after `boot_grace`.
//  LV-3  A counter that did not advance (a duplicate, a late datagram) is not a sign of life; a new
//  boot id is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vmrepl/base/clock.hpp"

namespace havm {

enum class PeerState { unknown, up, silent };

struct LivenessConfig {
  Duration tick{};  // how often tick() is called when all is well
  Duration timeout{};
  Duration boot_grace{};
  std::size_t links = 1;
};

enum class LivenessChange { none, heard, silent, rebooted };

class PeerLiveness {
 public:
  PeerLiveness(LivenessConfig config, TimePoint now);

  // A heartbeat arrived on `link`.
  LivenessChange heartbeat(std::size_t link, const std::string& boot_id, std::uint64_t counter,
                           TimePoint now);
  LivenessChange tick(TimePoint now);

  [[nodiscard]] PeerState state() const { return state_; }
  [[nodiscard]] const std::string& boot_id() const { return boot_id_; }
  // nullopt: never heard on that link.
  [[nodiscard]] std::optional<Duration> link_silent(std::size_t link, TimePoint now) const;

 private:
  LivenessConfig config_;
  TimePoint started_at_;
  TimePoint last_tick_;
  TimePoint last_heard_;
  PeerState state_ = PeerState::unknown;
  std::string boot_id_;
  std::uint64_t counter_ = 0;
  std::vector<std::optional<TimePoint>> link_heard_;
};

}  // namespace havm
