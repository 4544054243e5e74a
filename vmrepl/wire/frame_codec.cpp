#include "vmrepl/wire/frame_codec.hpp"

#include <optional>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/wire/big_endian.hpp"
#include "vmrepl/wire/crc32c.hpp"
#include "vmrepl/wire/grain_hash.hpp"

namespace havm {
namespace {

constexpr std::uint32_t magic = 0x48565250;  // "HVRP"
constexpr std::size_t crc_at = 60;
constexpr std::uint32_t range_bytes = 16;
constexpr std::uint32_t ranges_payload_bytes_max = 4096 * range_bytes;
constexpr std::uint16_t flag_fua = 1;
constexpr std::uint16_t flag_may_unmap = 2;
constexpr std::uint16_t flag_resync = 4;
constexpr std::uint16_t flags_known = flag_fua | flag_may_unmap | flag_resync;

// json_or_none: an engine of protocol 1 sends and expects nothing.
// data_or_error: data where the status is 0; hashes likewise.
enum class Payload {
  none,
  json,
  json_or_none,
  data,
  ranges,
  data_range,
  data_or_error,
  hash_range,
  hashes
};

// Nothing when the type is not known.
std::optional<Payload> payload_of(std::uint16_t type) {
  switch (static_cast<FrameType>(type)) {
    case FrameType::hello:
    case FrameType::hello_ok:
    case FrameType::hello_refused:
    case FrameType::epoch:
    case FrameType::bye:
      return Payload::json;
    case FrameType::sync_begin:
    case FrameType::sync_end:
      return Payload::json_or_none;
    case FrameType::write:
      return Payload::data;
    case FrameType::sync_dirty:
      return Payload::ranges;
    case FrameType::read:
      return Payload::data_range;
    case FrameType::data:
      return Payload::data_or_error;
    case FrameType::hash:
      return Payload::hash_range;
    case FrameType::hash_ok:
      return Payload::hashes;
    case FrameType::zero:
    case FrameType::flush:
    case FrameType::ack:
    case FrameType::lease_request:
    case FrameType::lease_grant:
    case FrameType::lease_refused:
    case FrameType::epoch_ok:
    case FrameType::sync_begin_ok:
    case FrameType::sync_end_ok:
      return Payload::none;
  }
  return std::nullopt;
}

bool length_fits(Payload kind, const FrameHeader& header, std::uint32_t payload_length) {
  const std::uint32_t range_length = header.length;
  const bool data_range = range_length > 0 && range_length <= payload_bytes_max;
  const bool hash_range = range_length > 0 && range_length <= hash_range_bytes_max &&
                          header.offset % DirtyBitmap::grain_bytes == 0;
  switch (kind) {
    case Payload::none:
      return payload_length == 0;
    case Payload::json:
      return payload_length > 0 && payload_length <= json_payload_bytes_max;
    case Payload::json_or_none:
      return payload_length <= json_payload_bytes_max;
    case Payload::ranges:
      return payload_length > 0 && payload_length <= ranges_payload_bytes_max &&
             payload_length % range_bytes == 0;
    case Payload::data:
      return payload_length > 0 && payload_length <= payload_bytes_max &&
             payload_length == range_length;
    case Payload::data_range:
      return payload_length == 0 && data_range;
    case Payload::data_or_error:
      return data_range && payload_length == (header.status == 0 ? range_length : 0);
    case Payload::hash_range:
      return payload_length == 0 && hash_range;
    case Payload::hashes:
      return hash_range &&
             payload_length ==
                 (header.status == 0 ? grains_of(range_length) * grain_hash_bytes : 0);
  }
  return false;
}

std::uint16_t flags_of(const FrameHeader& header) {
  return static_cast<std::uint16_t>((header.fua ? flag_fua : 0) |
                                    (header.may_unmap ? flag_may_unmap : 0) |
                                    (header.resync ? flag_resync : 0));
}

}  // namespace

FrameHeaderBytes encode_header(const FrameHeader& header, std::span<const std::byte> payload) {
  HAVM_ASSERT(payload.size() <= payload_bytes_max, "a frame's payload has a bound");
  const auto payload_length = static_cast<std::uint32_t>(payload.size());
  const auto type = static_cast<std::uint16_t>(header.type);
  const std::optional<Payload> kind = payload_of(type);
  HAVM_ASSERT(kind && length_fits(*kind, header, payload_length),
              "a frame must carry what its type carries");

  FrameHeaderBytes bytes{};
  std::byte* at = bytes.data();
  store_be(at + 0, magic);
  store_be(at + 4, frame_version);
  store_be(at + 6, type);
  store_be(at + 8, header.session.value);
  store_be(at + 16, header.sequence.value);
  store_be(at + 24, header.offset);
  store_be(at + 32, header.length);
  store_be(at + 36, header.disk);
  store_be(at + 38, flags_of(header));
  store_be(at + 40, header.epoch.value);
  store_be(at + 48, payload_length);
  store_be(at + 52, crc32c(payload));
  store_be(at + 56, header.status);
  store_be(at + crc_at, crc32c(std::span<const std::byte>(bytes).first(crc_at)));
  return bytes;
}

std::variant<FrameHeader, FrameFault> decode_header(std::span<const std::byte> bytes) {
  if (bytes.size() < frame_header_bytes) return FrameFault::short_header;
  const std::byte* at = bytes.data();
  if (load_be<std::uint32_t>(at) != magic) return FrameFault::wrong_magic;
  if (load_be<std::uint32_t>(at + crc_at) != crc32c(bytes.first(crc_at)))
    return FrameFault::wrong_header_crc;
  if (load_be<std::uint16_t>(at + 4) != frame_version) return FrameFault::wrong_version;
  const auto type = load_be<std::uint16_t>(at + 6);
  const std::optional<Payload> kind = payload_of(type);
  if (!kind) return FrameFault::unknown_type;
  const auto flags = load_be<std::uint16_t>(at + 38);
  if ((flags & ~flags_known) != 0) return FrameFault::unknown_flags;

  FrameHeader header;
  header.type = static_cast<FrameType>(type);
  header.session = SessionId(load_be<std::uint64_t>(at + 8));
  header.sequence = Sequence(load_be<std::uint64_t>(at + 16));
  header.offset = load_be<std::uint64_t>(at + 24);
  header.length = load_be<std::uint32_t>(at + 32);
  header.disk = load_be<std::uint16_t>(at + 36);
  header.fua = (flags & flag_fua) != 0;
  header.may_unmap = (flags & flag_may_unmap) != 0;
  header.resync = (flags & flag_resync) != 0;
  header.epoch = Epoch(load_be<std::uint64_t>(at + 40));
  header.payload_length = load_be<std::uint32_t>(at + 48);
  header.payload_crc = load_be<std::uint32_t>(at + 52);
  header.status = load_be<std::uint32_t>(at + 56);
  if (!length_fits(*kind, header, header.payload_length)) return FrameFault::impossible_length;
  if (header.payload_length == 0 && header.payload_crc != 0) return FrameFault::wrong_payload_crc;
  return header;
}

bool check_payload(const FrameHeader& header, std::span<const std::byte> payload) {
  return payload.size() == header.payload_length && crc32c(payload) == header.payload_crc;
}

const char* to_text(FrameFault fault) {
  switch (fault) {
    case FrameFault::short_header:
      return "the frame header is incomplete";
    case FrameFault::wrong_magic:
      return "this is not havm's replication protocol";
    case FrameFault::wrong_header_crc:
      return "the frame header was damaged on the way";
    case FrameFault::wrong_version:
      return "the partner speaks another version of the protocol";
    case FrameFault::unknown_type:
      return "the type of the frame is not known";
    case FrameFault::unknown_flags:
      return "the frame has flags that are not known";
    case FrameFault::impossible_length:
      return "the length of the frame is impossible";
    case FrameFault::wrong_payload_crc:
      return "the payload of the frame was damaged on the way";
  }
  return "unknown fault";
}

const char* to_text(FrameType type) {
  switch (type) {
    case FrameType::hello:
      return "hello";
    case FrameType::hello_ok:
      return "hello_ok";
    case FrameType::hello_refused:
      return "hello_refused";
    case FrameType::write:
      return "write";
    case FrameType::zero:
      return "zero";
    case FrameType::flush:
      return "flush";
    case FrameType::read:
      return "read";
    case FrameType::hash:
      return "hash";
    case FrameType::ack:
      return "ack";
    case FrameType::data:
      return "data";
    case FrameType::hash_ok:
      return "hash_ok";
    case FrameType::lease_request:
      return "lease_request";
    case FrameType::lease_grant:
      return "lease_grant";
    case FrameType::lease_refused:
      return "lease_refused";
    case FrameType::epoch:
      return "epoch";
    case FrameType::epoch_ok:
      return "epoch_ok";
    case FrameType::sync_begin:
      return "sync_begin";
    case FrameType::sync_begin_ok:
      return "sync_begin_ok";
    case FrameType::sync_end:
      return "sync_end";
    case FrameType::sync_end_ok:
      return "sync_end_ok";
    case FrameType::sync_dirty:
      return "sync_dirty";
    case FrameType::bye:
      return "bye";
  }
  return "unknown";
}

}  // namespace havm
