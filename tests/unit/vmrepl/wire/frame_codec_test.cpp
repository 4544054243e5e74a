// frame_codec: every field goes round, every damaged bit is noticed, every impossible frame is
// refused, and the bytes are those of docs/protocol/replication.md.
#include "vmrepl/wire/frame_codec.hpp"

#include <algorithm>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "vmrepl/wire/big_endian.hpp"
#include "vmrepl/wire/crc32c.hpp"
#include "vmrepl/wire/grain_hash.hpp"
#include "vmrepl/wire/repl_messages.hpp"

namespace havm {
namespace {

constexpr FrameType all_types[] = {
    FrameType::hello,         FrameType::hello_ok,    FrameType::hello_refused,
    FrameType::write,         FrameType::zero,        FrameType::flush,
    FrameType::read,          FrameType::data,        FrameType::ack,
    FrameType::lease_request, FrameType::lease_grant, FrameType::lease_refused,
    FrameType::epoch,         FrameType::epoch_ok,    FrameType::sync_begin,
    FrameType::sync_begin_ok, FrameType::sync_end,    FrameType::sync_end_ok,
    FrameType::sync_dirty,    FrameType::bye,         FrameType::hash,
    FrameType::hash_ok};

FrameHeader header_of(FrameType type) {
  FrameHeader header;
  header.type = type;
  header.session = SessionId(0x0123456789abcdef);
  header.sequence = Sequence(42);
  header.epoch = Epoch(7);
  return header;
}

FrameHeader decoded(std::span<const std::byte> bytes) {
  const auto result = decode_header(bytes);
  const auto* header = std::get_if<FrameHeader>(&result);
  EXPECT_NE(header, nullptr);
  return header != nullptr ? *header : FrameHeader{};
}

FrameFault fault_of(std::span<const std::byte> bytes) {
  const auto result = decode_header(bytes);
  const auto* fault = std::get_if<FrameFault>(&result);
  EXPECT_NE(fault, nullptr) << "accepted what must be refused";
  return fault != nullptr ? *fault : FrameFault{};
}

// Changes a field of an encoded header and makes its CRC right again.
template <class T>
FrameHeaderBytes forged(FrameHeaderBytes bytes, std::size_t at, T value) {
  store_be(bytes.data() + at, value);
  store_be(bytes.data() + 60, crc32c(std::span<const std::byte>(bytes).first(60)));
  return bytes;
}

bool carries_payload(FrameType type) {
  switch (type) {
    case FrameType::hello:
    case FrameType::hello_ok:
    case FrameType::hello_refused:
    case FrameType::epoch:
    case FrameType::bye:
    case FrameType::write:
    case FrameType::data:
    case FrameType::sync_begin:
    case FrameType::sync_end:
    case FrameType::sync_dirty:
      return true;
    default:
      return false;
  }
}

bool has_data_range(FrameType type) {
  return type == FrameType::write || type == FrameType::read || type == FrameType::data;
}

bool may_carry_nothing(FrameType type) {
  return type == FrameType::sync_begin || type == FrameType::sync_end;
}

bool is_of_hashes(FrameType type) {
  return type == FrameType::hash || type == FrameType::hash_ok;
}

TEST(FrameCodec, EveryFieldGoesRoundForEveryType) {
  std::mt19937_64 random(1);
  for (const FrameType type : all_types) {
    for (int i = 0; i < 50; ++i) {
      std::size_t size = carries_payload(type) ? 1 + random() % 5000 : 0;
      if (type == FrameType::sync_dirty) size = 16 * (1 + random() % 4096);
      if (i == 0 && may_carry_nothing(type)) size = 0;
      const auto hashed = static_cast<std::uint32_t>(1 + random() % hash_range_bytes_max);
      const bool failed = random() % 2 == 0;
      if (type == FrameType::hash_ok && !failed) size = 16 * ((hashed + 65535) / 65536);
      std::vector<std::byte> payload(size, std::byte{0x77});
      FrameHeader header;
      header.type = type;
      header.session = SessionId(random());
      header.sequence = Sequence(random());
      header.offset = random();
      header.length = type == FrameType::write || type == FrameType::data
                          ? static_cast<std::uint32_t>(payload.size())
                          : static_cast<std::uint32_t>(random());
      if (has_data_range(type)) header.length = 1 + (header.length - 1) % payload_bytes_max;
      header.disk = static_cast<std::uint16_t>(random());
      header.fua = random() % 2 == 0;
      header.may_unmap = random() % 2 == 0;
      header.resync = random() % 2 == 0;
      header.epoch = Epoch(random());
      header.status = type == FrameType::data ? 0 : static_cast<std::uint32_t>(random());
      if (is_of_hashes(type)) {
        header.offset &= ~std::uint64_t{0xffff};
        header.length = hashed;
        header.status = failed ? 5 : 0;
      }
      FrameHeader expected = header;
      expected.payload_length = static_cast<std::uint32_t>(payload.size());
      expected.payload_crc = crc32c(payload);
      const FrameHeaderBytes bytes = encode_header(header, payload);
      ASSERT_EQ(decoded(bytes), expected) << to_text(type);
      ASSERT_TRUE(check_payload(expected, payload));
    }
  }
}

TEST(FrameCodec, EveryFlippedBitOfTheHeaderIsNoticed) {
  const std::string text = "0123456789";
  FrameHeader header = header_of(FrameType::write);
  header.length = 10;
  const FrameHeaderBytes good = encode_header(header, bytes_of(text));
  for (std::size_t bit = 0; bit < 8 * frame_header_bytes; ++bit) {
    FrameHeaderBytes bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    const FrameFault fault = fault_of(bad);
    ASSERT_EQ(fault, bit < 32 ? FrameFault::wrong_magic : FrameFault::wrong_header_crc) << bit;
  }
}

TEST(FrameCodec, EveryFlippedBitOfThePayloadIsNoticed) {
  std::vector<std::byte> payload(600, std::byte{0xa5});
  FrameHeader header = header_of(FrameType::write);
  header.length = 600;
  header = decoded(encode_header(header, payload));
  for (std::size_t bit = 0; bit < 8 * payload.size(); ++bit) {
    payload[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    ASSERT_FALSE(check_payload(header, payload)) << bit;
    payload[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
  }
  EXPECT_TRUE(check_payload(header, payload));
  EXPECT_FALSE(check_payload(header, std::span<const std::byte>(payload).first(599)));
}

TEST(FrameCodec, ShortInputIsRefused) {
  const FrameHeaderBytes good = encode_header(header_of(FrameType::flush));
  for (std::size_t n = 0; n < frame_header_bytes; ++n)
    EXPECT_EQ(fault_of(std::span<const std::byte>(good).first(n)), FrameFault::short_header);
}

TEST(FrameCodec, OtherVersionsTypesAndFlagsAreRefused) {
  const FrameHeaderBytes good = encode_header(header_of(FrameType::flush));
  EXPECT_EQ(fault_of(forged(good, 4, std::uint16_t{2})), FrameFault::wrong_version);
  EXPECT_EQ(fault_of(forged(good, 4, std::uint16_t{0})), FrameFault::wrong_version);
  for (const unsigned type : {0U, 4U, 9U, 14U, 23U, 33U, 42U, 55U, 61U, 65535U})
    EXPECT_EQ(fault_of(forged(good, 6, static_cast<std::uint16_t>(type))), FrameFault::unknown_type)
        << type;
  for (unsigned bit = 3; bit < 16; ++bit)
    EXPECT_EQ(fault_of(forged(good, 38, static_cast<std::uint16_t>(1U << bit))),
              FrameFault::unknown_flags);
}

TEST(FrameCodec, LengthsThatATypeCannotHaveAreRefused) {
  const FrameHeaderBytes flush = encode_header(header_of(FrameType::flush));
  EXPECT_EQ(fault_of(forged(flush, 48, std::uint32_t{1})), FrameFault::impossible_length);

  const std::string text = "{}";
  const FrameHeaderBytes bye = encode_header(header_of(FrameType::bye), bytes_of(text));
  EXPECT_EQ(fault_of(forged(bye, 48, std::uint32_t{0})), FrameFault::impossible_length);
  EXPECT_EQ(fault_of(forged(bye, 48, json_payload_bytes_max + 1)), FrameFault::impossible_length);

  for (const FrameType type : {FrameType::sync_begin, FrameType::sync_end})
    EXPECT_EQ(fault_of(forged(encode_header(header_of(type)), 48, json_payload_bytes_max + 1)),
              FrameFault::impossible_length);

  const std::vector<ByteRange> ranges(ranges_max, ByteRange{0, 512});
  const auto most = encode_ranges(ranges);
  const FrameHeaderBytes dirty = encode_header(header_of(FrameType::sync_dirty), most);
  EXPECT_EQ(decoded(dirty).payload_length, most.size());
  for (const std::uint32_t wrong : {0U, 15U, 17U, 65536U + 16U})
    EXPECT_EQ(fault_of(forged(dirty, 48, wrong)), FrameFault::impossible_length) << wrong;

  FrameHeader header = header_of(FrameType::write);
  header.length = 2;
  const FrameHeaderBytes write = encode_header(header, bytes_of(text));
  EXPECT_EQ(fault_of(forged(write, 48, std::uint32_t{3})), FrameFault::impossible_length);
  EXPECT_EQ(fault_of(forged(write, 32, std::uint32_t{3})), FrameFault::impossible_length);
  FrameHeaderBytes huge = forged(write, 48, payload_bytes_max + 1);
  huge = forged(huge, 32, payload_bytes_max + 1);
  EXPECT_EQ(fault_of(huge), FrameFault::impossible_length);
  huge = forged(forged(write, 48, payload_bytes_max), 32, payload_bytes_max);
  EXPECT_EQ(decoded(huge).payload_length, payload_bytes_max);
}

TEST(FrameCodec, AHashIsOfWholeGrainsOfABoundedRange) {
  FrameHeader header = header_of(FrameType::hash);
  header.offset = 3 << 16;
  header.length = hash_range_bytes_max;
  const FrameHeaderBytes hash = encode_header(header);
  EXPECT_EQ(decoded(hash).length, hash_range_bytes_max);
  EXPECT_EQ(decoded(forged(hash, 32, std::uint32_t{1})).length, 1U);
  for (const std::uint32_t length : {0U, hash_range_bytes_max + 1, 0xffffffffU})
    EXPECT_EQ(fault_of(forged(hash, 32, length)), FrameFault::impossible_length) << length;
  for (const std::uint64_t offset : {std::uint64_t{1}, std::uint64_t{(3U << 16) + 512}})
    EXPECT_EQ(fault_of(forged(hash, 24, offset)), FrameFault::impossible_length) << offset;
  EXPECT_EQ(fault_of(forged(hash, 48, std::uint32_t{16})), FrameFault::impossible_length);
}

TEST(FrameCodec, AnAnswerToAHashHasOneChecksumForEachGrainOrAnError) {
  FrameHeader header = header_of(FrameType::hash_ok);
  header.length = (2 << 16) + 512;
  const auto three = encode_hashes(std::vector<GrainHash>(3));
  const FrameHeaderBytes answer = encode_header(header, three);
  EXPECT_EQ(decoded(answer).payload_length, 48U);
  for (const std::uint32_t size : {0U, 16U, 32U, 47U, 64U})
    EXPECT_EQ(fault_of(forged(answer, 48, size)), FrameFault::impossible_length) << size;
  for (const std::uint32_t length : {0U, 2U << 16, (3U << 16) + 1, hash_range_bytes_max + 1})
    EXPECT_EQ(fault_of(forged(answer, 32, length)), FrameFault::impossible_length) << length;
  EXPECT_EQ(fault_of(forged(answer, 56, std::uint32_t{5})), FrameFault::impossible_length);
  header.status = 5;
  EXPECT_EQ(decoded(encode_header(header)).status, 5U);
}

TEST(FrameCodec, AReadHasALengthAndItsAnswerTheDataOrAnError) {
  FrameHeader read = header_of(FrameType::read);
  read.length = 4096;
  const FrameHeaderBytes asked = encode_header(read);
  EXPECT_EQ(decoded(asked).length, 4096U);
  for (const std::uint32_t wrong : {0U, payload_bytes_max + 1})
    EXPECT_EQ(fault_of(forged(asked, 32, wrong)), FrameFault::impossible_length) << wrong;
  EXPECT_EQ(fault_of(forged(asked, 48, 4096U)), FrameFault::impossible_length);

  const std::string text = "four";
  FrameHeader data = header_of(FrameType::data);
  data.length = 4;
  const FrameHeaderBytes answer = encode_header(data, bytes_of(text));
  EXPECT_EQ(decoded(answer).payload_length, 4U);
  for (const std::uint32_t wrong : {0U, 3U, 5U})
    EXPECT_EQ(fault_of(forged(answer, 48, wrong)), FrameFault::impossible_length) << wrong;
  EXPECT_EQ(fault_of(forged(answer, 56, 5U)), FrameFault::impossible_length)
      << "an error with data";
  data.status = 5;
  const FrameHeaderBytes error = encode_header(data);
  EXPECT_EQ(decoded(error).status, 5U);
  EXPECT_EQ(fault_of(forged(error, 56, 0U)), FrameFault::impossible_length)
      << "success without data";
}

TEST(FrameCodec, RandomBytesAreNeverAFrame) {
  std::mt19937 random(3);
  for (int i = 0; i < 20000; ++i) {
    FrameHeaderBytes bytes{};
    for (std::byte& b : bytes)
      b = static_cast<std::byte>(random());
    if (i % 2 == 0) store_be(bytes.data(), std::uint32_t{0x48565250});
    ASSERT_TRUE(std::holds_alternative<FrameFault>(decode_header(bytes)));
  }
}

TEST(FrameCodecDeathTest, EncodingAnImpossibleFrameIsABug) {
  const std::string text = "x";
  EXPECT_DEATH(encode_header(header_of(FrameType::flush), bytes_of(text)), "what its type carries");
  EXPECT_DEATH(encode_header(header_of(FrameType::write), bytes_of(text)), "what its type carries");
  EXPECT_DEATH(encode_header(header_of(FrameType::hello)), "what its type carries");
}

TEST(FrameCodec, EveryFaultAndTypeHasAText) {
  for (int f = 0; f <= static_cast<int>(FrameFault::wrong_payload_crc); ++f)
    EXPECT_STRNE(to_text(static_cast<FrameFault>(f)), "unknown fault");
  for (const FrameType type : all_types)
    EXPECT_STRNE(to_text(type), "unknown");
}

// --- The vectors of docs/protocol/replication.md, "Test vectors" ---

// The hex bytes of the code block that follows the line starting with `title`.
std::vector<std::byte> vector_of(const std::string& title) {
  std::ifstream document(HAVM_REPLICATION_MD);
  std::string line;
  while (std::getline(document, line) && line.rfind(title, 0) != 0) {
  }
  while (std::getline(document, line) && line.rfind("```", 0) != 0) {
  }
  std::vector<std::byte> bytes;
  while (std::getline(document, line) && line.rfind("```", 0) != 0) {
    std::istringstream words(line);
    for (unsigned value = 0; words >> std::hex >> value;)
      bytes.push_back(static_cast<std::byte>(value));
  }
  return bytes;
}

std::vector<std::byte> frame_of(const FrameHeader& header, std::string_view payload) {
  const FrameHeaderBytes head = encode_header(header, bytes_of(payload));
  std::vector<std::byte> frame(head.begin(), head.end());
  const auto tail = bytes_of(payload);
  frame.insert(frame.end(), tail.begin(), tail.end());
  return frame;
}

TEST(FrameCodec, TheDocumentedWriteIsWhatWeSend) {
  FrameHeader header = header_of(FrameType::write);
  header.offset = 0x100000;
  header.length = 16;
  header.disk = 1;
  header.fua = true;
  EXPECT_EQ(frame_of(header, "0123456789abcdef"), vector_of("Vector 1"));
}

TEST(FrameCodec, TheDocumentedByeIsWhatWeSend) {
  const Bye bye{"the VM was stopped"};
  EXPECT_EQ(frame_of(header_of(FrameType::bye), encode(bye)), vector_of("Vector 2"));
}

TEST(FrameCodec, TheDocumentedReadAndItsAnswerAreWhatWeSend) {
  FrameHeader read = header_of(FrameType::read);
  read.offset = 0x100000;
  read.length = 16;
  read.disk = 1;
  EXPECT_EQ(frame_of(read, ""), vector_of("Vector 6"));
  FrameHeader data = read;
  data.type = FrameType::data;
  EXPECT_EQ(frame_of(data, "0123456789abcdef"), vector_of("Vector 7"));
}

TEST(FrameCodec, TheDocumentedListOfRangesIsWhatWeSend) {
  FrameHeader header = header_of(FrameType::sync_dirty);
  header.disk = 1;
  const ByteRange ranges[] = {{1 << 20, 64 << 10}, {8 << 20, 4 << 10}};
  EXPECT_EQ(frame_of(header, text_of(encode_ranges(ranges))), vector_of("Vector 3"));
}

TEST(FrameCodec, TheDocumentedHashAndItsAnswerAreWhatWeSend) {
  FrameHeader header = header_of(FrameType::hash);
  header.offset = 0x100000;
  header.length = 0x18000;
  header.disk = 1;
  EXPECT_EQ(frame_of(header, ""), vector_of("Vector 4"));
  header.type = FrameType::hash_ok;
  // Zeroes, then half a grain of "a".
  std::vector<std::byte> data(0x18000);
  std::fill(data.begin() + 0x10000, data.end(), std::byte{'a'});
  EXPECT_EQ(frame_of(header, text_of(encode_hashes(hash_grains(data)))), vector_of("Vector 5"));
}

}  // namespace
}  // namespace havm
