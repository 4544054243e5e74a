// A file of dirty bitmaps (docs/protocol/on-disk.md): header and blocks.
//
// Input: a mode, a disk size, a block's place and words, then damage to it; or, by the mode, the
// header as it is, or fields of a header around which right checksums are put.
#include <algorithm>

#include "tests/fuzz/support/fuzz_target.hpp"
#include "vmrepl/disk/bitmap_codec.hpp"

namespace havm::fuzz {
namespace {

constexpr std::uint64_t disk_bytes = bitmap_block_covers_bytes + 40 * DirtyBitmap::grain_bytes;

void check_header(Bytes bytes) {
  const auto header = decode_bitmap_header(bytes);
  if (!header) {
    FUZZ_CHECK(!header.error().message.empty(), "a fault has a text");
    return;
  }
  FUZZ_CHECK(header.value().blocks == bitmap_blocks(header.value().identity.disks),
             "the sizes of a header fit together");
  const auto again = encode_metadata_header(header.value());
  // Spaces that its JSON had may be what does not fit any more.
  if (again)
    FUZZ_CHECK(decode_bitmap_header(again.value()).value() == header.value(),
               "decode(encode(x)) == x");
}

void check_made_header(Input& in) {
  MetadataIdentity identity;
  identity.vm_id = std::string(text_of(in.bytes(in.byte())));
  for (std::size_t disks = in.below(5); disks > 0; --disks)
    identity.disks.push_back({std::string(text_of(in.bytes(in.below(8)))), in.number(6)});
  MetadataHeader header = make_bitmap_header(identity);
  if (in.byte() == 1) header.units = static_cast<std::uint32_t>(in.number(4));
  if (in.byte() == 1) header.blocks = static_cast<std::uint32_t>(in.number(4));
  const auto bytes = encode_metadata_header(header);
  if (bytes) check_header(bytes.value());
}

void check_block(Input& in) {
  const BitmapBlock block{static_cast<std::uint16_t>(in.below(3)),
                          static_cast<std::uint32_t>(in.below(2))};
  DirtyBitmap bitmap(disk_bytes);
  for (std::size_t ranges = in.below(8); ranges > 0; --ranges) {
    const std::uint64_t offset = in.number(4) % disk_bytes;
    bitmap.set_range(offset, std::min(in.number(3), disk_bytes - offset));
  }
  std::vector<std::byte> bytes(metadata_block_bytes);
  const auto words = words_of(bitmap, block.index);
  encode_bitmap_block(block, words, bytes);
  const auto decoded = decode_bitmap_block(block, bytes);
  FUZZ_CHECK(decoded && std::ranges::equal(words, std::span(*decoded).first(words.size())),
             "decode(encode(x)) == x");
  BitmapBlock other = block;
  if (in.flag())
    other.index ^= 1U;
  else
    ++other.disk;
  FUZZ_CHECK(!decode_bitmap_block(other, bytes), "a block that strayed is damaged");

  DirtyBitmap whole(disk_bytes);
  FUZZ_CHECK(add_bitmap_block(block, bytes, whole), "what was written is believed");
  const std::uint64_t from = block.index * bitmap_block_covers_bytes;
  const std::uint64_t length = std::min(bitmap_block_covers_bytes, disk_bytes - from);
  const std::size_t bit = in.number(2) % (metadata_block_bytes * 8);
  bytes[bit / 8] ^= std::byte{1} << static_cast<int>(bit % 8);
  DirtyBitmap damaged(disk_bytes);
  FUZZ_CHECK(!add_bitmap_block(block, bytes, damaged), "a flipped bit is noticed");
  for (std::uint64_t grain = from; grain < from + length; grain += 97 * DirtyBitmap::grain_bytes)
    FUZZ_CHECK(damaged.any_in(grain, 1), "what a damaged block speaks of is dirty");
}

}  // namespace

void one_input(Bytes input) {
  Input in(input);
  switch (in.below(4)) {
    case 0:
      return check_header(in.rest());
    case 1:
      return check_made_header(in);
    default:
      return check_block(in);
  }
}

std::vector<std::string> seeds() {
  const MetadataHeader header = make_bitmap_header({"f1b2c3d4", {{"vda", disk_bytes}, {"b", 1}}});
  return {packed(0, 1) + string_of(encode_metadata_header(header).value()),
          packed(1, 1) + packed(2, 1) + "id" + packed(2, 1) + packed(3, 1) + "vda" +
              packed(1U << 30U, 6) + packed(3, 1) + "vdb" + packed(7, 6) + packed(0, 2),
          packed(2, 1) + packed(0, 2) + packed(2, 1) + packed(65536, 4) + packed(9, 3) +
              packed(0, 4) + packed(1, 3) + packed(1, 1) + packed(77, 2),
          packed(3, 1) + packed(1, 2) + packed(1, 1) + packed(disk_bytes - 1, 4) + packed(1, 3) +
              packed(0, 1) + packed(8, 2)};
}

}  // namespace havm::fuzz
