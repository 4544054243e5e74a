// The job of MetadataFile: one of the small files that the engine keeps beside the images (record,
// activity log, dirty bitmap), opened, locked, created and accessed the one way that is safe.
//
// Guarantees
//  1. A file is made whole or not at all, and never over another one (unnamed_file.hpp). Mode 0600,
//     O_CLOEXEC.
//  2. One writer: an exclusive open-file-description lock on the whole file, which ends with the
//     descriptor, however that happens.
//  3. O_DIRECT where the filesystem has it: after a failed sync the page cache may show what the
//     medium does not hold, and a promise read from there would be worth nothing.
// Offsets and lengths are multiples of 4096 bytes. Blocking. Movable. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "vmrepl/base/result.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {

class MetadataFile {
 public:
  // `what` names the kind of file in errors, for instance "record".
  // Locked, empty and without a name until publish().
  static Result<MetadataFile> create_nameless(std::string what, std::string path);
  // Syncs and gives it its name. EEXIST when there is such a file.
  Result<void> publish() const;

  // ENOENT when there is no file, EBUSY when another engine has it.
  static Result<MetadataFile> open(std::string what, std::string path);
  // For tools that only look at what may belong to a running engine: no lock, no writing.
  static Result<MetadataFile> open_to_look(std::string what, std::string path);

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const std::string& path() const { return path_; }
  // "the record PATH"
  [[nodiscard]] std::string name() const { return "the " + what_ + " " + path_; }

  [[nodiscard]] Result<std::uint64_t> size_bytes() const;
  // Zeroes where the file does not reach.
  Result<void> read(std::uint64_t offset, std::span<std::byte> into) const;
  // All of it or an Error; not durable before sync().
  Result<void> write(std::uint64_t offset, std::span<const std::byte> from) const;
  Result<void> sync() const;

 private:
  MetadataFile(std::string what, std::string path, UniqueFd fd);
  Result<void> lock() const;

  std::string what_;
  std::string path_;
  UniqueFd fd_;
};

}  // namespace havm
