#include "agent/daemon/replica_setup.hpp"

#include <cerrno>
#include <filesystem>

#include <arpa/inet.h>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/pki/identity_directory.hpp"
#include "hypervisor/domain_xml.hpp"
#include "hypervisor/hypervisor.hpp"
#include "hypervisor/qemu_img/run_process.hpp"
#include "vmrepl/base/files.hpp"
#include "vmrepl/base/unique_fd.hpp"
#include "vmrepl/disk/image_snapshot.hpp"

namespace havm {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds record_deadline{30000};
constexpr std::uint64_t space_reserve_bytes = std::uint64_t{64} << 20;  // the host's own needs

std::string directory_of(const std::string& path) {
  return std::filesystem::path(path).parent_path().string();
}

std::string mib(std::uint64_t bytes) {
  return std::to_string(bytes >> 20) + " MiB";
}

// QEMU runs as another user than havmd on a distribution's host: the directory of the NBD sockets
// is its own.
Result<void> give_to_qemu(const std::string& directory) {
  if (::chmod(directory.c_str(), 0700) != 0)
    return errno_error("cannot set the mode of " + directory, errno);
  const passwd* user = ::getpwnam("libvirt-qemu");
  if (!user) return success();
  if (::chown(directory.c_str(), user->pw_uid, user->pw_gid) != 0)
    return errno_error("cannot give " + directory + " to libvirt-qemu", errno);
  return success();
}

nlohmann::json endpoints(const std::vector<std::string>& links, std::uint16_t port) {
  nlohmann::json all = nlohmann::json::array();
  for (const std::string& address : links) {
    nlohmann::json one;
    one["address"] = address;
    one["port"] = port;
    all.push_back(std::move(one));
  }
  return all;
}

}  // namespace

bool port_is_free(const std::string& address, std::uint16_t port) {
  const bool v6 = address.find(':') != std::string::npos;
  const UniqueFd fd(::socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in v4_address{};
  sockaddr_in6 v6_address{};
  v4_address.sin_family = AF_INET;
  v4_address.sin_port = htons(port);
  v6_address.sin6_family = AF_INET6;
  v6_address.sin6_port = htons(port);
  if (v6) {
    ::inet_pton(AF_INET6, address.c_str(), &v6_address.sin6_addr);
    return ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&v6_address), sizeof v6_address) ==
               0 &&
           ::listen(fd.get(), 1) == 0;
  }
  ::inet_pton(AF_INET, address.c_str(), &v4_address.sin_addr);
  return ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&v4_address), sizeof v4_address) == 0 &&
         ::listen(fd.get(), 1) == 0;
}

ReplicaSetup::ReplicaSetup(const NodeContext& node)
    : cluster_(node.cluster),
      self_(node.self),
      partner_(node.partner),
      paths_(node.paths),
      hypervisor_(node.hypervisor) {}

std::vector<std::string> ReplicaSetup::obstacles(const VmDefinition& d) const {
  std::vector<std::string> found;
  auto info = hypervisor_->domain_info(d.vm);
  if (info)
    found.push_back("node " + self_ + " already has a domain '" + d.vm +
                    "': undefine or rename it there");
  if (!info && info.error().code != ENOENT)
    found.push_back("libvirt on node " + self_ + ": " + info.error().message);
  std::uint64_t needed = space_reserve_bytes;
  for (const DiskDefinition& disk : d.disks) {
    needed += disk.size_bytes;
    struct stat st {};
    if (::lstat(disk.path.c_str(), &st) == 0)
      found.push_back("node " + self_ + " already has a file " + disk.path +
                      ": move it away there");
    const std::string snapshot = snapshot_path(disk.path);
    if (::lstat(snapshot.c_str(), &st) == 0)
      found.push_back("node " + self_ + " has a snapshot of an earlier replica, " + snapshot +
                      ": move it away or delete it there");
    struct statvfs fs {};
    const std::string directory = directory_of(disk.path);
    if (::statvfs(directory.c_str(), &fs) != 0) {
      found.push_back("node " + self_ + " has no directory " + directory + ": create it there");
      continue;
    }
    if ((fs.f_flag & ST_RDONLY) != 0)
      found.push_back("node " + self_ + " cannot write to " + directory +
                      ": its file system is mounted read-only");
    const std::uint64_t free_bytes = std::uint64_t{fs.f_bavail} * fs.f_frsize;
    if (free_bytes < needed)
      found.push_back("node " + self_ + " has only " + mib(free_bytes) + " free in " + directory +
                      ", VM '" + d.vm + "' needs " + mib(needed));
  }
  for (const std::string& address : cluster_.nodes.at(self_).links)
    if (!port_is_free(address, d.replication_port))
      found.push_back("port " + std::to_string(d.replication_port) + " is in use on " + address +
                      " of node " + self_);
  return found;
}

// ---- create
// -----------------------------------------------------------------------------------------

