#include "tests/torture/node_disk.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "vmrepl/base/assert.hpp"

namespace havm::torture {
namespace {

template <class T>
void write_whole(CrashFile<T>& file, std::size_t first, std::vector<T> sectors) {
  file.end_write(file.begin_write(first, std::move(sectors)), true);
}

std::vector<std::byte> must(Result<std::vector<std::byte>> bytes) {
  HAVM_ASSERT(bytes, "what the model writes can be encoded");
  return std::move(bytes).value();
}

}  // namespace

std::vector<Sector512> sectors_of(std::span<const std::byte> bytes) {
  std::vector<Sector512> sectors(bytes.size() / sector_bytes);
  std::memcpy(sectors.data(), bytes.data(), sectors.size() * sector_bytes);
  return sectors;
}

std::span<const std::byte> bytes_in(const MetadataImage& image) {
  return {image.data()->data(), image.size() * sector_bytes};
}

MetadataIdentity identity() {
  return {"torture", identities()};
}

Result<Recovered> recover(const MetadataImage& record, const MetadataImage& log,
                          const MetadataImage& bitmap, std::uint32_t log_slots) {
  Recovered found;
  BOOST_OUTCOME_TRY(auto chosen, choose_slot(bytes_in(record)));
  found.record = std::move(chosen.decoded.record);
  found.slot_sequence = chosen.decoded.slot_sequence;
  found.newest_slot = chosen.slot;
  found.slot_torn = chosen.other_damaged;

  const auto log_bytes = bytes_in(log);
  BOOST_OUTCOME_TRY(
      const auto log_header,
      decode_metadata_header(log_bytes.first(metadata_header_bytes), activity_log_magic));
  RebuiltLog rebuilt = rebuild_log(log_header, log_bytes.subspan(metadata_header_bytes));
  if (!rebuilt.damage.empty()) return Error("the activity log: " + rebuilt.damage);
  if (log_header.units != log_slots) return Error("the activity log has another size");
  found.table = std::move(rebuilt.table);
  found.next_transaction = rebuilt.newest + 1;
  found.log_torn = rebuilt.newest_torn;

  const auto bitmap_bytes = bytes_in(bitmap);
  BOOST_OUTCOME_TRY(const auto header,
                    decode_bitmap_header(bitmap_bytes.first(metadata_header_bytes)));
  if (header.identity != identity()) return Error("the bitmap is of other disks");
  for (std::uint16_t disk = 0; disk < disks; ++disk) {
    found.bitmaps.emplace_back(disk_bytes);
    const auto block = bitmap_bytes.subspan(metadata_header_bytes + disk * metadata_block_bytes,
                                            metadata_block_bytes);
    const bool intact = add_bitmap_block({disk, 0}, block, found.bitmaps.back());
    if (!intact) ++found.bitmap_blocks_torn;
    found.bitmap_blocks.emplace_back();
    if (intact) found.bitmap_blocks.back().emplace(block.begin(), block.end());
  }
  return found;
}

NodeDisk::NodeDisk(const Record& first, std::uint32_t slots)
    : images(disks, CrashFile<std::uint64_t>(disk_sectors)),
      record(record_file_bytes / sector_bytes),
      log(log_file_bytes / sector_bytes),
      bitmap(bitmap_file_bytes / sector_bytes),
      log_slots(slots) {
  for (unsigned slot = 0; slot < record_slots; ++slot)
    write_whole(record, slot * record_slot_bytes / sector_bytes,
                sectors_of(must(encode_slot(first, slot + 1))));
  write_whole(log, 0,
              sectors_of(must(encode_metadata_header(make_log_header(identity(), slots, 1)))));
  write_whole(bitmap, 0, sectors_of(must(encode_metadata_header(make_bitmap_header(identity())))));
  for (std::uint16_t disk = 0; disk < disks; ++disk) {
    std::vector<std::byte> block(metadata_block_bytes);
    encode_bitmap_block({disk, 0}, words_of(DirtyBitmap(disk_bytes), 0), block);
    write_whole(bitmap, (metadata_header_bytes + disk * metadata_block_bytes) / sector_bytes,
                sectors_of(block));
  }
}

void NodeDisk::fill_with_garbage() {
  constexpr std::uint64_t garbage = 1ULL << 60U;  // no arrival number
  for (auto& image : images)
    write_whole(image, 0, std::vector<std::uint64_t>(disk_sectors, garbage));
}

void NodeDisk::power_cut(Chance& chance) {
  for (auto& image : images)
    image.power_cut(chance, any_survival(chance));
  record.power_cut(chance, any_survival(chance));
  log.power_cut(chance, any_survival(chance));
  bitmap.power_cut(chance, any_survival(chance));
}

void NodeDisk::engine_killed(Chance& chance) {
  for (auto& image : images)
    image.process_killed(chance);
  record.process_killed(chance);
  log.process_killed(chance);
  bitmap.process_killed(chance);
}

HostImage NodeDisk::after_power_cut(Chance& chance) const {
  HostImage left;
  for (const auto& image : images)
    left.images.push_back(image.after_power_cut(chance, any_survival(chance)));
  left.record = record.after_power_cut(chance, any_survival(chance));
  left.log = log.after_power_cut(chance, any_survival(chance));
  left.bitmap = bitmap.after_power_cut(chance, any_survival(chance));
  return left;
}

HostImage NodeDisk::as_it_is() const {
  HostImage seen;
  for (const auto& image : images)
    seen.images.push_back(image.contents());
  seen.record = record.contents();
  seen.log = log.contents();
  seen.bitmap = bitmap.contents();
  return seen;
}

}  // namespace havm::torture
