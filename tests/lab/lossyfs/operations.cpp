#include "tests/lab/lossyfs/operations.hpp"

#include <cerrno>
#include <climits>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "tests/lab/lossyfs/inode_table.hpp"

namespace havm::lab {

namespace {

// The kernel asks for attributes and names again each time: they are cheap, staleness is not.
constexpr double no_cache_s = 0.0;
constexpr unsigned background_requests_max = 64;

struct DirectoryEntry {
  std::string name;
  ino_t number = 0;
  mode_t mode = 0;
};

// What opendir saw; readdir goes on in it wherever it likes.
using Directory = std::vector<DirectoryEntry>;

InodeTable& table_of(fuse_req_t req) {
  return *static_cast<InodeTable*>(fuse_req_userdata(req));
}

Inode& inode_of(fuse_req_t req, fuse_ino_t number) {
  return number == FUSE_ROOT_ID ? table_of(req).root() : *reinterpret_cast<Inode*>(number);
}

// The answer to what returns 0 or -1 with errno.
void reply_status(fuse_req_t req, int status) {
  fuse_reply_err(req, status == 0 ? 0 : errno);
}

// The answer to what returns 0 or a negative errno value.
void reply_negative(fuse_req_t req, std::int64_t result) {
  fuse_reply_err(req, result < 0 ? static_cast<int>(-result) : 0);
}

bool look_up(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_entry_param& entry) {
  entry = {};
  Inode* inode = table_of(req).look_up(inode_of(req, parent), name, entry.attr);
  if (inode == nullptr) return false;
  entry.ino = reinterpret_cast<fuse_ino_t>(inode);
  entry.attr_timeout = no_cache_s;
  entry.entry_timeout = no_cache_s;
  return true;
}

void reply_entry(fuse_req_t req, fuse_ino_t parent, const char* name) {
  fuse_entry_param entry;
  if (look_up(req, parent, name, entry))
    fuse_reply_entry(req, &entry);
  else
    fuse_reply_err(req, errno);
}

// What was just made belongs to whoever asked for it.
bool give_to_caller(fuse_req_t req, fuse_ino_t parent, const char* name) {
  const fuse_ctx* caller = fuse_req_ctx(req);
  return ::fchownat(inode_of(req, parent).path.get(), name, caller->uid, caller->gid,
                    AT_SYMLINK_NOFOLLOW) == 0;
}

void reply_made(fuse_req_t req, fuse_ino_t parent, const char* name, int status) {
  if (status != 0 || !give_to_caller(req, parent, name))
    fuse_reply_err(req, errno);
  else
    reply_entry(req, parent, name);
}

// SQLite maps its "-shm" file, which is memory and worth nothing after a crash. All other files go
// past the kernel's page cache, so that it cannot keep what the medium has lost.
bool past_the_page_cache(const Inode& inode) {
  char target[PATH_MAX];
  const ssize_t length = ::readlink(inode.proc_name().c_str(), target, sizeof target);
  return length <= 0 ||
         !std::string_view(target, static_cast<std::size_t>(length)).ends_with("-shm");
}

// ---- names --------------------------------------------------------------------------------------

void on_init(void*, fuse_conn_info* connection) {
  // O_TRUNC arrives as a truncate before the open.
  connection->want &= ~unsigned{FUSE_CAP_ATOMIC_O_TRUNC};
  connection->max_background = background_requests_max;
}

void on_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  reply_entry(req, parent, name);
}

void on_forget(fuse_req_t req, fuse_ino_t number, std::uint64_t lookups) {
  table_of(req).forget(inode_of(req, number), lookups);
  fuse_reply_none(req);
}

void on_readlink(fuse_req_t req, fuse_ino_t number) {
  char target[PATH_MAX + 1];
  const ssize_t length = ::readlinkat(inode_of(req, number).path.get(), "", target, PATH_MAX);
  if (length < 0) {
    fuse_reply_err(req, errno);
    return;
  }
  target[length] = '\0';
  fuse_reply_readlink(req, target);
}

void on_mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
  reply_made(req, parent, name, ::mknodat(inode_of(req, parent).path.get(), name, mode, device));
}

void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  reply_made(req, parent, name, ::mkdirat(inode_of(req, parent).path.get(), name, mode));
}

void on_symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  reply_made(req, parent, name, ::symlinkat(target, inode_of(req, parent).path.get(), name));
}

void on_link(fuse_req_t req, fuse_ino_t number, fuse_ino_t parent, const char* name) {
  const std::string source = inode_of(req, number).proc_name();
  if (::linkat(AT_FDCWD, source.c_str(), inode_of(req, parent).path.get(), name,
               AT_SYMLINK_FOLLOW) != 0)
    fuse_reply_err(req, errno);
  else
    reply_entry(req, parent, name);
}

