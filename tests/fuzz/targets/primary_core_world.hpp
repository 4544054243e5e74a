// The job of these types: what the fuzz target of PrimaryCore knows of each request, frame and
// disk, to compare with what the core decides. Data, and how requests are drawn and overlap. Bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/fuzz/support/fuzz_target.hpp"
#include "vmrepl/session/primary_core.hpp"

namespace havm::fuzz {

constexpr std::uint64_t extent = ActivityLogCore::extent_bytes;
constexpr std::uint64_t disk_bytes = 5 * extent;
constexpr std::uint16_t disk_count = 2;
constexpr std::size_t log_slots = 4;  // fewer than there are extents
constexpr OpId ops_max = 48;

struct Op {
  DiskRequest what;
  bool is_copy = false;
  std::uint64_t number = 0;  // order of arrival
  bool local_runs = false;
  bool local_ok = false;
  bool sent = false;       // to the present or a lost session
  bool acked = false;      // by the partner
  bool fetched = false;    // a read that failed here, with the partner's data
  bool repairing = false;  // which is being written to the own disk
};

struct Sent {
  FrameHeader frame;
  OpId op = no_op;
  std::uint64_t number = 0;  // of the newest request when it was sent
};

struct DiskState {
  bool flushing = false;
  std::uint64_t local_flush = 0;     // number of the newest request when the last flush began
  std::uint64_t flushed = 0;         // … of the last one that succeeded
  std::uint64_t partner_flush = 0;   // … of the last one that the partner acked
  std::vector<ByteRange> unflushed;  // acked by the partner, no flush sent since
  std::vector<ByteRange> covered;    // acked, and covered by the partner flush in flight
};

// Four neighbours each around the borders of the extents.
inline std::uint64_t some_offset(Input& in) {
  const std::size_t slot = in.below(16);
  return (slot / 4 + 1) * extent - 65536 + slot % 4 * 32768;
}

inline bool overlap(const DiskRequest& a, const DiskRequest& b) {
  return a.op != DiskOp::flush && b.op != DiskOp::flush && a.disk == b.disk &&
         a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}

}  // namespace havm::fuzz
