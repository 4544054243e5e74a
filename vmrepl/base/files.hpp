// The job of these functions: small whole files, read and replaced so that a crash at any instant
// leaves the old or the new content, never a mixture. Blocking; any thread.
#pragma once

#include <string>

#include "vmrepl/base/result.hpp"

namespace havm {

// Whole content of a file of at most 16 MiB. Error.code is ENOENT when it does not exist.
Result<std::string> read_file(const std::string& path);

// Writes a temporary file beside `path`, fsyncs it, renames it over `path`, fsyncs the directory.
Result<void> replace_file(const std::string& path, const std::string& content);

// Makes what was created, linked, renamed or removed beside `path` durable.
Result<void> sync_directory_of(const std::string& path);

// Like `mkdir -p` with mode 0750 for what is created.
Result<void> make_directories(const std::string& path);

// The boot id of this host as the kernel tells it (/proc/sys/kernel/random/boot_id), without
// newline.
Result<std::string> read_boot_id();

}  // namespace havm
