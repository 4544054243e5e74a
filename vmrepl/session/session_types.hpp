// The job of these types: the words that the two session cores and their drivers share. Data only.
#pragma once

#include <cstdint>

namespace havm {

// Index of a request in its driver's table: small, dense, reused after the request is finished.
using OpId = std::uint32_t;
constexpr OpId no_op = UINT32_MAX;

// A trim is a zero with may_unmap: both legs must end with identical bytes (design rule 11).
enum class DiskOp : std::uint8_t { read, write, zero, flush };

// A piece of work on one disk of the consistency group. Bytes.
struct DiskRequest {
  DiskOp op = DiskOp::read;
  std::uint16_t disk = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  bool fua = false;        // write, zero: durable before completion
  bool may_unmap = false;  // zero: blocks may be given back
};

constexpr bool changes_data(const DiskRequest& r) {
  return r.op == DiskOp::write || r.op == DiskOp::zero;
}

// What the owner's side says about its session (docs/protocol/engine-control.md).
enum class SessionState : std::uint8_t { none, connecting, syncing, synced, live, secondary, lost };

constexpr const char* to_text(SessionState state) {
  switch (state) {
    case SessionState::none:
      return "none";
    case SessionState::connecting:
      return "connecting";
    case SessionState::syncing:
      return "syncing";
    case SessionState::synced:
      return "synced";
    case SessionState::live:
      return "live";
    case SessionState::secondary:
      return "secondary";
    case SessionState::lost:
      return "lost";
  }
  return "unknown";
}

}  // namespace havm
