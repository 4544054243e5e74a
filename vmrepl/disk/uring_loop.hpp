// The job of UringLoop: one io_uring per engine process, shared by its disks, driven by the
// engine's Asio executor. It carries single kernel operations; splitting, retrying and fallbacks
// are the disk's.
//
// Guarantees
//  1. `done` of every operation is called exactly once, never from inside start(), on the executor,
//     with what the kernel returned: a count ≥ 0 or a negative errno value. Exception: after the
//     loop was destroyed it is not called; the destructor waits until the kernel touches no buffer
//     any more.
//  2. All operations started in one turn of the executor go to the kernel in one system call, and
//     completions are taken in batches.
//  3. More operations than the ring holds wait in order (at most waiting_max of them; more is a
//     bug: every caller bounds its own requests far below).
// One thread: the one that runs the executor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include <boost/asio/any_io_executor.hpp>

#include "vmrepl/base/result.hpp"

namespace havm {

struct UringOperation {
  enum class Kind : std::uint8_t {
    read,         // into data
    write,        // from data
    write_dsync,  // from data, durable when done (RWF_DSYNC)
    data_sync,    // fdatasync of the whole file; offset, data, length unused
    punch_hole,   // fallocate, size kept
    zero_range,   // fallocate, size kept
  };
  Kind kind = Kind::read;
  int fd = -1;
  std::uint64_t offset = 0;   // bytes
  std::uint64_t length = 0;   // bytes; at most 1 GiB for read and write
  std::byte* data = nullptr;  // only read from for the writes; valid until done
  std::function<void(int result)> done;
};

class UringLoop : public std::enable_shared_from_this<UringLoop> {
 public:
  static constexpr unsigned ring_entries = 256;
  static constexpr std::size_t in_flight_max = 1024;
  static constexpr std::size_t waiting_max = 65536;

  // Fails where the kernel offers no io_uring to this process.
  static Result<std::shared_ptr<UringLoop>> create(const boost::asio::any_io_executor& executor);

  ~UringLoop();
  UringLoop(const UringLoop&) = delete;
  UringLoop& operator=(const UringLoop&) = delete;

  void start(UringOperation operation);

  [[nodiscard]] const boost::asio::any_io_executor& executor() const;
  // Started and not yet done.
  [[nodiscard]] std::size_t outstanding() const;

 private:
  struct State;
  explicit UringLoop(std::unique_ptr<State> state);

  void schedule_submit();
  void submit();
  void fill_ring();
  void wait_for_completions();
  void reap();

  std::unique_ptr<State> state_;
};

}  // namespace havm
