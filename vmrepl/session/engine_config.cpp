#include "vmrepl/session/engine_config.hpp"

#include <algorithm>
#include <initializer_list>
#include <set>
#include <utility>

#include <boost/asio/ip/address.hpp>
#include <nlohmann/json.hpp>

#include "vmrepl/base/files.hpp"
#include "vmrepl/wire/json_fields.hpp"

namespace havm {
namespace {

using Json = nlohmann::json;

Result<void> only_keys(const Json& object, std::initializer_list<const char*> known,
                       const std::string& where) {
  for (const auto& member : object.items()) {
    const auto is_it = [&member](const char* name) { return member.key() == name; };
    if (std::none_of(known.begin(), known.end(), is_it))
      return Error(where + ": unknown key '" + member.key() +
                   "'; remove it or correct its spelling");
  }
  return success();
}

Result<ConfigDisk> parse_disk(const Json& object, const std::string& where) {
  if (!object.is_object()) return Error(where + ": a disk is not an object");
  BOOST_OUTCOME_TRY(only_keys(object, {"name", "path", "size", "nbd_socket"}, where));
  JsonFields fields(object, where);
  ConfigDisk disk;
  disk.name = fields.text_not_empty("name");
  disk.path = fields.text_not_empty("path");
  disk.size_bytes = fields.number("size");
  disk.nbd_socket = fields.text_not_empty("nbd_socket");
  BOOST_OUTCOME_TRY(fields.outcome());
  if (disk.size_bytes == 0 || disk.size_bytes % 512 != 0)
    return Error(where + ": size of disk " + disk.name + " is not a multiple of 512 bytes above 0");
  return disk;
}

Result<std::vector<ConfigEndpoint>> parse_endpoints(const Json& array, const std::string& where) {
  std::vector<ConfigEndpoint> endpoints;
  for (const Json& object : array) {
    if (!object.is_object()) return Error(where + ": an entry is not an object");
    BOOST_OUTCOME_TRY(only_keys(object, {"address", "port"}, where));
    JsonFields fields(object, where);
    ConfigEndpoint e;
    e.address = fields.text_not_empty("address");
    const std::uint64_t port = fields.number("port");
    BOOST_OUTCOME_TRY(fields.outcome());
    boost::system::error_code bad;
    boost::asio::ip::make_address(e.address, bad);
    if (bad) return Error(where + ": '" + e.address + "' is not a numeric IP address");
    if (port == 0 || port > 65535)
      return Error(where + ": port " + std::to_string(port) + " is not in 1..65535");
    e.port = static_cast<std::uint16_t>(port);
    endpoints.push_back(std::move(e));
  }
  if (endpoints.empty()) return Error(where + ": needs at least one {address, port}");
  return endpoints;
}

Result<void> parse_timing(const Json& object, EngineConfig& config) {
  const std::string where = "engine configuration, timing";
  if (!object.is_object()) return Error(where + ": is not an object");
  BOOST_OUTCOME_TRY(only_keys(object, {"keepalive_ms", "session_timeout_ms", "lease_ms"}, where));
  JsonFields fields(object, where);
  const auto read = [&](const char* key, std::chrono::milliseconds& into) {
    if (object.contains(key)) into = std::chrono::milliseconds(fields.number(key));
  };
  read("keepalive_ms", config.keepalive);
  read("session_timeout_ms", config.session_timeout);
  read("lease_ms", config.lease);
  BOOST_OUTCOME_TRY(fields.outcome());
  using std::chrono::milliseconds;
  if (config.keepalive < milliseconds(10) || config.keepalive > milliseconds(60'000))
    return Error(where + ": keepalive_ms is not in 10..60000");
  if (config.session_timeout < 2 * config.keepalive ||
      config.session_timeout > 10 * 60'000 * milliseconds(1))
    return Error(where + ": session_timeout_ms is not in 2 x keepalive_ms .. 600000");
  if (config.lease < milliseconds(100) || config.lease > milliseconds(600'000))
    return Error(where + ": lease_ms is not in 100..600000");
  return success();
}

// An upper bound, so that no sum of them overflows; and the patience must be far below the timeouts
// of guests.
Result<void> parse_slow_partner(const Json& object, EngineConfig& config) {
  using std::chrono::milliseconds;
  const std::string where = "engine configuration, slow_partner";
  if (!object.is_object()) return Error(where + ": is not an object");
  BOOST_OUTCOME_TRY(
      only_keys(object, {"limit_ms", "patience_ms", "probation_ms", "backoff_ms"}, where));
  JsonFields fields(object, where);
  const auto read = [&](const char* key, milliseconds& into) {
    if (object.contains(key)) into = milliseconds(fields.number(key));
  };
  SlowPartnerLimits& limits = config.slow_partner;
  read("limit_ms", limits.limit);
  read("patience_ms", limits.patience);
  read("probation_ms", limits.probation);
  read("backoff_ms", limits.backoff);
  BOOST_OUTCOME_TRY(fields.outcome());
  if (limits.limit != milliseconds(0) &&
      (limits.limit < milliseconds(50) || limits.limit > milliseconds(60'000)))
    return Error(where + ": limit_ms is neither 0 (never slow) nor in 50..60000");
  if (limits.patience < milliseconds(100) || limits.patience > milliseconds(60'000))
    return Error(where + ": patience_ms is not in 100..60000");
  if (limits.probation < milliseconds(0) || limits.probation > milliseconds(3'600'000))
    return Error(where + ": probation_ms is not in 0..3600000");
  if (limits.backoff < milliseconds(100) || limits.backoff > milliseconds(1'800'000))
    return Error(where + ": backoff_ms is not in 100..1800000");
  return success();
}

Result<void> parse_resync(const Json& object, EngineConfig& config) {
  const std::string where = "engine configuration, resync";
  if (!object.is_object()) return Error(where + ": is not an object");
  BOOST_OUTCOME_TRY(only_keys(object, {"guest_p99_ms"}, where));
  if (!object.contains("guest_p99_ms") || object["guest_p99_ms"].is_null()) return success();
  JsonFields fields(object, where);
  const std::uint64_t p99 = fields.number("guest_p99_ms");
  BOOST_OUTCOME_TRY(fields.outcome());
  if (p99 < 1 || p99 > 60'000) return Error(where + ": guest_p99_ms is not in 1..60000");
  config.guest_p99 = std::chrono::milliseconds(p99);
  return success();
}

Result<void> parse_mode(const Json& value, EngineConfig& config) {
  const auto* text = value.get_ptr<const std::string*>();
  const bool octal =
      text != nullptr && text->size() == 4 && text->front() == '0' &&
      std::all_of(text->begin(), text->end(), [](char c) { return c >= '0' && c <= '7'; });
  if (!octal)
    return Error("engine configuration: nbd_socket_mode is not four octal digits as in \"0600\"");
  config.nbd_socket_mode = static_cast<mode_t>(std::stoul(*text, nullptr, 8));
  return success();
}

Result<void> parse_tls(const Json& object, EngineConfig& config) {
  const std::string where = "engine configuration, tls";
  if (object.is_null()) return success();
  if (!object.is_object()) return Error(where + ": is neither an object nor null");
  BOOST_OUTCOME_TRY(only_keys(object, {"ca", "certificate", "key"}, where));
  JsonFields fields(object, where);
  TlsFiles files;
  files.ca = fields.text_not_empty("ca");
  files.certificate = fields.text_not_empty("certificate");
  files.key = fields.text_not_empty("key");
  BOOST_OUTCOME_TRY(fields.outcome());
  config.tls = std::move(files);
  return success();
}

Result<void> parse_disks(const Json& array, EngineConfig& config) {
  std::set<std::string> names;
  std::set<std::string> paths;
  for (const Json& object : array) {
    BOOST_OUTCOME_TRY(auto disk, parse_disk(object, "engine configuration, disks"));
    if (!names.insert(disk.name).second)
      return Error("engine configuration: disk " + disk.name + " appears twice");
    if (!paths.insert(disk.path).second || !paths.insert(disk.nbd_socket).second)
      return Error("engine configuration: disk " + disk.name + " shares a path with another one");
    config.disks.push_back(std::move(disk));
  }
  if (config.disks.empty()) return Error("engine configuration: a VM has at least one disk");
  return success();
}

}  // namespace

std::vector<DiskIdentity> EngineConfig::disk_identities() const {
  std::vector<DiskIdentity> all;
  for (const ConfigDisk& d : disks)
    all.push_back({d.name, d.size_bytes});
  return all;
}

std::vector<NamedImage> EngineConfig::images() const {
  std::vector<NamedImage> all;
  for (const ConfigDisk& d : disks)
    all.push_back({d.name, d.path});
  return all;
}

std::vector<std::uint64_t> EngineConfig::disk_sizes_bytes() const {
  std::vector<std::uint64_t> all;
  for (const ConfigDisk& d : disks)
    all.push_back(d.size_bytes);
  return all;
}

Result<EngineConfig> parse_engine_config(std::string_view json) {
  const std::string where = "engine configuration";
  BOOST_OUTCOME_TRY(const auto object, parse_json_object(json, where));
  BOOST_OUTCOME_TRY(only_keys(object,
                              {"version", "vm", "vm_id", "node", "partner", "disks", "record",
                               "control_socket", "guard_socket", "listen", "partner_addresses",
                               "timing", "slow_partner", "resync", "nbd_socket_mode", "tls"},
                              where));
  JsonFields fields(object, where);
  EngineConfig config;
  const std::uint64_t version = fields.number("version");
  config.vm = fields.text_not_empty("vm");
  config.vm_id = fields.text_not_empty("vm_id");
  config.node = fields.text_not_empty("node");
  config.partner = fields.text_not_empty("partner");
  config.record_path = fields.text_not_empty("record");
  config.control_socket = fields.text_not_empty("control_socket");
  if (object.contains("guard_socket")) config.guard_socket = fields.text("guard_socket");
  const Json& disks = fields.array("disks", EngineConfig::disks_max);
  const Json& listen = fields.array("listen", EngineConfig::endpoints_max);
  const Json& partner = fields.array("partner_addresses", EngineConfig::endpoints_max);
  BOOST_OUTCOME_TRY(fields.outcome());
  if (version != EngineConfig::version)
    return Error(where + ": version " + std::to_string(version) + " is not known here, only " +
                 std::to_string(EngineConfig::version));
  if (config.vm.find_first_of(" \n/") != std::string::npos)
    return Error(where + ": vm must not contain a space, a newline or a slash");
  if (config.node == config.partner) return Error(where + ": node and partner are the same");
  BOOST_OUTCOME_TRY(parse_disks(disks, config));
  BOOST_OUTCOME_TRY(config.listen, parse_endpoints(listen, where + ", listen"));
  BOOST_OUTCOME_TRY(config.partner_addresses,
                    parse_endpoints(partner, where + ", partner_addresses"));
  if (object.contains("timing")) {
    BOOST_OUTCOME_TRY(parse_timing(object["timing"], config));
  }
  if (object.contains("slow_partner")) {
    BOOST_OUTCOME_TRY(parse_slow_partner(object["slow_partner"], config));
  }
  if (object.contains("resync")) {
    BOOST_OUTCOME_TRY(parse_resync(object["resync"], config));
  }
  if (object.contains("nbd_socket_mode")) {
    BOOST_OUTCOME_TRY(parse_mode(object["nbd_socket_mode"], config));
  }
  if (object.contains("tls")) {
    BOOST_OUTCOME_TRY(parse_tls(object["tls"], config));
  }
  return config;
}

Result<EngineConfig> load_engine_config(const std::string& path) {
  BOOST_OUTCOME_TRY(const auto text, read_file(path));
  auto config = parse_engine_config(text);
  if (!config) return Error(path + ": " + config.error().message, config.error().code);
  return config;
}

}  // namespace havm
