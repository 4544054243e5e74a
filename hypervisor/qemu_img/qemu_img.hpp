// The job of QemuImg: ask qemu-img about image files, and copy, compare and create them. Every call
// runs qemu-img with an argument vector (no shell, any file name) and reads its JSON. Blocking; any
// thread.
//
// Guarantees
//  1. A format is always stated where the contents decide something: a guest can write a qcow2
//  header
//     into a raw image, so probing is never trusted. Only info() may probe, when `format` is empty.
//  2. convert() and create() never overwrite an existing file.
//  3. QEMU's own image lock is respected (an image in use by a VM is an error), except with
//     ImageAccess::shared, which reads an image that may be changing under it.
// Every error names the file. Sizes in bytes.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "hypervisor/qemu_img/run_process.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

enum class ImageAccess { exclusive, shared };

struct ImageInfo {
  std::string path;
  std::string format;  // "raw", "qcow2", …
  std::uint64_t virtual_size_bytes = 0;
  std::uint64_t actual_size_bytes = 0;  // allocated on the host
  std::uint64_t file_size_bytes = 0;    // length of the file; 0 for a block device
  std::uint64_t cluster_size_bytes = 0;
  std::string backing_file;  // empty when none
  std::string data_file;     // qcow2 with its data in another file; empty when none
  std::string compat;        // qcow2: "0.10" or "1.1"
  bool extended_l2 = false;
  unsigned refcount_bits = 16;
  bool dirty = false;
  bool corrupt = false;
  bool encrypted = false;
  std::vector<std::string> snapshots;  // names of internal snapshots
};

struct ImageMeasure {
  std::uint64_t required_bytes = 0;         // for the data it has now
  std::uint64_t fully_allocated_bytes = 0;  // with every block written
};

struct ImageCheck {
  std::uint64_t corruptions = 0;
  std::uint64_t leaks = 0;  // lost space, no danger
  std::uint64_t check_errors = 0;
  std::uint64_t image_end_offset_bytes = 0;
  [[nodiscard]] bool clean() const { return corruptions == 0 && check_errors == 0; }
};

class QemuImg {
 public:
  static constexpr std::chrono::milliseconds short_deadline{60'000};
  static constexpr std::chrono::milliseconds copy_deadline = std::chrono::hours(24);

  explicit QemuImg(std::string program = "qemu-img") : program_(std::move(program)) {}

  // `format`: what the domain definition says; "" probes (only for images no guest could write to).
  Result<ImageInfo> info(const std::string& path, const std::string& format,
                         ImageAccess access = ImageAccess::exclusive) const;

  // Space a file of the same format and layout needs for the contents of `path`.
  Result<ImageMeasure> measure(const std::string& path, const std::string& format,
                               ImageAccess access = ImageAccess::exclusive) const;

  // How long the file can become while a VM writes to it: raw, its length; qcow2, the size with
  // every block written, plus room for internal snapshots and for tables that move while they grow.
  Result<std::uint64_t> growth_limit_bytes(const std::string& path, const std::string& format,
                                           ImageAccess access = ImageAccess::exclusive) const;

  // A sparse, flushed copy, in another format or not. The target must not exist (EEXIST).
  Result<void> convert(const std::string& from, const std::string& from_format,
                       const std::string& to, const std::string& to_format,
                       std::chrono::milliseconds deadline = copy_deadline) const;

  // True when both have the same contents as a guest would read them (a longer one may end in
  // zeroes).
  Result<bool> identical(const std::string& a, const std::string& a_format, const std::string& b,
                         const std::string& b_format,
                         std::chrono::milliseconds deadline = copy_deadline) const;

  // A new, empty, sparse image. The file must not exist (EEXIST).
  Result<void> create(const std::string& path, const std::string& format,
                      std::uint64_t virtual_size_bytes) const;

  // Metadata consistency; ENOTSUP for formats without (raw). Never repairs.
  Result<ImageCheck> check(const std::string& path, const std::string& format,
                           ImageAccess access = ImageAccess::exclusive) const;

 private:
  Result<ProcessOutcome> run(std::vector<std::string> arguments,
                             std::chrono::milliseconds deadline) const;

  std::string program_;
};

}  // namespace havm
