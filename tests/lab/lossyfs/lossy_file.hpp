// The job of LossyFile: one regular file whose data is volatile until it is flushed. The backing
// file is the medium: what is written to it survives the end of this process, nothing else does.
//
// Guarantees
//  1. Every read sees the newest data, volatile or not.
//  2. After flush() returned 0 everything written, zeroed or extended before it is on the medium. A
//     write with `durable` puts exactly its own range there.
//  3. Before that it is on the medium only as far as WriteBack drew it, or when volatile data would
//     need more memory than `bytes_max`: then all of the file's is written back, as a kernel does.
//  4. A hole is reported only where a read gives zeroes.
// Simplifications: truncate and preallocation reach the medium at once; the medium is the page
// cache of the machine underneath, which no test cuts.
// All results are 0 (or a count or an offset), or a negative errno value. Bytes. Blocking. Any
// thread: one mutex per file.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>

#include "tests/lab/lossyfs/volatile_data.hpp"
#include "tests/lab/lossyfs/write_back.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm::lab {

// What all files of one file system share.
struct Medium {
  Medium(bool loses_nothing, double keep_chance, std::uint64_t seed)
      : honest(loses_nothing), write_back(keep_chance, seed) {}

  bool honest;  // nothing is volatile: for the test of the tests
  WriteBack write_back;
  std::uint64_t bytes_max = std::uint64_t{256} << 20;  // of volatile data in memory
  std::atomic<std::uint64_t> bytes_held = 0;
};

class LossyFile {
 public:
  // `fd` is open for reading and writing and has `size` bytes now. `medium` outlives the file.
  LossyFile(Medium& medium, UniqueFd fd, std::uint64_t size);
  ~LossyFile();
  LossyFile(const LossyFile&) = delete;
  LossyFile& operator=(const LossyFile&) = delete;

  std::int64_t read(std::uint64_t offset, std::span<std::byte> into);
  std::int64_t write(std::uint64_t offset, std::span<const std::byte> from, bool durable);
  // As fallocate(2); modes other than 0, punch hole and zero range are -EOPNOTSUPP.
  int allocate(int mode, std::uint64_t offset, std::uint64_t length);
  int truncate(std::uint64_t size);
  int flush();
  // SEEK_DATA or SEEK_HOLE.
  std::int64_t seek(std::uint64_t offset, int whence);

  std::uint64_t size();
  std::uint64_t bytes_held();
  bool is_volatile();

 private:
  int put(const VolatileData::Piece& piece);
  int put_bytes(std::uint64_t offset, std::span<const std::byte> bytes);
  int put_zeroes(std::uint64_t offset, std::uint64_t length);
  int flush_locked();
  int flush_if_too_much();
  int zero_locked(std::uint64_t offset, std::uint64_t length);
  int extend_medium(std::uint64_t size);
  std::int64_t medium_size();
  std::int64_t seek_locked(std::uint64_t offset, int whence);
  void account();

  Medium& medium_;
  std::mutex mutex_;
  UniqueFd fd_;
  std::uint64_t size_;
  std::uint64_t accounted_ = 0;
  VolatileData data_;
};

}  // namespace havm::lab