void on_unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  reply_status(req, ::unlinkat(inode_of(req, parent).path.get(), name, 0));
}

void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) {
  reply_status(req, ::unlinkat(inode_of(req, parent).path.get(), name, AT_REMOVEDIR));
}

void on_rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
               const char* new_name, unsigned flags) {
  reply_status(req, ::renameat2(inode_of(req, parent).path.get(), name,
                                inode_of(req, new_parent).path.get(), new_name, flags));
}

// ---- attributes ---------------------------------------------------------------------------------

void on_getattr(fuse_req_t req, fuse_ino_t number, fuse_file_info*) {
  struct stat attributes {};
  const int error = table_of(req).attributes_of(inode_of(req, number), attributes);
  if (error != 0)
    fuse_reply_err(req, error);
  else
    fuse_reply_attr(req, &attributes, no_cache_s);
}

int set_size(fuse_req_t req, Inode& inode, off_t size) {
  LossyFile* file = table_of(req).file_of(inode);
  return file == nullptr ? errno : -file->truncate(static_cast<std::uint64_t>(size));
}

timespec new_time(const timespec& time, bool set, bool now) {
  if (now) return {0, UTIME_NOW};
  return set ? time : timespec{0, UTIME_OMIT};
}

// 0 or an errno value.
int set_attributes(fuse_req_t req, Inode& inode, const struct stat& to, int which) {
  const std::string name = inode.proc_name();
  if ((which & FUSE_SET_ATTR_MODE) != 0 && ::chmod(name.c_str(), to.st_mode) != 0) return errno;
  const uid_t user = (which & FUSE_SET_ATTR_UID) != 0 ? to.st_uid : static_cast<uid_t>(-1);
  const gid_t group = (which & FUSE_SET_ATTR_GID) != 0 ? to.st_gid : static_cast<gid_t>(-1);
  if ((which & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0 &&
      ::fchownat(inode.path.get(), "", user, group, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0)
    return errno;
  if ((which & FUSE_SET_ATTR_SIZE) != 0) {
    if (const int error = set_size(req, inode, to.st_size); error != 0) return error;
  }
  const timespec times[2] = {
      new_time(to.st_atim, (which & FUSE_SET_ATTR_ATIME) != 0,
               (which & FUSE_SET_ATTR_ATIME_NOW) != 0),
      new_time(to.st_mtim, (which & FUSE_SET_ATTR_MTIME) != 0,
               (which & FUSE_SET_ATTR_MTIME_NOW) != 0),
  };
  const bool any_time = times[0].tv_nsec != UTIME_OMIT || times[1].tv_nsec != UTIME_OMIT;
  if (any_time && ::utimensat(AT_FDCWD, name.c_str(), times, 0) != 0) return errno;
  return 0;
}

void on_setattr(fuse_req_t req, fuse_ino_t number, struct stat* to, int which,
                fuse_file_info* info) {
  const int error = set_attributes(req, inode_of(req, number), *to, which);
  if (error != 0)
    fuse_reply_err(req, error);
  else
    on_getattr(req, number, info);
}

void on_statfs(fuse_req_t req, fuse_ino_t number) {
  struct statvfs fs {};
  if (::fstatvfs(inode_of(req, number).path.get(), &fs) != 0)
    fuse_reply_err(req, errno);
  else
    fuse_reply_statfs(req, &fs);
}

// ---- files --------------------------------------------------------------------------------------

// The file of an open handle is there: opening made it.
LossyFile& opened(fuse_req_t req, fuse_ino_t number) {
  return *inode_of(req, number).file;
}

bool open_file(fuse_req_t req, fuse_ino_t number, fuse_file_info& info) {
  Inode& inode = inode_of(req, number);
  if (table_of(req).file_of(inode) == nullptr) return false;
  info.direct_io = past_the_page_cache(inode) ? 1 : 0;
  return true;
}

void on_open(fuse_req_t req, fuse_ino_t number, fuse_file_info* info) {
  if (open_file(req, number, *info))
    fuse_reply_open(req, info);
  else
    fuse_reply_err(req, errno);
}

void on_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode,
               fuse_file_info* info) {
  const int made =
      ::openat(inode_of(req, parent).path.get(), name,
               O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (info->flags & O_EXCL), mode);
  const UniqueFd fd(made);
  fuse_entry_param entry;
  if (!fd.valid() || !give_to_caller(req, parent, name) || !look_up(req, parent, name, entry)) {
    fuse_reply_err(req, errno);
    return;
  }
  if (open_file(req, entry.ino, *info)) {
    fuse_reply_create(req, &entry, info);
    return;
  }
  const int error = errno;
  table_of(req).forget(inode_of(req, entry.ino), 1);
  fuse_reply_err(req, error);
}

void on_read(fuse_req_t req, fuse_ino_t number, std::size_t size, off_t offset, fuse_file_info*) {
  std::vector<std::byte> bytes(size);
  const std::int64_t n = opened(req, number).read(static_cast<std::uint64_t>(offset), bytes);
  if (n < 0)
    reply_negative(req, n);
  else
    fuse_reply_buf(req, reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(n));
}

void on_write(fuse_req_t req, fuse_ino_t number, const char* data, std::size_t size, off_t offset,
              fuse_file_info* info) {
  // The kernel hands down RWF_DSYNC in the flags of the request, beside those of the open.
  const bool durable = (info->flags & O_DSYNC) != 0;
  const std::int64_t n =
      opened(req, number)
          .write(static_cast<std::uint64_t>(offset), std::as_bytes(std::span(data, size)), durable);
  if (n < 0)
    reply_negative(req, n);
  else
    fuse_reply_write(req, static_cast<std::size_t>(n));
}

void on_fsync(fuse_req_t req, fuse_ino_t number, int, fuse_file_info*) {
  reply_negative(req, opened(req, number).flush());
}

void on_fallocate(fuse_req_t req, fuse_ino_t number, int mode, off_t offset, off_t length,
                  fuse_file_info*) {
  reply_negative(req, opened(req, number)
                          .allocate(mode, static_cast<std::uint64_t>(offset),
                                    static_cast<std::uint64_t>(length)));
}

void on_lseek(fuse_req_t req, fuse_ino_t number, off_t offset, int whence, fuse_file_info*) {
  const std::int64_t found = opened(req, number).seek(static_cast<std::uint64_t>(offset), whence);
  if (found < 0)
    reply_negative(req, found);
  else
    fuse_reply_lseek(req, found);
}

// ---- directories --------------------------------------------------------------------------------

bool read_directory(const Inode& inode, Directory& entries) {
  const int fd = ::openat(inode.path.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* stream = fd < 0 ? nullptr : ::fdopendir(fd);
  if (stream == nullptr) {
    if (fd >= 0) ::close(fd);
    return false;
  }
  while (const dirent* entry = ::readdir(stream))
    entries.push_back({entry->d_name, entry->d_ino, static_cast<mode_t>(DTTOIF(entry->d_type))});
  ::closedir(stream);
  return true;
}

void on_opendir(fuse_req_t req, fuse_ino_t number, fuse_file_info* info) {
  auto entries = std::make_unique<Directory>();
  if (!read_directory(inode_of(req, number), *entries)) {
    fuse_reply_err(req, errno);
    return;
  }
  info->fh = reinterpret_cast<std::uint64_t>(entries.get());
  // An open that was interrupted has no release.
  if (fuse_reply_open(req, info) == 0) static_cast<void>(entries.release());
}

void on_readdir(fuse_req_t req, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* info) {
  const auto& entries = *reinterpret_cast<const Directory*>(info->fh);
  std::vector<char> buffer(size);
  std::size_t used = 0;
  for (auto i = static_cast<std::size_t>(offset); i < entries.size(); ++i) {
    struct stat st {};
    st.st_ino = entries[i].number;
    st.st_mode = entries[i].mode;
    const std::size_t needed =
        fuse_add_direntry(req, buffer.data() + used, size - used, entries[i].name.c_str(), &st,
                          static_cast<off_t>(i + 1));
    if (needed > size - used) break;
    used += needed;
  }
  fuse_reply_buf(req, buffer.data(), used);
}

void on_releasedir(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  delete reinterpret_cast<Directory*>(info->fh);
  fuse_reply_err(req, 0);
}

// Names reach the medium at once.
void on_fsyncdir(fuse_req_t req, fuse_ino_t, int, fuse_file_info*) {
  fuse_reply_err(req, 0);
}

fuse_lowlevel_ops make_operations() {
  fuse_lowlevel_ops ops{};
  ops.init = on_init;
  ops.lookup = on_lookup;
  ops.forget = on_forget;
  ops.getattr = on_getattr;
  ops.setattr = on_setattr;
  ops.readlink = on_readlink;
  ops.mknod = on_mknod;
  ops.mkdir = on_mkdir;
  ops.unlink = on_unlink;
  ops.rmdir = on_rmdir;
  ops.symlink = on_symlink;
  ops.rename = on_rename;
  ops.link = on_link;
  ops.open = on_open;
  ops.create = on_create;
  ops.read = on_read;
  ops.write = on_write;
  ops.fsync = on_fsync;
  ops.fallocate = on_fallocate;
  ops.lseek = on_lseek;
  ops.opendir = on_opendir;
  ops.readdir = on_readdir;
  ops.releasedir = on_releasedir;
  ops.fsyncdir = on_fsyncdir;
  ops.statfs = on_statfs;
  return ops;
}

}  // namespace

const fuse_lowlevel_ops& lossy_operations() {
  static const fuse_lowlevel_ops ops = make_operations();
  return ops;
}

}  // namespace havm::lab
