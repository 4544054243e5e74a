// The job of GrainHash: compare two replicas without sending their data: one 128-bit checksum
// (XXH3-128) for each 64 KiB grain of a range, and their bytes on the wire
// (docs/protocol/replication.md). Pure.
//
// Guarantee: equal data has equal checksums on every machine. Two different contents of a grain
// have the same one by a chance of 2^-128; it is no defence against a guest that wants to find two
// such contents for its own disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vmrepl/bitmap/dirty_bitmap.hpp"

namespace havm {

struct GrainHash {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  bool operator==(const GrainHash&) const = default;
};

constexpr std::size_t grain_hash_bytes = 16;
// Of one hash frame.
constexpr std::uint32_t hash_range_bytes_max = 512U << 10;
// Of that many grains; a bit for each fits into a mask of 32 bits.
constexpr std::size_t hash_grains_max = hash_range_bytes_max / DirtyBitmap::grain_bytes;

// The grains of a range that starts at one; the last may be shorter.
constexpr std::size_t grains_of(std::uint64_t length) {
  return static_cast<std::size_t>((length + DirtyBitmap::grain_bytes - 1) /
                                  DirtyBitmap::grain_bytes);
}

// One for each grain of `data`, whose first byte is that of a grain.
std::vector<GrainHash> hash_grains(std::span<const std::byte> data);

std::vector<std::byte> encode_hashes(std::span<const GrainHash> hashes);
// `payload` is that of a decoded hash_ok: a whole number of checksums.
std::vector<GrainHash> decode_hashes(std::span<const std::byte> payload);

}  // namespace havm
