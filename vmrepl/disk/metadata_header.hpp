// The job of metadata_header: the first 8192 bytes of an activity log or dirty bitmap file, bytes ↔
// MetadataHeader (docs/protocol/on-disk.md): what the file is and which disks it speaks of. All
// that ever changes of it lies in its first 512 bytes, so that a change is atomic wherever sectors
// are. No I/O, clock or log.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vmrepl/base/replica_types.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

constexpr std::size_t metadata_header_bytes = 8192;
constexpr std::size_t metadata_block_bytes = 4096;
constexpr std::uint32_t metadata_version = 1;

constexpr std::uint64_t activity_log_magic = 0x4841564d414c4f47;  // "HAVMALOG"
constexpr std::uint64_t bitmap_magic = 0x4841564d424d4150;        // "HAVMBMAP"

// Whose metadata it is; a file of other disks says nothing about these.
struct MetadataIdentity {
  std::string vm_id;  // uuid text
  std::vector<DiskIdentity> disks;
  bool operator==(const MetadataIdentity&) const = default;
};

struct MetadataHeader {
  std::uint64_t magic = 0;
  MetadataIdentity identity;
  std::uint32_t units = 0;   // log: slots of the table; bitmap: bytes of a grain
  std::uint32_t blocks = 0;  // that follow the header
  std::uint64_t first = 0;   // log: transactions before it do not count; bitmap: 0
  bool operator==(const MetadataHeader&) const = default;
};

// Exactly metadata_header_bytes. E2BIG when there are too many disks.
Result<std::vector<std::byte>> encode_metadata_header(const MetadataHeader& header);

// The Error says what is wrong, to follow "the header ".
Result<MetadataHeader> decode_metadata_header(std::span<const std::byte> bytes,
                                              std::uint64_t magic);

}  // namespace havm
