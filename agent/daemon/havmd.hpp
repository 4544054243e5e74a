// The job of Havmd: the daemon of one node. It owns the VM units and the links to everything they
// share (libvirt, arbiter, partner, guard), runs the heartbeats, the reports to the partner and the
// lease requests to the arbiter, one of each for the whole node, and serves the local API and the
// partner's requests. One thread: the io_context it was started on. Start-up errors are Results
// that name the file or address.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <nlohmann/json.hpp>

#include "agent/control/http.hpp"
#include "agent/daemon/hypervisor_worker.hpp"
#include "agent/daemon/node_context.hpp"
#include "agent/daemon/operations.hpp"
#include "agent/daemon/resync_queue.hpp"
#include "agent/daemon/vm_unit.hpp"
#include "agent/failover/arbiter.hpp"
#include "agent/liveness/heartbeat_driver.hpp"
#include "agent/policy/definition.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

// What the partner's havmd last told; empty when it is silent.
struct PartnerReportView {
  nlohmann::json document;  // null: nothing heard since it was last silent
  TimePoint at{};
  // The entry of one VM, or null.
  [[nodiscard]] const nlohmann::json& vm(const std::string& name) const;
};

struct ArbiterHealth {
  std::optional<TimePoint> answered_at;
  bool up = false;
};

class Havmd {
 public:
  struct Options {
    std::string cluster_file;
    std::string node;  // empty: the host name
    std::string libvirt_uri;
    Paths paths;
  };

  static Result<std::unique_ptr<Havmd>> start(boost::asio::io_context& io, const Options& options);
  ~Havmd();

  [[nodiscard]] NodeContext& node() { return node_; }
  [[nodiscard]] Operations& operations() { return operations_; }
  // Blocking work that belongs to no VM unit (files, qemu-img, definitions), one at a time.
  [[nodiscard]] HypervisorWorker& worker() { return worker_; }
  [[nodiscard]] const PartnerReportView& partner_report() const { return partner_report_; }
  [[nodiscard]] const PeerLiveness& liveness() const { return heartbeat_->liveness(); }
  [[nodiscard]] const ArbiterHealth& arbiter_health() const { return arbiter_health_; }

  [[nodiscard]] VmUnit* find(const std::string& vm);
  [[nodiscard]] const std::map<std::string, std::unique_ptr<VmUnit>>& units() const {
    return units_;
  }
  void add_unit(const VmDefinition& definition, const NodeNotes& notes);
  void drop_unit(const std::string& vm);
  // The lowest port of the configured range that no definition uses and nobody listens on; 0 when
  // none is left.
  [[nodiscard]] std::uint16_t free_replication_port() const;

  // This node's own report (docs/protocol/peer.md).
  [[nodiscard]] nlohmann::json report() const;
  void partner_reported(const nlohmann::json& report);

 private:
  explicit Havmd(boost::asio::io_context& io);
  Result<void> open(const Options& options);
  Result<void> load_units();
  Result<void> listen();
  void liveness_changed(LivenessChange change);
  boost::asio::awaitable<void> report_loop();
  boost::asio::awaitable<void> lease_loop();
  boost::asio::awaitable<void> request_leases();
  void keep_guard();
  void take_report(const nlohmann::json& report);

  boost::asio::io_context& io_;
  NodeContext node_;
  Operations operations_;
  HypervisorWorker worker_;
  std::unique_ptr<Hypervisor> hypervisor_;
  std::unique_ptr<Arbiter> arbiter_;
  std::unique_ptr<GuardLink> guard_;
  std::unique_ptr<PeerClient> peer_;
  std::unique_ptr<HistoryStore> history_;
  std::unique_ptr<HeartbeatDriver> heartbeat_;
  std::map<std::string, std::unique_ptr<VmUnit>> units_;
  std::vector<std::unique_ptr<HttpServer>> servers_;
  PartnerReportView partner_report_;
  ArbiterHealth arbiter_health_;
  boost::asio::steady_timer report_timer_;
  boost::asio::steady_timer lease_timer_;
  std::unique_ptr<ResyncQueue> resync_queue_;
};

}  // namespace havm
