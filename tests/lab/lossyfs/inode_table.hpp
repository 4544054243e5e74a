// The job of InodeTable: which file of the backing directory each inode number of the kernel means,
// and the volatile data of each.
//
// Guarantees
//  1. One backing inode is one Inode, whatever names it has: hard links share data and locks.
//  2. An inode that the kernel forgot is kept while it has volatile data and a name.
// Any thread. An Inode lives as long as the kernel holds a lookup of it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <sys/stat.h>

#include "tests/lab/lossyfs/lossy_file.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm::lab {

struct Inode {
  UniqueFd path;  // opened with O_PATH
  mode_t mode = 0;
  std::uint64_t lookups = 0;        // guarded by the table's mutex
  std::mutex opening;               // guards `file`
  std::unique_ptr<LossyFile> file;  // a regular file that was opened or truncated

  // The name under which the open file can be used in path calls.
  [[nodiscard]] std::string proc_name() const;
};

class InodeTable {
 public:
  // The directory that is shown as the root; `path` is opened with O_PATH.
  InodeTable(Medium& medium, UniqueFd path);

  [[nodiscard]] Inode& root() { return *root_; }

  // The child of a directory, with one lookup more and its attributes, or null with errno set.
  Inode* look_up(const Inode& parent, const char* name, struct stat& attributes);
  void forget(Inode& inode, std::uint64_t lookups);

  // The data of a regular file, or null with errno set.
  LossyFile* file_of(Inode& inode);
  // 0 or an errno value; the size is the newest one.
  int attributes_of(Inode& inode, struct stat& attributes);

  // Everything volatile to the medium; the first errno value or 0.
  int flush_all();

 private:
  using Key = std::pair<dev_t, ino_t>;

  Medium& medium_;
  std::unique_ptr<Inode> root_;
  std::mutex mutex_;
  std::map<Key, std::unique_ptr<Inode>> inodes_;
};

}  // namespace havm::lab
