// The job of operations: answer the kernel's FUSE requests from an InodeTable. What the kernel does
// better itself is left to it: byte locks (also QEMU's and the engine's image locks), permission
// checks, the end of a file for O_APPEND. Files without a name (O_TMPFILE), extended attributes,
// reflinks and shared writable mappings (but for SQLite's "-shm") do not exist here.
#pragma once

#define FUSE_USE_VERSION 312

#include <fuse_lowlevel.h>

namespace havm::lab {

// For fuse_session_new(), whose userdata must be an InodeTable.
const fuse_lowlevel_ops& lossy_operations();

}  // namespace havm::lab
