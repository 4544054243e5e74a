// The job of bitmap_codec: the blocks of a dirty bitmap file, bytes ↔ words of a DirtyBitmap
// (docs/protocol/on-disk.md). A block knows its disk and its place, so that one which strayed is as
// damaged as one which was torn; and all zeroes is damage too, since every block of a file is
// written before the file has a name. No I/O, clock or log.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "vmrepl/bitmap/dirty_bitmap.hpp"
#include "vmrepl/disk/metadata_header.hpp"

namespace havm {

constexpr std::uint32_t bitmap_block_magic = 0x48564244;  // "HVBD"
constexpr std::size_t bitmap_block_header_bytes = 16;
constexpr std::size_t bitmap_block_words =
    (metadata_block_bytes - bitmap_block_header_bytes) / sizeof(std::uint64_t);
// Of a disk, that one block speaks of: 32,640 grains, 1.99 GiB.
constexpr std::uint64_t bitmap_block_covers_bytes =
    bitmap_block_words * 64 * DirtyBitmap::grain_bytes;

// Block `index` of the blocks of a disk.
struct BitmapBlock {
  std::uint16_t disk = 0;
  std::uint32_t index = 0;
  bool operator==(const BitmapBlock&) const = default;
};

constexpr std::uint64_t bitmap_blocks(std::uint64_t disk_size_bytes) {
  return disk_size_bytes / bitmap_block_covers_bytes +
         (disk_size_bytes % bitmap_block_covers_bytes != 0 ? 1 : 0);
}
std::uint64_t bitmap_blocks(const std::vector<DiskIdentity>& disks);

MetadataHeader make_bitmap_header(const MetadataIdentity& identity);
// As decode_metadata_header; the sizes fit together, too.
Result<MetadataHeader> decode_bitmap_header(std::span<const std::byte> bytes);

// The words of a disk's bitmap that the block holds.
std::span<const std::uint64_t> words_of(const DirtyBitmap& bitmap, std::uint32_t index);

// `into` has metadata_block_bytes; at most bitmap_block_words words.
void encode_bitmap_block(BitmapBlock block, std::span<const std::uint64_t> words,
                         std::span<std::byte> into);

using BitmapWords = std::array<std::uint64_t, bitmap_block_words>;
// Nothing unless the bytes are intact and are this very block.
std::optional<BitmapWords> decode_bitmap_block(BitmapBlock block, std::span<const std::byte> bytes);

// Adds what the block says to the bitmap; false, and all of it dirty, when it cannot be believed.
bool add_bitmap_block(BitmapBlock block, std::span<const std::byte> bytes, DirtyBitmap& bitmap);

}  // namespace havm
