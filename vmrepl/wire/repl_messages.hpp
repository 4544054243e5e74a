// The job of these messages: the JSON payloads of docs/protocol/replication.md, text ↔ structs.
// Decoding is strict about what is needed (a missing or mistyped field is an Error that names it)
// and lenient about what is not known: an unknown field is left alone, so that versions N and N+1
// can talk. Any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmrepl/base/replica_types.hpp"
#include "vmrepl/base/result.hpp"
#include "vmrepl/base/strong_types.hpp"

namespace havm {

// Of a hello; more is refused.
constexpr std::size_t hello_disks_max = 256;
// Of a reason, in UTF-8: a longer one is cut, when it is encoded and when it is decoded. Reasons
// quote what the other side said, and must fit into a frame however much that was.
constexpr std::size_t reason_bytes_max = 4096;

struct Hello {
  std::string vm;
  std::string vm_id;  // uuid text
  std::string node;
  std::string boot_id;
  Epoch epoch;
  SessionId session;
  std::chrono::milliseconds lease{0};
  std::vector<DiskIdentity> disks;
  std::string engine_version;
  bool operator==(const Hello&) const = default;
};

struct HelloOk {
  std::string node;
  std::string boot_id;
  ReplicaState state = ReplicaState::inconsistent;
  Epoch promised_epoch;
  Epoch record_epoch;
  bool suspect = false;
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

struct Bye {
  std::string reason;
  bool operator==(const Bye&) const = default;
};

std::string encode(const Hello& message);
std::string encode(const HelloOk& message);
std::string encode(const HelloRefused& message);
std::string encode(const EpochMessage& message);
std::string encode(const Bye& message);

Result<Hello> decode_hello(std::string_view json);
Result<HelloOk> decode_hello_ok(std::string_view json);
Result<HelloRefused> decode_hello_refused(std::string_view json);
Result<EpochMessage> decode_epoch_message(std::string_view json);
Result<Bye> decode_bye(std::string_view json);

// A payload as bytes and back; both views end with what they look at.
inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}
inline std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace havm
