#include "vmrepl/wire/crc32c.hpp"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace havm {
namespace {

constexpr std::uint32_t polynomial = 0x82f63b78;  // Castagnoli, bit-reversed

using Table = std::array<std::uint32_t, 256>;

// tables[k][b]: what byte b does to the CRC when k more bytes follow it in the same step.
constexpr std::array<Table, 8> make_tables() {
  std::array<Table, 8> tables{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit)
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? polynomial : 0);
    tables[0][b] = crc;
  }
  for (std::size_t k = 1; k < 8; ++k)
    for (std::size_t b = 0; b < 256; ++b)
      tables[k][b] = (tables[k - 1][b] >> 8) ^ tables[0][tables[k - 1][b] & 0xff];
  return tables;
}

constexpr std::array<Table, 8> tables = make_tables();

std::uint64_t load_word(const std::byte* at) {
  std::uint64_t word = 0;
  std::memcpy(&word, at, sizeof word);
  return word;
}

#if defined(__x86_64__)

// Three lanes hide the instruction's latency of three cycles. Their lengths are fixed so that the
// effect of "lane_bytes zero bytes follow" on a CRC, a linear map, can be a table made once.
constexpr std::size_t lane_bytes = 1024;

using Matrix = std::array<std::uint32_t, 32>;  // column i: image of bit i

constexpr std::uint32_t apply(const Matrix& m, std::uint32_t v) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; v != 0; ++i, v >>= 1)
    if ((v & 1) != 0) sum ^= m[i];
  return sum;
}

// Four tables of 256: the map applied byte by byte.
using ShiftTable = std::array<Table, 4>;

constexpr ShiftTable make_shift(std::size_t zero_bytes) {
  Matrix m{};
  for (std::size_t i = 0; i < 32; ++i) {  // one zero byte
    std::uint32_t crc = std::uint32_t{1} << i;
    for (int bit = 0; bit < 8; ++bit)
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? polynomial : 0);
    m[i] = crc;
  }
  for (std::size_t n = 1; n < zero_bytes; n *= 2) {  // squaring: zero_bytes is a power of two
    Matrix squared{};
    for (std::size_t i = 0; i < 32; ++i)
      squared[i] = apply(m, m[i]);
    m = squared;
  }
  ShiftTable shift{};
  for (std::uint32_t k = 0; k < 4; ++k)
    for (std::uint32_t b = 0; b < 256; ++b)
      shift[k][b] = apply(m, b << (8 * k));
  return shift;
}

constexpr ShiftTable shift_lane = make_shift(lane_bytes);

std::uint32_t shifted(std::uint32_t crc) {
  return shift_lane[0][crc & 0xff] ^ shift_lane[1][(crc >> 8) & 0xff] ^
         shift_lane[2][(crc >> 16) & 0xff] ^ shift_lane[3][crc >> 24];
}

__attribute__((target("sse4.2"))) std::uint32_t by_instruction(std::span<const std::byte> data,
                                                               std::uint32_t before) {
  const std::byte* p = data.data();
  std::size_t left = data.size();
  std::uint64_t crc = static_cast<std::uint32_t>(~before);
  for (; left >= 3 * lane_bytes; p += 3 * lane_bytes, left -= 3 * lane_bytes) {
    std::uint64_t middle = 0;
    std::uint64_t last = 0;
    for (std::size_t i = 0; i < lane_bytes; i += 8) {
      crc = _mm_crc32_u64(crc, load_word(p + i));
      middle = _mm_crc32_u64(middle, load_word(p + lane_bytes + i));
      last = _mm_crc32_u64(last, load_word(p + 2 * lane_bytes + i));
    }
    const std::uint32_t two =
        shifted(static_cast<std::uint32_t>(crc)) ^ static_cast<std::uint32_t>(middle);
    crc = shifted(two) ^ static_cast<std::uint32_t>(last);
  }
  for (; left >= 8; p += 8, left -= 8)
    crc = _mm_crc32_u64(crc, load_word(p));
  auto narrow = static_cast<std::uint32_t>(crc);
  for (; left > 0; ++p, --left)
    narrow = _mm_crc32_u8(narrow, std::to_integer<std::uint8_t>(*p));
  return ~narrow;
}

bool has_instruction() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("sse4.2") != 0;
}

#endif

}  // namespace

std::uint32_t crc32c_by_table(std::span<const std::byte> data, std::uint32_t before) {
  const std::byte* p = data.data();
  std::size_t left = data.size();
  std::uint32_t crc = ~before;
  for (; left >= 8; p += 8, left -= 8) {
    const auto at = [p](std::size_t i) { return std::to_integer<std::uint32_t>(p[i]); };
    const std::uint32_t low = crc ^ (at(0) | at(1) << 8 | at(2) << 16 | at(3) << 24);
    crc = tables[7][low & 0xff] ^ tables[6][(low >> 8) & 0xff] ^ tables[5][(low >> 16) & 0xff] ^
          tables[4][low >> 24] ^ tables[3][at(4)] ^ tables[2][at(5)] ^ tables[1][at(6)] ^
          tables[0][at(7)];
  }
  for (; left > 0; ++p, --left)
    crc = (crc >> 8) ^ tables[0][(crc ^ std::to_integer<std::uint32_t>(*p)) & 0xff];
  return ~crc;
}

#if defined(__x86_64__)
bool crc32c_is_hardware() {
  static const bool has = has_instruction();
  return has;
}

std::uint32_t crc32c(std::span<const std::byte> data, std::uint32_t before) {
  return crc32c_is_hardware() ? by_instruction(data, before) : crc32c_by_table(data, before);
}
#else
bool crc32c_is_hardware() {
  return false;
}

std::uint32_t crc32c(std::span<const std::byte> data, std::uint32_t before) {
  return crc32c_by_table(data, before);
}
#endif

}  // namespace havm
