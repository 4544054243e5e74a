// The job of NodeDisk: everything that one host keeps of the VM, as files that lose power: the
// images, and record, activity log and dirty bitmap in the bytes of the production codecs; and what
// an engine that starts makes of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/torture/crash_file.hpp"
#include "tests/torture/layout.hpp"
#include "vmrepl/base/result.hpp"
#include "vmrepl/disk/activity_log_codec.hpp"
#include "vmrepl/disk/bitmap_codec.hpp"
#include "vmrepl/disk/record_codec.hpp"

namespace havm::torture {

using Sector512 = std::array<std::byte, sector_bytes>;
using MetadataImage = std::vector<Sector512>;
using DiskImage = std::vector<std::uint64_t>;  // of a sector only its value

std::vector<Sector512> sectors_of(std::span<const std::byte> bytes);
std::span<const std::byte> bytes_in(const MetadataImage& image);

// One block each: a disk is far smaller than what a block covers.
constexpr std::size_t bitmap_places = disks;
constexpr std::size_t bitmap_file_bytes =
    metadata_header_bytes + bitmap_places * metadata_block_bytes;

// What a start finds in the metadata, by the production decoders; as RecordStore::load and
// MarksDriver::open do it.
struct Recovered {
  Record record;
  std::uint64_t slot_sequence = 0;
  unsigned newest_slot = 0;
  std::vector<DirtyBitmap> bitmaps;
  LogTable table;
  std::uint64_t next_transaction = 1;
  std::vector<std::optional<std::vector<std::byte>>> bitmap_blocks;  // intact ones, by place
  bool slot_torn = false;
  bool log_torn = false;
  std::size_t bitmap_blocks_torn = 0;
};

struct HostImage {
  std::vector<DiskImage> images;
  MetadataImage record;
  MetadataImage log;
  MetadataImage bitmap;
};

// The Error says what a crash must never lead to: a record or log that cannot be used.
Result<Recovered> recover(const MetadataImage& record, const MetadataImage& log,
                          const MetadataImage& bitmap, std::uint32_t log_slots);

class NodeDisk {
 public:
  NodeDisk(const Record& first, std::uint32_t log_slots);

  std::vector<CrashFile<std::uint64_t>> images;
  CrashFile<Sector512> record;
  CrashFile<Sector512> log;
  CrashFile<Sector512> bitmap;
  std::uint32_t log_slots;

  // Other contents than the partner's, as an image that was used before.
  void fill_with_garbage();
  void power_cut(Chance& chance);
  void engine_killed(Chance& chance);
  // What a power cut now may leave, or what another process sees.
  [[nodiscard]] HostImage after_power_cut(Chance& chance) const;
  [[nodiscard]] HostImage as_it_is() const;
  // By disk and sector: all of them in one row.
  [[nodiscard]] std::uint64_t value(std::size_t sector) const {
    return images[sector / disk_sectors].contents()[sector % disk_sectors];
  }
};

MetadataIdentity identity();

}  // namespace havm::torture
