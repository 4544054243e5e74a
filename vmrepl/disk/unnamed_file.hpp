// The job of unnamed_file: to make a file that appears under its name whole or not at all, also on
// filesystems that have no files without a name (O_TMPFILE is missing on NFS and on many FUSE
// filesystems).
//
// Guarantees
//  1. give_name() never replaces a file, and when it returned success the name, the content and the
//     directory are durable.
//  2. A crash leaves the name with all of the content, or no such name. Where O_TMPFILE is missing
//     it may also leave the temporary name, which nobody reads and the next create_unnamed() of the
//     same path removes.
//  3. Of two that make the same file at once at most one succeeds.
// Blocking. Any thread.
#pragma once

#include <cstdint>
#include <string>

#include "vmrepl/base/result.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {

enum class NamelessFiles : std::uint8_t {
  where_offered,  // O_TMPFILE, and a temporary name only where the filesystem refuses that
  never,          // always a temporary name: for tests
};

// A new empty file, mode 0600, for reading and writing; `path` is the name that it is to get.
// O_DIRECT where the filesystem has it.
Result<UniqueFd> create_unnamed(const std::string& path,
                                NamelessFiles nameless = NamelessFiles::where_offered);

// Syncs the file and gives it its name. EEXIST when there is such a file.
Result<void> give_name(int fd, const std::string& path);

// O_RDWR and the like, with O_CLOEXEC, and with O_DIRECT where the filesystem has it: after a
// failed sync the page cache may show what the medium does not hold, and a promise read from there
// would be worth nothing. Invalid, with errno set, when it cannot be opened.
UniqueFd open_direct(const std::string& path, int flags);

}  // namespace havm
