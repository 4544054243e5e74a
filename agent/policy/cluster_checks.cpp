#include "agent/policy/cluster_checks.hpp"

#include <array>
#include <chrono>

#include <arpa/inet.h>

#include "agent/policy/duration_text.hpp"
#include "agent/policy/json_document.hpp"

namespace havm {
namespace {

struct Address {
  int family = AF_UNSPEC;
  std::string canonical;
};

// Family AF_UNSPEC when it is no IP address of one host.
Address parse_address(const std::string& text) {
  std::array<unsigned char, sizeof(in6_addr)> bytes{};
  std::array<char, INET6_ADDRSTRLEN> canonical{};
  for (const int family : {AF_INET, AF_INET6}) {
    if (inet_pton(family, text.c_str(), bytes.data()) != 1) continue;
    inet_ntop(family, bytes.data(), canonical.data(), canonical.size());
    const bool any = bytes == std::array<unsigned char, sizeof(in6_addr)>{};
    const bool multicast = family == AF_INET ? bytes[0] >= 224 : bytes[0] == 0xFF;
    if (any || multicast) return {};
    return {family, canonical.data()};
  }
  return {};
}

bool is_loopback(const Address& address) {
  return address.canonical == "::1" ||
         (address.family == AF_INET && address.canonical.starts_with("127."));
}

std::string link_pointer(const std::string& node, std::size_t index) {
  return pointer_to(pointer_to("/nodes", node), "links") + "/" + std::to_string(index);
}

// Canonical addresses of all links with the place where each was first given.
using Places = std::map<std::string, std::string>;

void check_links(ClusterConfig& config, Places& places, Findings& findings) {
  for (auto& [name, node] : config.nodes) {
    for (std::size_t i = 0; i < node.links.size(); ++i) {
      std::string& link = node.links[i];
      const std::string pointer = link_pointer(name, i);
      const Address address = parse_address(link);
      if (address.family == AF_UNSPEC) {
        if (!link.empty())
          findings.add(
              pointer,
              "expected the IP address of one host, such as \"192.0.2.1\"; found " + shown(link));
        else
          findings.add(pointer, "expected an IP address as text, such as \"192.0.2.1\"");
        continue;
      }
      link = address.canonical;
      const auto [first, fresh] = places.emplace(link, pointer);
      if (!fresh)
        findings.add(pointer, "address " + link + " is already given at " + first->second +
                                  ": each link of each node needs its own");
    }
  }
}

void check_pairs(const ClusterConfig& config, Findings& findings) {
  if (config.nodes.size() != 2) return;  // said by the schema
  const NodeConfig& a = config.nodes.begin()->second;
  const NodeConfig& b = config.nodes.rbegin()->second;
  if (a.links.size() != b.links.size() && !a.links.empty() && !b.links.empty())
    findings.add("/nodes", "node " + a.name + " has " + std::to_string(a.links.size()) +
                               " links and node " + b.name + " has " +
                               std::to_string(b.links.size()) +
                               ": both need an address on every link");
  for (std::size_t i = 0; i < a.links.size() && i < b.links.size(); ++i) {
    const int family_a = parse_address(a.links[i]).family;
    const int family_b = parse_address(b.links[i]).family;
    if (family_a != AF_UNSPEC && family_b != AF_UNSPEC && family_a != family_b)
      findings.add(link_pointer(b.name, i),
                   "address " + b.links[i] + " and address " + a.links[i] + " at " +
                       link_pointer(a.name, i) +
                       " are ends of one link, but one is IPv4 and one IPv6");
  }
}

void check_witness(ClusterConfig& config, const Places& places, Findings& findings) {
  if (!config.witness || config.witness->address.empty()) return;  // said by the schema
  const Address address = parse_address(config.witness->address);
  if (address.family == AF_UNSPEC) {
    findings.add(
        "/witness/address",
        "expected the IP address of one host (a slow name server must not delay a failover); "
        "found " +
            shown(config.witness->address));
    return;
  }
  config.witness->address = address.canonical;
  const auto found = places.find(address.canonical);
  if (found != places.end() && !is_loopback(address))
    findings.add("/witness/address", "address " + address.canonical + " belongs to a node (" +
                                         found->second +
                                         "): the witness must run on a third machine, or it dies "
                                         "with the node it has to judge");
}

std::string range_text(const PortRange& range) {
  return range.first == range.last ? std::to_string(range.first)
                                   : std::to_string(range.first) + "–" + std::to_string(range.last);
}

void check_ports(const ClusterPorts& ports, Findings& findings) {
  if (ports.replication.first > ports.replication.last) {
    findings.add("/ports/replication",
                 "first = " + std::to_string(ports.replication.first) +
                     " is greater than last = " + std::to_string(ports.replication.last));
    return;
  }
  const auto overlap = [](const PortRange& x, const PortRange& y) {
    return x.first <= y.last && y.first <= x.last;
  };
  const auto check = [&](const char* pointer, const PortRange& x, const char* other,
                         const PortRange& y) {
    if (overlap(x, y))
      findings.add(pointer, "port " + range_text(x) + " is also used by " + other + " = " +
                                range_text(y) +
                                ": each needs its own (give both keys if one is "
                                "only a default)");
  };
  const PortRange heartbeat{ports.heartbeat, ports.heartbeat};
  const PortRange peer{ports.peer, ports.peer};
  check("/ports/peer", peer, "heartbeat", heartbeat);
  check("/ports/heartbeat", heartbeat, "replication", ports.replication);
  check("/ports/peer", peer, "replication", ports.replication);
}

void check_guest_p99(const ClusterConfig& config, Findings& findings) {
  using std::chrono::milliseconds;
  if (!config.guest_p99) return;
  if (*config.guest_p99 < milliseconds(1) || *config.guest_p99 > milliseconds(60'000))
    findings.add("/replication/guest_p99",
                 "expected a duration from 1ms to 60s; found " + duration_text(*config.guest_p99));
}

}  // namespace

void check_cluster(ClusterConfig& config, Findings& findings) {
  Places places;
  check_links(config, places, findings);
  check_pairs(config, findings);
  check_witness(config, places, findings);
  check_ports(config.ports, findings);
  check_guest_p99(config, findings);
  check_timing(config.timing, "/timing", findings);
}

}  // namespace havm
