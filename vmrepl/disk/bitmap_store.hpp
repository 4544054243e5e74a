// The job of BitmapStore: keep the dirty bitmaps of one VM on this node durable
// (docs/protocol/on-disk.md): all its disks in one file, which is written in place.
//
// Guarantees
//  1. done(0) of a save comes only after every block that differs is on stable storage: every grain
//     that was set when save() was called, and not cleared since, is durably dirty.
//  2. A crash in the middle of a save leaves each block old, new, or damaged; load() takes a
//     damaged block, and with a damaged header everything, for dirty: a superset of the truth.
//  3. The file has all its blocks from the start: a save needs no room on the filesystem, and a
//     block that reads as zeroes was lost.
//  4. One writer: while it exists no other store can load the same file.
//  5. After a failed write or sync every save fails with the same error: the kernel reports lost
//     pages only once. The engine must stop and load again.
//  6. `done` is called exactly once per save, never from inside it; with ECANCELED when the store
//     is destroyed before. From then on the bitmaps are not looked at any more.
// Memory: 32 bytes per block (2 GiB of disk) and one batch of 512 KiB while a save runs.
// create and load block; save does not. Movable. One thread, that of the loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vmrepl/base/result.hpp"
#include "vmrepl/bitmap/dirty_bitmap.hpp"
#include "vmrepl/disk/bitmap_codec.hpp"
#include "vmrepl/disk/uring_loop.hpp"

namespace havm {

struct LoadedBitmaps {
  std::vector<DirtyBitmap> bitmaps;         // in the order of the disks
  std::vector<BitmapBlock> damaged_blocks;  // taken for all dirty
  std::string header_damage;                // not empty: all of every disk is taken for dirty
};

struct OpenedBitmaps;

class BitmapStore {
 public:
  using Done = std::function<void(int error)>;  // 0 or a positive errno value

  // Makes the file, all clear or all dirty, complete or not at all. EEXIST when there is one.
  static Result<void> create(const std::string& path, const std::string& vm_id,
                             const std::vector<DiskIdentity>& disks, bool all_dirty = false);
  // ENOENT when there is no file, EBUSY when another engine has it. A file of another VM or of
  // other disks has a damaged header; the first save makes it this VM's.
  static Result<OpenedBitmaps> load(std::shared_ptr<UringLoop> loop, const std::string& path,
                                    const std::string& vm_id,
                                    const std::vector<DiskIdentity>& disks);

  BitmapStore(BitmapStore&&) noexcept = default;
  BitmapStore& operator=(BitmapStore&&) noexcept;
  ~BitmapStore();

  // One bitmap per disk, in their order; they must live until `done`, and may change meanwhile:
  // each block is written as it is at some moment between. Saves that are asked for while one runs
  // become one, of the bitmaps named last, which begins when that one ends.
  void save(const std::vector<const DirtyBitmap*>& bitmaps, Done done);
  [[nodiscard]] bool saving() const;
  [[nodiscard]] const std::string& path() const;

 private:
  struct State;
  explicit BitmapStore(std::shared_ptr<State> state);

  std::shared_ptr<State> state_;
};

struct OpenedBitmaps {
  BitmapStore store;
  LoadedBitmaps loaded;
};

// The bitmaps of a file that may belong to a running engine, for tools that only look.
struct SeenBitmaps {
  MetadataHeader header;
  LoadedBitmaps loaded;
};
// The Error names a damaged header.
Result<SeenBitmaps> read_bitmaps(const std::string& path);

}  // namespace havm
