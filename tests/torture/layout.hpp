// The job of this layout: the disks of the torture VM. Two disks of 12 MiB, of which only 24
// sectors each are ever written by the guest. They lie in clusters across the boundaries of extents
// of the activity log and of grains of the bitmap, so that few sectors make many extents, grains
// and requests that cross from one to the next. Sectors outside of the clusters are always zero and
// have no memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "vmrepl/base/replica_types.hpp"
#include "vmrepl/bitmap/activity_log_core.hpp"
#include "vmrepl/bitmap/dirty_bitmap.hpp"

namespace havm::torture {

constexpr std::uint16_t disks = 2;
constexpr std::uint64_t sector_bytes = 512;
constexpr std::size_t cluster_sectors = 6;
constexpr std::size_t clusters = 4;
constexpr std::size_t disk_sectors = cluster_sectors * clusters;  // that have memory
constexpr std::size_t all_sectors = disk_sectors * disks;
constexpr std::uint64_t disk_bytes = 3 * ActivityLogCore::extent_bytes;

// Sectors that lie side by side on the disk and in memory.
struct Place {
  std::size_t first = 0;
  std::size_t count = 0;
};

constexpr std::uint64_t offset_of(std::size_t sector) {
  const std::uint64_t cluster = sector / cluster_sectors;
  const std::uint64_t centre = (1 + cluster / 2) * ActivityLogCore::extent_bytes +
                               cluster % 2 * 16 * DirtyBitmap::grain_bytes;
  return centre + sector % cluster_sectors * sector_bytes - cluster_sectors / 2 * sector_bytes;
}

constexpr Place place_of(std::uint64_t offset, std::uint64_t length) {
  std::size_t first = 0;
  while (first < disk_sectors && offset_of(first) < offset)
    ++first;
  std::size_t end = first;
  while (end < disk_sectors && offset_of(end) < offset + length)
    ++end;
  return {first, end - first};
}

// Bytes from `offset` on that have no sector in memory up to the next grain that has one, or the
// disk's end.
constexpr std::uint64_t hole_at(std::uint64_t offset) {
  for (std::size_t s = 0; s < disk_sectors; ++s) {
    const std::uint64_t grain = offset_of(s) / DirtyBitmap::grain_bytes * DirtyBitmap::grain_bytes;
    if (grain + DirtyBitmap::grain_bytes > offset) return grain > offset ? grain - offset : 0;
  }
  return disk_bytes - offset;
}

inline std::vector<DiskIdentity> identities() {
  return {{"vda", disk_bytes}, {"vdb", disk_bytes}};
}

inline std::string name_of(std::size_t sector) {
  return "vd" + std::string(1, static_cast<char>('a' + sector / disk_sectors)) + ":" +
         std::to_string(sector % disk_sectors);
}

}  // namespace havm::torture
