// The job of MemoryDisk: a ReplicaDisk for tests, in memory, that can fail, be slow and lose power
// on request. It keeps two images: what reads see, and what a power cut would leave at least.
//
// Guarantees beside those of ReplicaDisk
//  1. An operation takes effect when it completes, not when it is started (so a caller that reuses
//     a buffer too early is seen), and in the order of starting unless it was held.
//  2. A failed operation changes nothing.
//  3. flush makes durable exactly the writes and zeroes completed before it was called; FUA writes
//     are durable when they complete.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <boost/asio/any_io_executor.hpp>

#include "vmrepl/disk/replica_disk.hpp"

namespace havm {

class MemoryDisk final : public ReplicaDisk {
 public:
  enum class Op : std::uint8_t { read, write, zero, flush };
  static constexpr std::size_t op_kinds = 4;

  // A write (or zero) that completed, or is still in flight, and is not covered by a flush.
  struct UnflushedWrite {
    std::uint64_t number =
        0;  // of all writes and zeroes of this disk, from 1, in order of starting
    std::uint64_t offset = 0;
    std::vector<std::byte> bytes;
    bool completed = false;
  };

  MemoryDisk(boost::asio::any_io_executor executor, std::uint64_t size_bytes,
             std::uint32_t alignment_bytes = 512);
  ~MemoryDisk() override;
  MemoryDisk(const MemoryDisk&) = delete;
  MemoryDisk& operator=(const MemoryDisk&) = delete;

  [[nodiscard]] std::uint64_t size_bytes() const override;
  [[nodiscard]] std::uint32_t alignment_bytes() const override;
  void read(std::uint64_t offset, std::span<std::byte> into, Done done) override;
  void write(std::uint64_t offset, std::span<const std::byte> from, bool fua, Done done) override;
  void zero(std::uint64_t offset, std::uint64_t length, bool may_unmap, Done done) override;
  void flush(Done done) override;
  // A hole for each run of zero-filled alignment blocks.
  Result<std::vector<Extent>> extents(std::uint64_t offset, std::uint64_t length) override;

  // After `skip` more operations of this kind, the next `count` fail with this errno value. A
  // failed flush makes all later ones fail.
  void fail(Op op, int error, std::uint64_t skip = 0, std::uint64_t count = 1);

  // While on, operations of this kind are kept back from now on, until release().
  void hold(Op op, bool on = true);
  void hold_all(bool on = true);
  [[nodiscard]] std::size_t held() const;
  // Lets the oldest `count` held operations complete (the holds stay on). Returns how many there
  // were.
  std::size_t release(std::size_t count = SIZE_MAX);

  // How many operations of this kind were started.
  [[nodiscard]] std::uint64_t started(Op op) const;
  // Started and not done.
  [[nodiscard]] std::size_t outstanding() const;

  // What a read sees now. The mutable form prepares or damages an image behind everybody's back,
  // and what is written through it counts as durable only after set_durable().
  [[nodiscard]] std::span<const std::byte> contents() const;
  [[nodiscard]] std::span<std::byte> contents();
  // Declares the present contents durable.
  void set_durable();

  [[nodiscard]] std::vector<UnflushedWrite> unflushed() const;
  // The image after a power cut now: what is durable and, of unflushed(), in order, those for which
  // `survives` says true.
  [[nodiscard]] std::vector<std::byte> crash_image(
      const std::function<bool(const UnflushedWrite&)>& survives) const;
  // Loses power now: contents become crash_image(survives), held operations are dropped without a
  // done.
  void crash(const std::function<bool(const UnflushedWrite&)>& survives);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace havm
