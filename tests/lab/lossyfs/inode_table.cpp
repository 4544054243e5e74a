#include "tests/lab/lossyfs/inode_table.hpp"

#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

namespace havm::lab {

namespace {

constexpr std::uint64_t block_bytes = 512;  // the unit of st_blocks

int stat_of(const Inode& inode, struct stat& attributes) {
  const int flags = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW;
  return ::fstatat(inode.path.get(), "", &attributes, flags) == 0 ? 0 : errno;
}

}  // namespace

std::string Inode::proc_name() const {
  return "/proc/self/fd/" + std::to_string(path.get());
}

InodeTable::InodeTable(Medium& medium, UniqueFd path)
    : medium_(medium), root_(std::make_unique<Inode>()) {
  root_->path = std::move(path);
  root_->mode = S_IFDIR;
}

Inode* InodeTable::look_up(const Inode& parent, const char* name, struct stat& attributes) {
  UniqueFd path(::openat(parent.path.get(), name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!path.valid()) return nullptr;
  if (::fstatat(path.get(), "", &attributes, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0)
    return nullptr;
  Inode* found = nullptr;
  {
    const std::lock_guard lock(mutex_);
    auto& inode = inodes_[Key{attributes.st_dev, attributes.st_ino}];
    if (!inode) {
      inode = std::make_unique<Inode>();
      inode->path = std::move(path);
      inode->mode = attributes.st_mode;
    }
    ++inode->lookups;
    found = inode.get();
  }
  attributes_of(*found, attributes);
  return found;
}

void InodeTable::forget(Inode& inode, std::uint64_t lookups) {
  if (&inode == root_.get()) return;
  const std::lock_guard lock(mutex_);
  inode.lookups -= lookups;
  if (inode.lookups > 0) return;
  struct stat st {};
  if (stat_of(inode, st) != 0) return;
  if (st.st_nlink > 0 && inode.file && inode.file->is_volatile()) return;
  inodes_.erase(Key{st.st_dev, st.st_ino});
}

LossyFile* InodeTable::file_of(Inode& inode) {
  if (!S_ISREG(inode.mode)) {
    errno = S_ISDIR(inode.mode) ? EISDIR : EINVAL;
    return nullptr;
  }
  const std::lock_guard lock(inode.opening);
  if (inode.file) return inode.file.get();
  UniqueFd fd(::open(inode.proc_name().c_str(), O_RDWR | O_CLOEXEC));
  struct stat st {};
  if (!fd.valid() || ::fstat(fd.get(), &st) != 0) return nullptr;
  inode.file =
      std::make_unique<LossyFile>(medium_, std::move(fd), static_cast<std::uint64_t>(st.st_size));
  return inode.file.get();
}

int InodeTable::attributes_of(Inode& inode, struct stat& attributes) {
  if (const int error = stat_of(inode, attributes); error != 0) return error;
  const std::lock_guard lock(inode.opening);
  if (!inode.file) return 0;
  attributes.st_size = static_cast<off_t>(inode.file->size());
  attributes.st_blocks += static_cast<blkcnt_t>(inode.file->bytes_held() / block_bytes);
  return 0;
}

int InodeTable::flush_all() {
  const std::lock_guard lock(mutex_);
  int first_error = 0;
  for (const auto& [key, inode] : inodes_) {
    const int error = inode->file ? inode->file->flush() : 0;
    if (first_error == 0) first_error = -error;
  }
  return first_error;
}

}  // namespace havm::lab
