// Everything that `havm protect` and `havm unprotect` check before anything changes.
#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/daemon/havmd.hpp"
#include "agent/daemon/peer_client.hpp"
#include "agent/daemon/protect_operation.hpp"
#include "agent/daemon/replica_setup.hpp"
#include "agent/failover/arbiter.hpp"
#include "agent/policy/names.hpp"
#include "hypervisor/domain_xml.hpp"
#include "hypervisor/hypervisor.hpp"
#include "hypervisor/qemu_img/qemu_img.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

constexpr milliseconds call_deadline{60000};
constexpr milliseconds peer_deadline{10000};
constexpr milliseconds arbiter_deadline{3000};
constexpr std::uint64_t sector_bytes = 4096;

struct Found {
  DomainInfo info;
  std::string xml;
  std::vector<DiskDefinition> disks;
  std::vector<std::uint64_t> grow_to_bytes;
};

Error join(const std::string& vm, const std::vector<std::string>& problems) {
  std::string all = "VM '" + vm + "' cannot be protected: ";
  for (std::size_t i = 0; i < problems.size(); ++i)
    all += (i ? "; " : "") + problems[i];
  return Error(all, EINVAL);
}

std::uint64_t rounded_up(std::uint64_t bytes) {
  return (bytes + sector_bytes - 1) / sector_bytes * sector_bytes;
}

// What the image file of one disk is and will be. `running`: its QEMU holds the image lock.
Result<void> look_at_image(const std::string& vm, const DomainDisk& disk, bool running,
                           Found& found) {
  struct stat st {};
  if (::stat(disk.source.c_str(), &st) != 0)
    return errno_error("disk " + disk.target + " of VM '" + vm + "': cannot find " + disk.source,
                       errno);
  if (!S_ISREG(st.st_mode))
    return Error(
        "disk " + disk.target + " of VM '" + vm + "': " + disk.source + " is not a regular file",
        EINVAL);
  if (::access(disk.source.c_str(), R_OK | W_OK) != 0)
    return errno_error(
        "disk " + disk.target + " of VM '" + vm + "': no permission to write " + disk.source,
        errno);
  const QemuImg tool;
  const ImageAccess access = running ? ImageAccess::shared : ImageAccess::exclusive;
  BOOST_OUTCOME_TRY(auto image, tool.info(disk.source, disk.format, access));
  if (!image.backing_file.empty() || !image.data_file.empty())
    return Error("disk " + disk.target + " of VM '" + vm + "': " + disk.source + " depends on " +
                     (image.backing_file.empty() ? image.data_file : image.backing_file) +
                     ": flatten it first (qemu-img convert)",
                 EINVAL);
  if (image.corrupt)
    return Error("disk " + disk.target + " of VM '" + vm + "': " + disk.source +
                     " is marked corrupt: qemu-img check it first",
                 EINVAL);
  const auto file_bytes = static_cast<std::uint64_t>(st.st_size);
  if (file_bytes == 0)
    return Error("disk " + disk.target + " of VM '" + vm + "': " + disk.source + " is empty",
                 EINVAL);
  std::uint64_t limit = file_bytes;
  if (disk.format == "qcow2") {
    BOOST_OUTCOME_TRY(limit, tool.growth_limit_bytes(disk.source, disk.format, access));
    limit = rounded_up(std::max(limit, file_bytes));
  } else if (file_bytes % 512 != 0) {
    return Error("disk " + disk.target + " of VM '" + vm + "': the size of " + disk.source +
                     " is no multiple of 512 bytes: qemu-img resize it first",
                 EINVAL);
  }
  found.disks.push_back({disk.target, disk.format, disk.source, limit});
  found.grow_to_bytes.push_back(limit > file_bytes ? limit : 0);
  return success();
}

Result<Found> look_at_domain(Hypervisor* hv, const std::string& vm) {
  Found found;
  BOOST_OUTCOME_TRY(found.info, hv->domain_info(vm));
  if (!found.info.persistent)
    return Error("VM '" + vm + "' is transient: define it first (virsh define)", EINVAL);
  BOOST_OUTCOME_TRY(found.xml, hv->domain_xml(vm, true));
  BOOST_OUTCOME_TRY(auto problems, check_protectable(found.xml));
  if (!problems.empty()) return join(vm, problems);
  const bool running = found.info.state != DomainState::shut_off;
  BOOST_OUTCOME_TRY(auto disks, list_disks(found.xml));
  for (const DomainDisk& disk : disks) {
    if (disk.device != "disk") continue;
    BOOST_OUTCOME_TRY(look_at_image(vm, disk, running, found));
  }
  return found;
}

void describe_steps(ProtectPlan& plan, const NodeContext& node) {
  const VmDefinition& d = plan.definition;
  if (plan.was_running) plan.steps.push_back("shut VM '" + d.vm + "' down");
  for (const DiskDefinition& disk : d.disks)
    plan.steps.push_back("create " + disk.path + " (" + std::to_string(disk.size_bytes) +
                         " bytes) on node " + node.partner);
  plan.steps.push_back("define VM '" + d.vm + "' on node " + node.partner +
                       " and put its disks on havm's sockets on both nodes");
  plan.steps.push_back("register node " + node.self + " as its owner at the arbiter");
  if (plan.was_running) plan.steps.push_back("start VM '" + d.vm + "' again");
  plan.steps.push_back("copy the disks to node " + node.partner +
                       " while the VM runs (replication port " +
                       std::to_string(d.replication_port) + ")");
}

