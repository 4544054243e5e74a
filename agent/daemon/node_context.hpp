// The job of NodeContext: what every part of havmd on this node shares. Lives as long as the
// daemon; the references outlive every user. One thread: `executor`.
#pragma once

#include <string>

#include <boost/asio/any_io_executor.hpp>

#include "agent/daemon/paths.hpp"
#include "agent/policy/cluster_config.hpp"

namespace havm {

class Arbiter;
class GuardLink;
class HistoryStore;
class Hypervisor;
class PeerClient;

struct NodeContext {
  boost::asio::any_io_executor executor;
  ClusterConfig cluster;
  std::string self;
  std::string partner;
  std::string boot_id;
  Paths paths;
  Hypervisor* hypervisor = nullptr;
  Arbiter* arbiter = nullptr;
  GuardLink* guard = nullptr;
  PeerClient* peer = nullptr;
  HistoryStore* history = nullptr;
};

}  // namespace havm
