#include "vmrepl/wire/grain_hash.hpp"

#include <algorithm>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/wire/big_endian.hpp"

namespace havm {

std::vector<GrainHash> hash_grains(std::span<const std::byte> data) {
  std::vector<GrainHash> hashes;
  hashes.reserve(grains_of(data.size()));
  while (!data.empty()) {
    const std::size_t length = std::min<std::size_t>(data.size(), DirtyBitmap::grain_bytes);
    const XXH128_hash_t hash = XXH3_128bits(data.data(), length);
    hashes.push_back({hash.high64, hash.low64});
    data = data.subspan(length);
  }
  return hashes;
}

std::vector<std::byte> encode_hashes(std::span<const GrainHash> hashes) {
  HAVM_ASSERT(hashes.size() <= hash_grains_max, "a frame of checksums has a bound");
  std::vector<std::byte> payload(hashes.size() * grain_hash_bytes);
  std::byte* at = payload.data();
  for (const GrainHash& hash : hashes) {
    store_be(at, hash.high);
    store_be(at + 8, hash.low);
    at += grain_hash_bytes;
  }
  return payload;
}

std::vector<GrainHash> decode_hashes(std::span<const std::byte> payload) {
  HAVM_ASSERT(payload.size() % grain_hash_bytes == 0, "a piece of a checksum");
  std::vector<GrainHash> hashes;
  hashes.reserve(payload.size() / grain_hash_bytes);
  for (std::size_t at = 0; at < payload.size(); at += grain_hash_bytes)
    hashes.push_back({load_be<std::uint64_t>(payload.data() + at),
                      load_be<std::uint64_t>(payload.data() + at + 8)});
  return hashes;
}

}  // namespace havm
