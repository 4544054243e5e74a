// The job of ResyncQueue: let at most `replication.resyncs_at_once` VMs of this pair of nodes
// resync at a time: ask what the own engines do and what the partner reports, decide
// (resync_queue_core), tell the own engines.
//
// Guarantees
//  1. The engine of every VM that this node owns and that is not in sync is held, unless it is its
//     turn; so a resync begins by waiting.
//  2. A hold is for hold_time only and renewed: when this daemon is dead, or does not get through,
//     the engines go on by themselves, and their status tells when.
//  3. A paused VM takes no turn.
// One thread: the daemon's executor. The daemon outlives it.
#pragma once

#include <chrono>
#include <set>
#include <string>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <nlohmann/json.hpp>

#include "agent/daemon/resync_queue_core.hpp"

namespace havm {

class Havmd;
class VmUnit;

class ResyncQueue {
 public:
  static constexpr const char* waits_for_turn = "waits for its turn when it has something to copy";
  static constexpr std::chrono::milliseconds interval{500};
  static constexpr std::chrono::milliseconds hold_time{15000};
  static constexpr std::chrono::milliseconds renew_before{10000};

  explicit ResyncQueue(Havmd& daemon);
  void start();

 private:
  boost::asio::awaitable<void> loop();
  boost::asio::awaitable<void> tell(std::string vm, std::string command, nlohmann::json arguments);
  void look();
  void carry_out(const VmUnit& unit, bool go, const std::string& reason);

  Havmd& daemon_;
  boost::asio::steady_timer timer_;
  std::set<std::string> telling_;
};

}  // namespace havm
