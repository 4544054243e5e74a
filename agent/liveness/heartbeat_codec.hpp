// The job of heartbeat_codec: the datagram of docs/protocol/peer.md, text ↔ struct. What anybody
// may send to the port is judged here: what is not exactly a heartbeat is nothing. No I/O; never
// throws; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace havm {

constexpr std::size_t heartbeat_bytes_max = 1400;

struct Heartbeat {
  std::string cluster;
  std::string node;     // the sender
  std::string boot_id;  // not empty
  std::uint64_t counter = 0;
  bool operator==(const Heartbeat&) const = default;
};

// Longer than heartbeat_bytes_max only when the names are.
std::string encode_heartbeat(const Heartbeat& heartbeat);
// Nothing when it is none. Unknown fields are left alone.
std::optional<Heartbeat> decode_heartbeat(std::string_view datagram);

}  // namespace havm
