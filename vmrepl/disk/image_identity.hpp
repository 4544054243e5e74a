// The job of image_identity: notice that a path leads to another file than the one a replica was
// made on: an image that was restored, copied or swapped while no engine ran. Its bytes are not
// those that the record speaks of.
//
// Kept beside the record, as `<record>.images` (docs/protocol/on-disk.md). A file is known by its
// inode number and, where the file system tells it, its time of birth: neither changes by writing,
// by a reboot or by another device number. Block devices, NBD exports and files on FUSE, whose
// inode numbers may change with each mount, are not known. Blocking; one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vmrepl/base/result.hpp"

namespace havm {

struct ImageIdentity {
  std::uint64_t inode = 0;
  std::int64_t born_s = 0;  // since 1970; 0: the file system does not tell
  std::uint32_t born_ns = 0;
  bool operator==(const ImageIdentity&) const = default;
};

struct NamedImage {
  std::string disk;
  std::string path;
};

std::string image_identities_path(const std::string& record_path);

// nullopt: of such a thing it cannot be told. An Error when there is nothing at the path.
Result<std::optional<ImageIdentity>> identity_of_image(const std::string& path);

// Durable when it returns.
Result<void> remember_images(const std::string& record_path, const std::vector<NamedImage>& images);

// Success also where nothing is remembered, of a disk or at all. The Error names disk, file and
// what to do; its code is ESTALE when the image is another one.
Result<void> check_images(const std::string& record_path, const std::vector<NamedImage>& images);

}  // namespace havm