Result<void> check_peer(const Havmd& daemon, const NodeContext& node,
                        const ProtectRequest& request) {
  if (!node.cluster.find_node(request.peer))
    return Error("failed to get node '" + request.peer + "'", ENOENT);
  if (request.peer == node.self)
    return Error("node " + request.peer + " is this node: name the other one, " + node.partner,
                 EINVAL);
  if (daemon.liveness().state() != PeerState::up)
    return Error("node " + request.peer + " is not heard: start havmd there first", EHOSTUNREACH);
  return success();
}

Result<void> check_name(Havmd& daemon, const std::string& vm) {
  if (const auto problem = vm_name_problem(vm))
    return Error("VM '" + vm + "': " + *problem, EINVAL);
  if (daemon.find(vm)) return Error("VM '" + vm + "' is already protected", EEXIST);
  if (daemon.operations().running(vm))
    return Error("another operation on VM '" + vm + "' is under way", EBUSY);
  return success();
}

}  // namespace

asio::awaitable<Result<ProtectPlan>> plan_protect(Havmd& daemon, ProtectRequest request) {
  NodeContext& node = daemon.node();
  auto named = check_name(daemon, request.vm);
  if (!named) co_return named.error();
  Hypervisor* const hv = node.hypervisor;
  std::function<Result<Found>()> look = [hv, vm = request.vm] { return look_at_domain(hv, vm); };
  auto found = co_await daemon.worker().run<Found>("looking at VM '" + request.vm + "'",
                                                   std::move(look), call_deadline);
  if (!found) co_return found.error();
  auto peer = check_peer(daemon, node, request);
  if (!peer) co_return peer.error();

  ProtectPlan plan;
  plan.was_running = found.value().info.state != DomainState::shut_off;
  if (plan.was_running && !request.restart)
    co_return Error(
        "VM '" + request.vm + "' is running: shut it down first, or allow a restart with --restart",
        EBUSY);
  plan.autostart = found.value().info.autostart;
  plan.grow_to_bytes = found.value().grow_to_bytes;
  VmDefinition& d = plan.definition;
  d.vm = request.vm;
  d.uuid = found.value().info.uuid;
  d.nodes = {node.self, node.partner};
  d.replication_port = daemon.free_replication_port();
  if (d.replication_port == 0)
    co_return Error("no replication port of the cluster file's range is free on node " + node.self,
                    EBUSY);
  d.disks = found.value().disks;
  d.desired = plan.was_running ? DesiredState::running : DesiredState::off;
  d.policy = request.policy;
  d.original_xml = found.value().xml;
  auto xml = ReplicaSetup(node).protected_xml(found.value().xml, d);
  if (!xml) co_return xml.error();
  plan.xml = xml.value();
  describe_steps(plan, node);

  auto present = co_await node.arbiter->read(d.vm, arbiter_deadline);
  if (!present)
    co_return Error("the witness does not answer: " + present.error().message, EHOSTUNREACH);
  if (present.value().value)
    co_return Error("the witness already has a register of VM '" + d.vm +
                        "': it is protected elsewhere in cluster '" + node.cluster.name +
                        "', or was left behind",
                    EEXIST);
  nlohmann::json body;
  body["definition"] = definition_to_json(d);
  body["domain_xml"] = plan.xml;
  body["dry_run"] = true;
  auto checked = co_await node.peer->request("POST", "/v1/peer/vms/" + d.vm + "/prepare",
                                             std::move(body), peer_deadline);
  if (!checked) co_return checked.error();
  co_return plan;
}

asio::awaitable<Result<UnprotectPlan>> plan_unprotect(Havmd& daemon, std::string vm, bool restart) {
  const NodeContext& node = daemon.node();
  UnprotectPlan plan;
  plan.vm = vm;
  VmUnit* unit = daemon.find(vm);
  if (!unit) {
    auto info = node.hypervisor->domain_info(vm);
    if (!info) co_return info.error();
    co_return Error("domain '" + vm + "' is not protected", EINVAL);
  }
  if (daemon.operations().running(vm))
    co_return Error("another operation on VM '" + vm + "' is under way", EBUSY);
  const State& s = unit->state();
  if (!s.reg)
    co_return Error("the witness does not answer: who owns VM '" + vm + "' is not known",
                    EHOSTUNREACH);
  if (!s.reg->owned())
    co_return Error("node " + node.partner + " owns VM '" + vm + "': run the command there",
                    EINVAL);
  if (daemon.liveness().state() != PeerState::up)
    co_return Error("node " + node.partner + " is not heard: its replica of VM '" + vm +
                        "' could not be removed",
                    EHOSTUNREACH);
  plan.was_running = s.vm != VmState::off;
  if (plan.was_running && !restart)
    co_return Error("VM '" + vm + "' is running: shut it down first (havm shutdown " + vm +
                        "), or allow a restart with --restart",
                    EBUSY);
  if (plan.was_running) plan.steps.push_back("stop VM '" + vm + "'");
  plan.steps.push_back("delete the replica on node " + node.partner);
  plan.steps.push_back("put the disks of VM '" + vm + "' back on their files on node " + node.self);
  if (plan.was_running) plan.steps.push_back("start VM '" + vm + "' again");
  co_return plan;
}

}  // namespace havm
