// The job of frame_codec: the 64-byte header of docs/protocol/replication.md, bytes ↔ struct. Pure:
// no clock, I/O, log or throw.
//
// Guarantees
//  1. decode_header accepts exactly what encode_header can produce: magic, version, header CRC, a
//     known type, known flags, and a payload length that this type can have. Anything else is a
//     FrameFault.
//  2. What one frame may carry is bounded by payload_bytes_max before anything is allocated for it.
// Session, epoch and sequence are judged by the session, not here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>

#include "vmrepl/base/strong_types.hpp"

namespace havm {

constexpr std::size_t frame_header_bytes = 64;
constexpr std::uint16_t frame_version = 1;
// A write of 32 MiB (the largest NBD request) and room to spare.
constexpr std::uint32_t payload_bytes_max = (32U << 20) + (64U << 10);
// Of a JSON payload.
constexpr std::uint32_t json_payload_bytes_max = 64U << 10;

enum class FrameType : std::uint16_t {
  hello = 1,
  hello_ok = 2,
  hello_refused = 3,
  write = 10,
  zero = 11,
  flush = 12,
  read = 13,
  hash = 15,
  ack = 20,
  data = 21,
  hash_ok = 22,
  lease_request = 30,
  lease_grant = 31,
  lease_refused = 32,
  epoch = 40,
  epoch_ok = 41,
  sync_begin = 50,
  sync_begin_ok = 51,
  sync_end = 52,
  sync_end_ok = 53,
  sync_dirty = 54,
  bye = 60,
};

struct FrameHeader {
  FrameType type = FrameType::bye;
  SessionId session;
  Sequence sequence;         // in an answer: that of the frame it answers
  std::uint64_t offset = 0;  // bytes
  std::uint32_t length = 0;  // bytes; of the range, also for zero, which has no payload
  std::uint16_t disk = 0;    // index in the hello's list
  bool fua = false;
  bool may_unmap = false;
  bool resync = false;  // copied by a resync, not written by the guest
  Epoch epoch;
  std::uint32_t payload_length = 0;  // bytes; set by encode_header
  std::uint32_t payload_crc = 0;     // set by encode_header; 0 when there is no payload
  std::uint32_t status = 0;          // ack, data, hash_ok: 0 or an errno value

  bool operator==(const FrameHeader&) const = default;
};

enum class FrameFault : std::uint8_t {
  short_header,       // fewer than 64 bytes given
  wrong_magic,        // not our protocol
  wrong_header_crc,   // damaged on the way
  wrong_version,      // an engine this one cannot talk to
  unknown_type,       //
  unknown_flags,      //
  impossible_length,  // longer than payload_bytes_max, or not what this type carries
  wrong_payload_crc,  // damaged on the way
};

// One sentence fragment for a log line or an Error.
const char* to_text(FrameFault fault);
const char* to_text(FrameType type);

using FrameHeaderBytes = std::array<std::byte, frame_header_bytes>;

// payload_length and payload_crc of `header` are ignored and computed from `payload`. A payload
// that the type cannot carry is a bug of the caller.
FrameHeaderBytes encode_header(const FrameHeader& header, std::span<const std::byte> payload = {});

// From the first 64 bytes of `bytes`.
std::variant<FrameHeader, FrameFault> decode_header(std::span<const std::byte> bytes);

// True when `payload` is the one the header announced (length and CRC).
bool check_payload(const FrameHeader& header, std::span<const std::byte> payload);

}  // namespace havm
