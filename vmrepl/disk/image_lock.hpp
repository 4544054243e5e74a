// The job of lock_image: make sure that nobody else writes to a disk image while an engine has it
// open. It speaks QEMU's own image-locking protocol (open-file-description locks on single bytes:
// 100 + n for each permission n in use, 200 + n for each that is not shared), so that it collides
// with a running QEMU, with qemu-img and with another engine, and they with it. The lock ends when
// the descriptor is closed. Blocking, but never waits. Any thread.
#pragma once

#include <string>

#include "vmrepl/base/result.hpp"

namespace havm {

// EBUSY, naming the process where /proc tells it, when the image is in use. On failure no lock is
// kept.
Result<void> lock_image(int fd, const std::string& path);

}  // namespace havm
