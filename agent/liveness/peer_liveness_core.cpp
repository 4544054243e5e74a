#include "agent/liveness/peer_liveness_core.hpp"

#include "vmrepl/base/assert.hpp"

namespace havm {

PeerLiveness::PeerLiveness(LivenessConfig config, TimePoint now)
    : config_(config),
      started_at_(now),
      last_tick_(now),
      last_heard_(now),
      link_heard_(config.links) {
  HAVM_ASSERT(config_.timeout > config_.tick, "a timeout spans several ticks");
}

LivenessChange PeerLiveness::heartbeat(std::size_t link, const std::string& boot_id,
                                       std::uint64_t counter, TimePoint now) {
  HAVM_ASSERT(link < link_heard_.size(), "a heartbeat arrives on a configured link");
  const bool rebooted = !boot_id_.empty() && boot_id != boot_id_;
  if (boot_id == boot_id_) {
    link_heard_[link] = now;
    if (counter <= counter_) return LivenessChange::none;
  }
  boot_id_ = boot_id;
  counter_ = counter;
  link_heard_[link] = now;
  last_heard_ = now;
  const bool was_up = state_ == PeerState::up;
  state_ = PeerState::up;
  if (rebooted) return LivenessChange::rebooted;
  return was_up ? LivenessChange::none : LivenessChange::heard;
}

LivenessChange PeerLiveness::tick(TimePoint now) {
  const Duration gap = now - last_tick_;
  last_tick_ = now;
  if (gap > 4 * config_.tick) {
    last_heard_ += gap;
    started_at_ += gap;
  }
  if (state_ == PeerState::silent) return LivenessChange::none;
  const bool lost = state_ == PeerState::up ? now - last_heard_ >= config_.timeout
                                            : now - started_at_ >= config_.boot_grace;
  if (!lost) return LivenessChange::none;
  state_ = PeerState::silent;
  return LivenessChange::silent;
}

std::optional<Duration> PeerLiveness::link_silent(std::size_t link, TimePoint now) const {
  HAVM_ASSERT(link < link_heard_.size(), "a link is a configured one");
  if (!link_heard_[link]) return std::nullopt;
  return now - *link_heard_[link];
}

}  // namespace havm
