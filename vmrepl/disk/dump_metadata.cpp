#include "vmrepl/disk/dump_metadata.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "vmrepl/bitmap/dirty_bitmap.hpp"
#include "vmrepl/disk/activity_log_store.hpp"
#include "vmrepl/disk/bitmap_store.hpp"
#include "vmrepl/disk/metadata_file.hpp"
#include "vmrepl/disk/record_codec.hpp"
#include "vmrepl/wire/big_endian.hpp"

namespace havm {
namespace {

constexpr std::size_t value_column = 20;

class Lines {
 public:
  void add(const std::string& key, const std::string& value) {
    std::string line = key + ":";
    line.resize(std::max(line.size() + 1, value_column), ' ');
    text_ += line + value + "\n";
  }
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

std::string number(std::uint64_t value) {
  return std::to_string(value);
}

// "4194304 bytes at 8388608"
std::string range_text(const ByteRange& range) {
  return number(range.length) + " bytes at " + number(range.offset);
}

// ---- record ----------------------------------------------------------------------------------

// All fields as the record has them, whichever they are in this version.
void add_fields(const std::string& record_json, Lines& lines) {
  const nlohmann::json fields = nlohmann::json::parse(record_json, nullptr, false);
  for (const auto& [key, value] : fields.items()) {
    if (key == "disks") {
      for (const auto& disk : value)
        lines.add("disk " + disk.value("name", std::string()),
                  number(disk.value("size", std::uint64_t{0})) + " bytes");
    } else {
      lines.add(key, value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
}

Result<std::string> dump_record(const MetadataFile& file) {
  std::vector<std::byte> bytes(record_file_bytes);
  BOOST_OUTCOME_TRY(file.read(0, bytes));
  Lines lines;
  lines.add("file", "record of a replica");
  std::optional<DecodedSlot> newest;
  for (std::size_t i = 0; i < record_slots; ++i) {
    auto slot = decode_slot(std::span(bytes).subspan(i * record_slot_bytes, record_slot_bytes));
    if (const auto* fault = std::get_if<SlotFault>(&slot)) {
      lines.add("slot " + number(i), to_text(*fault));
      continue;
    }
    auto& decoded = std::get<DecodedSlot>(slot);
    lines.add("slot " + number(i), "intact, sequence " + number(decoded.slot_sequence));
    if (!newest || decoded.slot_sequence > newest->slot_sequence) newest = std::move(decoded);
  }
  if (!newest) {
    lines.add("damage", "no slot is usable");
    return lines.take();
  }
  lines.add("newest", "sequence " + number(newest->slot_sequence));
  add_fields(record_to_json(newest->record), lines);
  return lines.take();
}

// ---- activity log and bitmap -----------------------------------------------------------------

// A damaged header is something to print; a file that cannot be read is not.
Result<std::string> unreadable(const Error& error, Lines& lines) {
  if (error.code != EILSEQ) return error;
  lines.add("damage", error.message + "; everything counts as dirty");
  return lines.take();
}

void add_identity(const MetadataHeader& header, Lines& lines) {
  lines.add("version", number(metadata_version));
  lines.add("vm_id", header.identity.vm_id);
  for (const DiskIdentity& disk : header.identity.disks)
    lines.add("disk " + disk.name, number(disk.size_bytes) + " bytes");
}

std::string disk_name(const MetadataHeader& header, std::uint16_t disk) {
  return header.identity.disks[disk].name;
}

// The extents of the table as ranges of the disks, neighbours joined, each told once.
std::vector<std::pair<std::uint16_t, ByteRange>> ranges_of(const LogTable& table,
                                                           const MetadataHeader& header) {
  std::vector<LogExtent> extents;
  for (const auto& extent : table)
    if (extent) extents.push_back(*extent);
  std::ranges::sort(extents);
  extents.erase(std::ranges::unique(extents).begin(), extents.end());
  std::vector<std::pair<std::uint16_t, ByteRange>> ranges;
  for (const LogExtent& extent : extents) {
    const std::uint64_t offset = extent.index * ActivityLogCore::extent_bytes;
    const std::uint64_t length = std::min<std::uint64_t>(
        ActivityLogCore::extent_bytes, header.identity.disks[extent.disk].size_bytes - offset);
    if (!ranges.empty() && ranges.back().first == extent.disk &&
        ranges.back().second.offset + ranges.back().second.length == offset)
      ranges.back().second.length += length;
    else
      ranges.push_back({extent.disk, {offset, length}});
  }
  return ranges;
}

Result<std::string> dump_log(const std::string& path) {
  Lines lines;
  lines.add("file", "activity log");
  const auto read = read_activity_log(path);
  if (!read) return unreadable(read.error(), lines);
  const SeenLog& seen = read.value();
  add_identity(seen.header, lines);
  lines.add("slots", number(seen.header.units));
  lines.add("counts from", "transaction " + number(seen.header.first));
  lines.add("newest", seen.log.newest < seen.header.first
                          ? "no transaction yet"
                          : "transaction " + number(seen.log.newest));
  if (seen.log.newest_torn)
    lines.add("torn",
              "transaction " + number(seen.log.newest + 1) + " (was never done, does not count)");
  if (!seen.log.damage.empty()) {
    lines.add("damage", seen.log.damage + "; everything counts as dirty");
    return lines.take();
  }
  lines.add("used slots", number(static_cast<std::uint64_t>(std::ranges::count_if(
                              seen.log.table, [](const auto& e) { return e.has_value(); }))));
  const auto ranges = ranges_of(seen.log.table, seen.header);
  for (std::size_t i = 0; i < std::min(ranges.size(), dumped_ranges_max); ++i)
    lines.add("logged on " + disk_name(seen.header, ranges[i].first), range_text(ranges[i].second));
  if (ranges.size() > dumped_ranges_max)
    lines.add("and", number(ranges.size() - dumped_ranges_max) + " more ranges");
  return lines.take();
}

void add_dirty_ranges(const std::string& disk, const DirtyBitmap& bitmap, Lines& lines) {
  std::uint64_t at = 0;
  std::size_t count = 0;
  while (const auto range = bitmap.next_set(at, UINT64_MAX)) {
    if (++count <= dumped_ranges_max) lines.add("dirty on " + disk, range_text(*range));
    at = range->offset + range->length;
  }
  if (count > dumped_ranges_max)
    lines.add("and on " + disk, number(count - dumped_ranges_max) + " more ranges");
}

Result<std::string> dump_bitmap(const std::string& path) {
  Lines lines;
  lines.add("file", "dirty bitmap");
  const auto read = read_bitmaps(path);
  if (!read) return unreadable(read.error(), lines);
  const SeenBitmaps& seen = read.value();
  add_identity(seen.header, lines);
  lines.add("grain", number(seen.header.units) + " bytes");
  lines.add("blocks", number(seen.header.blocks));
  for (const BitmapBlock& block : seen.loaded.damaged_blocks)
    lines.add("damage", "block " + number(block.index) + " of disk " +
                            disk_name(seen.header, block.disk) + "; it counts as all dirty");
  for (std::size_t disk = 0; disk < seen.loaded.bitmaps.size(); ++disk) {
    const DirtyBitmap& bitmap = seen.loaded.bitmaps[disk];
    const std::string& name = seen.header.identity.disks[disk].name;
    lines.add("total on " + name, number(bitmap.set_bytes()) + " bytes dirty");
    add_dirty_ranges(name, bitmap, lines);
  }
  return lines.take();
}

enum class FileKind : std::uint8_t { none, record, log, bitmap };

// By the magic at the start, or, when that part is damaged, of what follows it.
FileKind kind_of(std::span<const std::byte> bytes) {
  static_assert(record_slot_bytes == metadata_header_bytes);
  const auto first = load_be<std::uint64_t>(bytes.data());
  const std::byte* const second = bytes.data() + metadata_header_bytes;
  if (first == record_magic) return FileKind::record;
  if (first == activity_log_magic) return FileKind::log;
  if (first == bitmap_magic) return FileKind::bitmap;
  if (load_be<std::uint64_t>(second) == record_magic) return FileKind::record;
  for (std::size_t i = 0; i < ActivityLogCore::ring_blocks; ++i) {
    const std::size_t at = metadata_header_bytes + i * metadata_block_bytes;
    if (load_be<std::uint64_t>(bytes.data() + at) == log_block_magic) return FileKind::log;
    if (load_be<std::uint32_t>(bytes.data() + at + 4) == bitmap_block_magic)
      return FileKind::bitmap;
  }
  return FileKind::none;
}

}  // namespace

Result<std::string> dump_metadata(const std::string& path) {
  BOOST_OUTCOME_TRY(const MetadataFile file, MetadataFile::open_to_look("metadata file", path));
  std::vector<std::byte> bytes(log_file_bytes);
  BOOST_OUTCOME_TRY(file.read(0, bytes));
  switch (kind_of(bytes)) {
    case FileKind::record:
      return dump_record(file);
    case FileKind::log:
      return dump_log(path);
    case FileKind::bitmap:
      return dump_bitmap(path);
    case FileKind::none:
      break;
  }
  return Error(path + " is neither a record nor an activity log nor a dirty bitmap of havm",
               EINVAL);
}

}  // namespace havm
