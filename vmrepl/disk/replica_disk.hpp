// The job of ReplicaDisk: one local disk of one replica (a container file, a block device or an NBD
// export), read and written asynchronously. What is inside the container (raw or qcow2) is not
// looked at.
//
// Guarantees
//  1. `done` is called exactly once per call, never from inside the call itself, on the executor
//  that
//     owns the disk. Its argument is 0 or a positive errno value.
//  2. flush covers every write, zero and trim whose `done` was called before flush was called.
//  3. After a flush has failed, every later flush fails too (the kernel may have dropped the
//  pages).
// Callers keep the buffers valid and unchanged until `done`. Offsets and lengths are multiples of
// alignment_bytes() and inside size_bytes(). One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "vmrepl/base/result.hpp"

namespace havm {

// A piece of a disk, as SEEK_DATA/SEEK_HOLE tell it.
struct Extent {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool hole = false;  // reads as zeroes
};

class ReplicaDisk {
 public:
  using Done = std::function<void(int error)>;

  virtual ~ReplicaDisk() = default;

  [[nodiscard]] virtual std::uint64_t size_bytes() const = 0;
  // 512 or 4096: what O_DIRECT needs here.
  [[nodiscard]] virtual std::uint32_t alignment_bytes() const = 0;

  // Why no later flush can succeed while this disk is open: a flush has failed, or something
  // happened to the image itself (what failed for that had ESTALE). One sentence with what to do;
  // empty: nothing that is known of.
  [[nodiscard]] virtual std::string trouble() const { return {}; }

  virtual void read(std::uint64_t offset, std::span<std::byte> into, Done done) = 0;
  // fua: durable before done(0).
  virtual void write(std::uint64_t offset, std::span<const std::byte> from, bool fua,
                     Done done) = 0;
  // Afterwards the range reads as zeroes; may_unmap allows giving the blocks back.
  virtual void zero(std::uint64_t offset, std::uint64_t length, bool may_unmap, Done done) = 0;
  virtual void flush(Done done) = 0;

  // Extents covering exactly [offset, offset + length). Blocking but without data I/O.
  virtual Result<std::vector<Extent>> extents(std::uint64_t offset, std::uint64_t length) = 0;
};

}  // namespace havm
