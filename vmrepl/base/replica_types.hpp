// The job of these types: what a replica says about itself, shared by the durable record
// (docs/protocol/on-disk.md), the wire (docs/protocol/replication.md) and the control socket
// (docs/protocol/engine-control.md), with the one spelling that all three use. Data only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace havm {

// uptodate: holds every write its epoch completed. inconsistent: in the middle of a resync, useless
// until its end. outdated: a consistent past state that somebody else has gone beyond.
enum class ReplicaState : std::uint8_t { uptodate, inconsistent, outdated };

// Which replicas hold every completed write, seen from this node. none: fresh, or not the owner and
// unknown. self: alone. both: this node and its partner.
enum class InSync : std::uint8_t { none, self, both };

// One disk of the consistency group; both nodes must agree on all of it.
struct DiskIdentity {
  std::string name;  // libvirt's target, for instance "vda"
  std::uint64_t size_bytes = 0;
  bool operator==(const DiskIdentity&) const = default;
};

constexpr const char* to_text(ReplicaState state) {
  switch (state) {
    case ReplicaState::uptodate:
      return "uptodate";
    case ReplicaState::inconsistent:
      return "inconsistent";
    case ReplicaState::outdated:
      return "outdated";
  }
  return "unknown";
}

constexpr const char* to_text(InSync in_sync) {
  switch (in_sync) {
    case InSync::none:
      return "none";
    case InSync::self:
      return "self";
    case InSync::both:
      return "both";
  }
  return "unknown";
}

constexpr std::optional<ReplicaState> parse_replica_state(std::string_view text) {
  for (const auto s : {ReplicaState::uptodate, ReplicaState::inconsistent, ReplicaState::outdated})
    if (text == to_text(s)) return s;
  return std::nullopt;
}

constexpr std::optional<InSync> parse_in_sync(std::string_view text) {
  for (const auto s : {InSync::none, InSync::self, InSync::both})
    if (text == to_text(s)) return s;
  return std::nullopt;
}

}  // namespace havm
