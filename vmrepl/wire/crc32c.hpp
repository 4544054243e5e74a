// The job of crc32c: the checksum (Castagnoli polynomial, as in iSCSI, RFC 3720) of every frame
// header, payload and durable record slot. Uses the SSE4.2 instruction in three interleaved lanes
// where the processor has it (asked once, at run time), a table otherwise; both give the same
// number. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace havm {

// CRC of `data`. `before` is the CRC of the bytes that precede it: crc(a+b) == crc32c(b,
// crc32c(a)). The CRC of nothing is 0.
std::uint32_t crc32c(std::span<const std::byte> data, std::uint32_t before = 0);

// The portable form, whatever the processor has (tests compare the two).
std::uint32_t crc32c_by_table(std::span<const std::byte> data, std::uint32_t before = 0);

// True when crc32c() uses the processor's instruction.
bool crc32c_is_hardware();

}  // namespace havm
