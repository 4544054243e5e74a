// The job of FileDisk: a ReplicaDisk on a file or block device of this host, by io_uring.
//
// Guarantees beside those of ReplicaDisk
//  1. While it is open no QEMU, qemu-img or other engine can open the image for writing
//     (image_lock.hpp).
//  2. Short transfers, EINTR and EAGAIN are finished here; `done` sees all or an error.
//  3. The image is read and written with O_DIRECT where the filesystem allows it and the size is a
//     multiple of what it needs; through the page cache otherwise (direct() tells which).
//  4. zero() gives blocks back by punching when may_unmap, else zeroes them in place; where the
//     filesystem cannot, zeroes are written.
//  5. A flush is an fdatasync inside the ring, not in the engine's thread: a disk that hangs must
//     not silence the leases and answers of the engine. A failed flush or FUA write makes every
//     later flush fail with the same error: the kernel reports lost pages only once.
//  6. An image that is cut, deleted or replaced by another file while it is open fails with ESTALE,
//     for good, from the first write, zeroing or flush on that could have noticed (a read: where
//     it meets the end). Nothing is written then: it would make the missing part read as zeroes,
//     or go to a file without a name. Another file under the path is looked for by flushes, once
//     a second. Only on file systems of this host, where looking waits for nobody (guarantee 5);
//     on others, such as NFS and FUSE, only a read that meets the end notices.
// Operations in flight when the disk is destroyed finish and call `done`; the descriptor and the
// image lock stay until the last of them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vmrepl/disk/replica_disk.hpp"
#include "vmrepl/disk/uring_loop.hpp"

namespace havm {

struct FileDiskOptions {
  // Refuse an image of any other size, in bytes.
  std::optional<std::uint64_t> expected_size_bytes;
  // False: use the page cache even where O_DIRECT would work (pays for a partner's copy).
  bool direct = true;
};

class FileDisk final : public ReplicaDisk {
 public:
  // Blocking. Errors say which file and why: missing, not a file or block device, not permitted,
  // another size than expected (smaller: ESTALE), not a multiple of 512 bytes, in use.
  static Result<std::unique_ptr<FileDisk>> open(std::shared_ptr<UringLoop> loop,
                                                const std::string& path,
                                                const FileDiskOptions& options = {});

  ~FileDisk() override;
  FileDisk(const FileDisk&) = delete;
  FileDisk& operator=(const FileDisk&) = delete;

  [[nodiscard]] std::uint64_t size_bytes() const override;
  [[nodiscard]] std::uint32_t alignment_bytes() const override;
  [[nodiscard]] bool direct() const;
  [[nodiscard]] const std::string& path() const;
  [[nodiscard]] std::string trouble() const override;

  void read(std::uint64_t offset, std::span<std::byte> into, Done done) override;
  void write(std::uint64_t offset, std::span<const std::byte> from, bool fua, Done done) override;
  void zero(std::uint64_t offset, std::uint64_t length, bool may_unmap, Done done) override;
  void flush(Done done) override;
  Result<std::vector<Extent>> extents(std::uint64_t offset, std::uint64_t length) override;

 private:
  struct Image;
  explicit FileDisk(std::shared_ptr<Image> image);

  std::shared_ptr<Image> image_;
};

}  // namespace havm
