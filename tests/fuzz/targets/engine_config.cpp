// The configuration file of an engine (vmrepl/session/engine_config.hpp).
//
// Input: the JSON text.
#include "vmrepl/session/engine_config.hpp"

#include <set>

#include <nlohmann/json.hpp>

#include "tests/fuzz/support/fuzz_target.hpp"

namespace havm::fuzz {
namespace {

using Json = nlohmann::json;

Json to_json(const std::vector<ConfigEndpoint>& endpoints) {
  Json all = Json::array();
  for (const ConfigEndpoint& e : endpoints)
    all.push_back({{"address", e.address}, {"port", e.port}});
  return all;
}

std::string four_octal_digits(mode_t mode) {
  std::string text = "0";
  for (const int shift : {6, 3, 0})
    text.push_back(static_cast<char>('0' + ((mode >> shift) & 7U)));
  return text;
}

Json to_json(const EngineConfig& c) {
  Json disks = Json::array();
  for (const ConfigDisk& d : c.disks)
    disks.push_back(
        {{"name", d.name}, {"path", d.path}, {"size", d.size_bytes}, {"nbd_socket", d.nbd_socket}});
  return {{"version", EngineConfig::version},
          {"vm", c.vm},
          {"vm_id", c.vm_id},
          {"node", c.node},
          {"partner", c.partner},
          {"disks", disks},
          {"record", c.record_path},
          {"control_socket", c.control_socket},
          {"guard_socket", c.guard_socket},
          {"listen", to_json(c.listen)},
          {"partner_addresses", to_json(c.partner_addresses)},
          {"timing",
           {{"keepalive_ms", c.keepalive.count()},
            {"session_timeout_ms", c.session_timeout.count()},
            {"lease_ms", c.lease.count()}}},
          {"slow_partner",
           {{"limit_ms", c.slow_partner.limit.count()},
            {"patience_ms", c.slow_partner.patience.count()},
            {"probation_ms", c.slow_partner.probation.count()},
            {"backoff_ms", c.slow_partner.backoff.count()}}},
          {"nbd_socket_mode", four_octal_digits(c.nbd_socket_mode)}};
}

void check_values(const EngineConfig& c) {
  FUZZ_CHECK(!c.vm.empty() && c.vm.find_first_of(" \n/") == std::string::npos,
             "the VM's name is a word");
  FUZZ_CHECK(!c.disks.empty() && c.disks.size() <= EngineConfig::disks_max, "1 to 256 disks");
  FUZZ_CHECK(c.node != c.partner, "two nodes");
  std::set<std::string> names;
  for (const ConfigDisk& d : c.disks) {
    FUZZ_CHECK(names.insert(d.name).second, "the names of disks differ");
    FUZZ_CHECK(d.size_bytes > 0 && d.size_bytes % 512 == 0, "a disk is whole sectors");
  }
  for (const auto* endpoints : {&c.listen, &c.partner_addresses}) {
    FUZZ_CHECK(!endpoints->empty() && endpoints->size() <= EngineConfig::endpoints_max,
               "1 to 8 endpoints");
    for (const ConfigEndpoint& e : *endpoints)
      FUZZ_CHECK(e.port > 0, "a port is a number");
  }
  FUZZ_CHECK(c.keepalive.count() >= 10 && c.session_timeout >= 2 * c.keepalive &&
                 c.session_timeout.count() <= 600'000 && c.lease.count() >= 100 &&
                 c.lease.count() <= 600'000,
             "times are in their ranges");
  const SlowPartnerLimits& slow = c.slow_partner;
  FUZZ_CHECK(slow.limit.count() >= 0 && slow.limit.count() <= 60'000 &&
                 slow.patience.count() >= 100 && slow.patience.count() <= 60'000 &&
                 slow.probation.count() >= 0 && slow.probation.count() <= 3'600'000 &&
                 slow.backoff.count() >= 100 && slow.backoff.count() <= 1'800'000,
             "what a slow partner is has its ranges");
  FUZZ_CHECK(c.nbd_socket_mode <= 0777, "a mode is a mode");
  FUZZ_CHECK(
      c.disk_identities().size() == c.disks.size() && c.disk_sizes_bytes().size() == c.disks.size(),
      "every disk is told");
}

}  // namespace

void one_input(Bytes input) {
  const auto config = parse_engine_config(text_of(input));
  if (!config) {
    FUZZ_CHECK(!config.error().message.empty(), "a refusal says why");
    return;
  }
  check_values(config.value());
  const Json written = to_json(config.value());
  const auto again = parse_engine_config(written.dump());
  FUZZ_CHECK(again.has_value() && to_json(again.value()) == written, "decode(encode(x)) == x");
}

std::vector<std::string> seeds() {
  EngineConfig c;
  c.vm = "web1";
  c.vm_id = "11111111-2222-4333-8444-555555555555";
  c.node = "a";
  c.partner = "b";
  c.disks = {{"vda", "/v/vda", 1048576, "/run/havm/vms/web1/vda.nbd"}};
  c.record_path = "/v/record";
  c.control_socket = "/run/havm/vms/web1/control.sock";
  c.listen = {{"192.0.2.1", 7700}, {"fd00::1", 7700}};
  c.partner_addresses = {{"192.0.2.2", 7700}};
  Json least = to_json(c);
  for (const char* key : {"timing", "slow_partner", "nbd_socket_mode", "guard_socket"})
    least.erase(key);
  Json several = to_json(c);
  several["disks"].push_back(
      {{"name", "vdb"}, {"path", "/v/vdb"}, {"size", 512}, {"nbd_socket", "/r/b"}});
  several["timing"] = {{"lease_ms", 100}};
  return {to_json(c).dump(), least.dump(), several.dump(2), R"({"version":1,"vm":""})"};
}

}  // namespace havm::fuzz