Result<void> ReplicaSetup::create_images(const VmDefinition& d) const {
  for (const DiskDefinition& disk : d.disks) {
    const UniqueFd fd(::open(disk.path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd.valid()) return errno_error("cannot create " + disk.path + " on node " + self_, errno);
    if (::ftruncate(fd.get(), static_cast<off_t>(disk.size_bytes)) != 0 || ::fsync(fd.get()) != 0) {
      const int error = errno;
      ::unlink(disk.path.c_str());
      return errno_error(
          "cannot give " + disk.path + " on node " + self_ + " its size of " + mib(disk.size_bytes),
          error);
    }
  }
  return success();
}

Result<void> ReplicaSetup::write_engine_config(const VmDefinition& d) const {
  const Timing& t = cluster_.timing;
  nlohmann::json c;
  c["version"] = 1;
  c["vm"] = d.vm;
  c["vm_id"] = d.uuid;
  c["node"] = self_;
  c["partner"] = partner_;
  c["disks"] = nlohmann::json::array();
  for (const DiskDefinition& disk : d.disks) {
    nlohmann::json one;
    one["name"] = disk.target;
    one["path"] = disk.path;
    one["size"] = disk.size_bytes;
    one["nbd_socket"] = paths_.nbd_socket(d.vm, disk.target);
    c["disks"].push_back(std::move(one));
  }
  c["record"] = paths_.record(d.vm);
  c["control_socket"] = paths_.control_socket(d.vm);
  c["guard_socket"] = paths_.guard_socket();
  c["listen"] = endpoints(cluster_.nodes.at(self_).links, d.replication_port);
  c["partner_addresses"] = endpoints(cluster_.nodes.at(partner_).links, d.replication_port);
  c["timing"]["keepalive_ms"] = t.session_keepalive.count();
  c["timing"]["session_timeout_ms"] = t.session_timeout.count();
  c["timing"]["lease_ms"] = t.lease.count();
  c["slow_partner"]["limit_ms"] = d.policy.slow_partner.count();
  if (cluster_.guest_p99) c["resync"]["guest_p99_ms"] = cluster_.guest_p99->count();
  c["nbd_socket_mode"] = "0666";  // inside a directory that only QEMU's user and root can enter
  c["tls"] = nullptr;
  if (cluster_.transport == Transport::tls) {
    const TlsFiles files = IdentityDirectory(paths_.tls).files();
    c["tls"] = {{"ca", files.ca}, {"certificate", files.certificate}, {"key", files.key}};
  }
  return replace_file(paths_.engine_config(d.vm), c.dump(1) + "\n");
}

Result<void> ReplicaSetup::create_record(const VmDefinition& d, ReplicaOrigin origin) const {
  const std::string state = origin == ReplicaOrigin::owner ? "uptodate" : "inconsistent";
  const std::vector<std::string> argv{paths_.programs + "/havm-repl", "--config",
                                      paths_.engine_config(d.vm), "--create", state};
  ProcessLimits limits;
  limits.deadline = record_deadline;
  BOOST_OUTCOME_TRY(auto done, run_process(argv, limits));
  if (done.exit_status == 0) return success();
  std::string why = done.err.empty() ? done.out : done.err;
  while (!why.empty() && why.back() == '\n')
    why.pop_back();
  return Error("cannot create the record of VM '" + d.vm + "' on node " + self_ + ": " + why);
}

Result<void> ReplicaSetup::create(const VmDefinition& d, const std::string& domain_xml,
                                  ReplicaOrigin origin) const {
  BOOST_OUTCOME_TRY(make_directories(paths_.vm_state(d.vm)));
  BOOST_OUTCOME_TRY(make_directories(paths_.vm_run(d.vm)));
  BOOST_OUTCOME_TRY(give_to_qemu(paths_.vm_run(d.vm)));
  if (origin == ReplicaOrigin::partner) {
    BOOST_OUTCOME_TRY(create_images(d));
  }
  BOOST_OUTCOME_TRY(write_engine_config(d));
  BOOST_OUTCOME_TRY(create_record(d, origin));
  BOOST_OUTCOME_TRY(replace_file(paths_.domain_xml(d.vm), domain_xml));
  return save_definition(paths_.definition(d.vm), d);
}

// ---- remove
// -----------------------------------------------------------------------------------------

Result<void> ReplicaSetup::remove(const VmDefinition& d, ReplicaOrigin origin) const {
  // An image that cannot be deleted is told at the end: the rest goes all the same.
  Result<void> outcome = success();
  if (origin == ReplicaOrigin::partner)
    for (const DiskDefinition& disk : d.disks)
      for (const std::string& path : {disk.path, snapshot_path(disk.path)})
        if (::unlink(path.c_str()) != 0 && errno != ENOENT && outcome)
          outcome = errno_error("cannot delete the replica " + path + " on node " + self_, errno);
  std::error_code ec;
  std::filesystem::remove_all(paths_.vm_state(d.vm), ec);
  if (ec) return errno_error("cannot remove " + paths_.vm_state(d.vm), ec.value());
  std::filesystem::remove_all(paths_.vm_run(d.vm), ec);
  return outcome;
}

// ---- the libvirt definition
// -------------------------------------------------------------------------

Result<std::string> ReplicaSetup::protected_xml(const std::string& xml,
                                                const VmDefinition& d) const {
  std::string result = xml;
  for (const DiskDefinition& disk : d.disks) {
    BOOST_OUTCOME_TRY(result, disk_to_nbd(result, disk.target, paths_.nbd_socket(d.vm, disk.target),
                                          disk.target));
  }
  return result;
}

Result<std::string> ReplicaSetup::plain_xml(const std::string& xml, const VmDefinition& d) const {
  std::string result = xml;
  for (const DiskDefinition& disk : d.disks) {
    BOOST_OUTCOME_TRY(auto original, find_disk(d.original_xml, disk.target));
    BOOST_OUTCOME_TRY(result, restore_disk(result, disk.target, original.xml));
  }
  return result;
}

}  // namespace havm
