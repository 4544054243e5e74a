// The job of these messages: the JSON payloads of docs/protocol/replication.md, text ↔ structs.
// Decoding is strict about what is needed (a missing or mistyped field is an Error that names it)
// and lenient about what is not known: an unknown field is left alone, so that versions N and N+1
// can talk. Any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmrepl/base/replica_types.hpp"
#include "vmrepl/base/result.hpp"
#include "vmrepl/base/strong_types.hpp"
#include "vmrepl/bitmap/dirty_bitmap.hpp"

namespace havm {

// Of a hello; more is refused.
constexpr std::size_t hello_disks_max = 256;
// Of a history of generations on the wire; more is refused.
constexpr std::size_t history_max = 64;
// Of one sync_dirty frame.
constexpr std::size_t ranges_max = 4096;
// Of a reason, in UTF-8: a longer one is cut, when it is encoded and when it is decoded. Reasons
// quote what the other side said, and must fit into a frame however much that was.
constexpr std::size_t reason_bytes_max = 4096;

// What the engine that said hello can do; its messages did not name a number before 2.
constexpr std::uint64_t protocol_before_generations = 1;
constexpr std::uint64_t protocol_generations = 2;
constexpr std::uint64_t protocol_hashes = 3;
constexpr std::uint64_t protocol_reads = 4;
constexpr std::uint64_t protocol_present = protocol_reads;

enum class SyncMode : std::uint8_t { partial, full, refuse };
const char* to_text(SyncMode mode);

// Which data history a replica holds and what is known of its differences: see
// vmrepl/session/replica_record.hpp for the invariants. An absent field has the value given here,
// and each of these values leads to the more careful verdict.
struct ReplicaHistory {
  std::uint64_t generation = 0;  // 0: none
  std::uint64_t base_generation = 0;
  std::vector<std::uint64_t> history;  // newest first
  bool generation_shared = true;
  Epoch owner_epoch;
  Epoch lack_epoch;
  bool damaged = false;
  bool dirty_known = false;  // its own dirty set (bitmap and activity log) could be read
  bool operator==(const ReplicaHistory&) const = default;
};

struct Hello : ReplicaHistory {
  std::string vm;
  std::string vm_id;  // uuid text
  std::string node;
  std::string boot_id;
  Epoch epoch;
  SessionId session;
  std::chrono::milliseconds lease{0};
  std::vector<DiskIdentity> disks;
  std::string engine_version;
  std::uint64_t protocol = protocol_present;
  bool operator==(const Hello&) const = default;
};

struct HelloOk : ReplicaHistory {
  std::string node;
  std::string boot_id;
  ReplicaState state = ReplicaState::inconsistent;
  Epoch promised_epoch;
  Epoch record_epoch;
  bool suspect = false;
  std::uint64_t protocol = protocol_present;
  bool operator==(const HelloOk&) const = default;
};

struct HelloRefused {
  std::string reason;
  Epoch promised_epoch;
  bool operator==(const HelloRefused&) const = default;
};

// The new epoch itself is in the frame header.
struct EpochMessage {
  InSync in_sync = InSync::both;
  bool operator==(const EpochMessage&) const = default;
};

// An empty payload, as an engine of protocol 1 sends it, decodes to these defaults: everything is
// copied, and the data belongs to no generation. To such an engine an empty payload must be sent.
struct SyncBegin {
  SyncMode mode = SyncMode::full;  // never refuse
  std::uint64_t generation = 0;    // the owner's
  bool operator==(const SyncBegin&) const = default;
};

struct SyncEnd {
  std::uint64_t generation = 0;
  std::vector<std::uint64_t> history;  // newest first
  bool operator==(const SyncEnd&) const = default;
};

struct Bye {
  std::string reason;
  bool operator==(const Bye&) const = default;
};

std::string encode(const Hello& message);
std::string encode(const HelloOk& message);
std::string encode(const HelloRefused& message);
std::string encode(const EpochMessage& message);
std::string encode(const SyncBegin& message);
std::string encode(const SyncEnd& message);
std::string encode(const Bye& message);

Result<Hello> decode_hello(std::string_view json);
Result<HelloOk> decode_hello_ok(std::string_view json);
Result<HelloRefused> decode_hello_refused(std::string_view json);
Result<EpochMessage> decode_epoch_message(std::string_view json);
Result<SyncBegin> decode_sync_begin(std::string_view json);
Result<SyncEnd> decode_sync_end(std::string_view json);
Result<Bye> decode_bye(std::string_view json);

// The payload of a sync_dirty frame. 1 to ranges_max ranges, none of them empty.
std::vector<std::byte> encode_ranges(std::span<const ByteRange> ranges);
// Strict: every range lies inside the disk, none is empty.
Result<std::vector<ByteRange>> decode_ranges(std::span<const std::byte> payload,
                                             std::uint64_t disk_size_bytes);

// A payload as bytes and back; both views end with what they look at.
inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}
inline std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace havm
