// Frame headers and payloads (docs/protocol/replication.md).
//
// Input: one byte of mode, 64 bytes of header, the payload. Checksums that the fuzzer cannot guess
// are put right where the mode asks for it.
#include "vmrepl/wire/frame_codec.hpp"

#include <algorithm>
#include <vector>

#include "tests/fuzz/support/fuzz_target.hpp"
#include "vmrepl/wire/big_endian.hpp"
#include "vmrepl/wire/crc32c.hpp"
#include "vmrepl/wire/grain_hash.hpp"

namespace havm::fuzz {
namespace {

constexpr std::uint8_t fix_header_crc = 1;
constexpr std::uint8_t fix_payload = 2;  // its length and CRC
constexpr std::uint8_t fix_start = 4;    // magic and version
constexpr std::size_t payload_length_at = 48;
constexpr std::size_t payload_crc_at = 52;
constexpr std::size_t header_crc_at = 60;

void prepare(std::vector<std::byte>& frame, std::uint8_t mode) {
  if (frame.size() < frame_header_bytes) return;
  std::byte* at = frame.data();
  const Bytes payload = Bytes(frame).subspan(frame_header_bytes);
  if ((mode & fix_start) != 0) {
    store_be(at, std::uint32_t{0x48565250});
    store_be(at + 4, frame_version);
  }
  if ((mode & fix_payload) != 0) {
    store_be(at + payload_length_at, static_cast<std::uint32_t>(payload.size()));
    store_be(at + payload_crc_at, crc32c(payload));
  }
  if ((mode & fix_header_crc) != 0)
    store_be(at + header_crc_at, crc32c(Bytes(frame).first(header_crc_at)));
}

// One flipped bit anywhere is noticed: a CRC finds every single one.
void check_damage(const std::vector<std::byte>& frame, const FrameHeader& header, std::size_t bit) {
  std::vector<std::byte> damaged = frame;
  bit %= damaged.size() * 8;
  damaged[bit / 8] ^= std::byte{1} << static_cast<int>(bit % 8);
  if (bit / 8 < frame_header_bytes) {
    FUZZ_CHECK(std::holds_alternative<FrameFault>(decode_header(damaged)),
               "a damaged header is refused");
    return;
  }
  FUZZ_CHECK(!check_payload(header, Bytes(damaged).subspan(frame_header_bytes)),
             "a damaged payload is refused");
}

}  // namespace

void one_input(Bytes input) {
  Input in(input);
  const std::uint8_t mode = in.byte();
  const std::size_t bit = in.number(2);
  const Bytes rest = in.rest();
  std::vector<std::byte> frame(rest.begin(), rest.end());
  prepare(frame, mode);

  const auto decoded = decode_header(frame);
  if (const auto* fault = std::get_if<FrameFault>(&decoded)) {
    FUZZ_CHECK(to_text(*fault)[0] != '\0', "a fault has a text");
    FUZZ_CHECK(frame.size() >= frame_header_bytes || *fault == FrameFault::short_header,
               "less than a header is called short");
    return;
  }
  FUZZ_CHECK(frame.size() >= frame_header_bytes, "nothing short is accepted");
  const auto& header = std::get<FrameHeader>(decoded);
  FUZZ_CHECK(header.payload_length <= payload_bytes_max, "a payload has a bound");
  const Bytes payload = Bytes(frame).subspan(frame_header_bytes);
  if (!check_payload(header, payload)) return;
  FUZZ_CHECK(payload.size() == header.payload_length, "an accepted payload has its length");
  // Accepted bytes have one meaning, and a meaning has one form.
  const FrameHeaderBytes again = encode_header(header, payload);
  FUZZ_CHECK(std::equal(again.begin(), again.end(), frame.begin()),
             "encode(decode(bytes)) == bytes");
  check_damage(frame, header, bit);
}

std::vector<std::string> seeds() {
  std::vector<std::string> all;
  const std::string prefix = packed(fix_header_crc | fix_payload, 1) + packed(77, 2);
  for (std::uint16_t type = 1; type <= 60; ++type) {
    FrameHeader header;
    header.type = static_cast<FrameType>(type);
    if (std::string_view(to_text(header.type)) == to_text(static_cast<FrameType>(0))) continue;
    header.session = SessionId(0x1122334455667788);
    header.sequence = Sequence(type);
    header.epoch = Epoch(4);
    header.disk = 1;
    std::string payload;
    switch (header.type) {
      case FrameType::write:
        payload = "some data";
        header.offset = 4096;
        header.fua = true;
        header.resync = true;
        break;
      case FrameType::data:
        payload = "some data";
        header.offset = 4096;
        break;
      case FrameType::zero:
        header.offset = 65536;
        header.may_unmap = true;
        break;
      case FrameType::hello:
      case FrameType::hello_ok:
      case FrameType::hello_refused:
      case FrameType::epoch:
      case FrameType::bye:
        payload = R"({"reason":"x"})";
        break;
      case FrameType::hash_ok:
        payload = "a checksum and a2nd of 16 bytes.";
        break;
      case FrameType::sync_dirty:
        payload = packed(1, 8) + packed(4096, 8);
        break;
      default:
        break;
    }
    header.length = static_cast<std::uint32_t>(payload.size());
    if (header.type == FrameType::zero || header.type == FrameType::read) header.length = 1U << 20;
    if (header.type == FrameType::hash || header.type == FrameType::hash_ok)
      header.length = 2 * DirtyBitmap::grain_bytes;
    const FrameHeaderBytes bytes = encode_header(header, bytes_of(payload));
    all.push_back(prefix + string_of(bytes) + payload);
  }
  all.push_back(packed(0, 3) + all.front().substr(3));
  return all;
}

}  // namespace havm::fuzz
