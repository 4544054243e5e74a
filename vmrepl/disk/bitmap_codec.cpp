#include "vmrepl/disk/bitmap_codec.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/wire/big_endian.hpp"
#include "vmrepl/wire/crc32c.hpp"

namespace havm {
namespace {

constexpr std::size_t crc_at = 0;  // of all after it
constexpr std::size_t magic_at = 4;
constexpr std::size_t version_at = 8;
constexpr std::size_t disk_at = 10;
constexpr std::size_t index_at = 12;
constexpr std::uint16_t block_version = metadata_version;

std::uint32_t crc_of(std::span<const std::byte> block) {
  return crc32c(block.subspan(magic_at, metadata_block_bytes - magic_at));
}

}  // namespace

std::uint64_t bitmap_blocks(const std::vector<DiskIdentity>& disks) {
  std::uint64_t blocks = 0;
  for (const DiskIdentity& disk : disks)
    blocks += bitmap_blocks(disk.size_bytes);
  return blocks;
}

MetadataHeader make_bitmap_header(const MetadataIdentity& identity) {
  MetadataHeader header;
  header.magic = bitmap_magic;
  header.identity = identity;
  header.units = static_cast<std::uint32_t>(DirtyBitmap::grain_bytes);
  const std::uint64_t blocks = bitmap_blocks(identity.disks);
  HAVM_ASSERT(blocks <= UINT32_MAX, "disks of more than 8 EiB are no disks");
  header.blocks = static_cast<std::uint32_t>(blocks);
  return header;
}

Result<MetadataHeader> decode_bitmap_header(std::span<const std::byte> bytes) {
  BOOST_OUTCOME_TRY(MetadataHeader header, decode_metadata_header(bytes, bitmap_magic));
  if (header.units != DirtyBitmap::grain_bytes || header.first != 0 ||
      header.blocks != bitmap_blocks(header.identity.disks))
    return Error("names impossible sizes", EILSEQ);
  return header;
}

std::span<const std::uint64_t> words_of(const DirtyBitmap& bitmap, std::uint32_t index) {
  const auto words = bitmap.words().subspan(index * bitmap_block_words);
  return words.first(std::min(words.size(), bitmap_block_words));
}

void encode_bitmap_block(BitmapBlock block, std::span<const std::uint64_t> words,
                         std::span<std::byte> into) {
  HAVM_ASSERT(into.size() == metadata_block_bytes && words.size() <= bitmap_block_words,
              "the words must fit into the block");
  std::memset(into.data(), 0, into.size());
  store_be(into.data() + magic_at, bitmap_block_magic);
  store_be(into.data() + version_at, block_version);
  store_be(into.data() + disk_at, block.disk);
  store_be(into.data() + index_at, block.index);
  for (std::size_t i = 0; i < words.size(); ++i)
    store_be(into.data() + bitmap_block_header_bytes + i * sizeof(std::uint64_t), words[i]);
  store_be(into.data() + crc_at, crc_of(into));
}

std::optional<BitmapWords> decode_bitmap_block(BitmapBlock block,
                                               std::span<const std::byte> bytes) {
  if (bytes.size() != metadata_block_bytes ||
      load_be<std::uint32_t>(bytes.data() + magic_at) != bitmap_block_magic ||
      load_be<std::uint32_t>(bytes.data() + crc_at) != crc_of(bytes) ||
      load_be<std::uint16_t>(bytes.data() + version_at) != block_version ||
      load_be<std::uint16_t>(bytes.data() + disk_at) != block.disk ||
      load_be<std::uint32_t>(bytes.data() + index_at) != block.index)
    return std::nullopt;
  BitmapWords words{};
  for (std::size_t i = 0; i < words.size(); ++i)
    words[i] = load_be<std::uint64_t>(bytes.data() + bitmap_block_header_bytes +
                                      i * sizeof(std::uint64_t));
  return words;
}

bool add_bitmap_block(BitmapBlock block, std::span<const std::byte> bytes, DirtyBitmap& bitmap) {
  const std::size_t used = words_of(bitmap, block.index).size();
  if (const auto words = decode_bitmap_block(block, bytes)) {
    const auto unused = std::span(*words).subspan(used);
    const bool clean_end = std::ranges::all_of(unused, [](std::uint64_t w) { return w == 0; });
    if (clean_end &&
        bitmap.merge_words(block.index * bitmap_block_words, std::span(*words).first(used)))
      return true;
  }
  const std::uint64_t from = block.index * bitmap_block_covers_bytes;
  bitmap.set_range(from, std::min(bitmap_block_covers_bytes, bitmap.disk_size_bytes() - from));
  return false;
}

}  // namespace havm
