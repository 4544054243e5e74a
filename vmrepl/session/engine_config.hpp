// The job of EngineConfig: what one engine is told at its start, from a JSON file that the agent
// writes. Strict: an unknown or missing key, a wrong type or an impossible value is an Error that
// names the key. Data and its parser only.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "vmrepl/base/replica_types.hpp"
#include "vmrepl/base/result.hpp"
#include "vmrepl/disk/image_identity.hpp"
#include "vmrepl/session/slow_partner_core.hpp"
#include "vmrepl/transport/tls_files.hpp"

namespace havm {

struct ConfigDisk {
  std::string name;
  std::string path;  // of a file or block device, or an NBD URI (open_disk.hpp)
  std::uint64_t size_bytes = 0;
  std::string nbd_socket;
};

struct ConfigEndpoint {
  std::string address;  // IPv4 or IPv6, numeric
  std::uint16_t port = 0;
};

struct EngineConfig {
  static constexpr int version = 1;
  static constexpr std::size_t disks_max = 256;
  static constexpr std::size_t endpoints_max = 8;

  std::string vm;
  std::string vm_id;
  std::string node;
  std::string partner;
  std::vector<ConfigDisk> disks;
  std::string record_path;
  std::string control_socket;
  std::string guard_socket;  // empty: no guard
  std::vector<ConfigEndpoint> listen;
  std::vector<ConfigEndpoint> partner_addresses;
  std::optional<TlsFiles> tls;  // none: plain TCP
  std::chrono::milliseconds keepalive{250};
  std::chrono::milliseconds session_timeout{2000};
  std::chrono::milliseconds lease{6000};
  SlowPartnerLimits slow_partner;
  // What a resync may make of the guest's p99 write latency; none: compared with what it is
  // without.
  std::optional<std::chrono::milliseconds> guest_p99;
  mode_t nbd_socket_mode = 0600;

  [[nodiscard]] std::vector<DiskIdentity> disk_identities() const;
  [[nodiscard]] std::vector<NamedImage> images() const;
  [[nodiscard]] std::vector<std::uint64_t> disk_sizes_bytes() const;
};

Result<EngineConfig> parse_engine_config(std::string_view json);
Result<EngineConfig> load_engine_config(const std::string& path);

}  // namespace havm
