// The job of MemoryBlockService: a disk in memory for tests of the NBD server, with control over
// when and how requests complete. The data is read or written at submit; only the completion is
// delayed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include "vmrepl/nbd/block_service.hpp"

namespace havm::nbd_test {

enum class Completion : std::uint8_t {
  inside,    // inside submit()
  shuffled,  // later, in an order that is not that of the requests
  held,      // by release()
};

class MemoryBlockService final : public BlockService {
 public:
  MemoryBlockService(boost::asio::io_context& io, std::uint64_t size_bytes,
                     std::uint32_t alignment_bytes);

  std::uint64_t size_bytes() const override { return disk_.size(); }
  std::uint32_t alignment_bytes() const override { return alignment_bytes_; }
  void submit(std::unique_ptr<BlockRequest> request) override;
  Result<std::vector<Extent>> extents(std::uint64_t offset, std::uint64_t length) override;

  // Completes requests held now with `error`, newest first, at most `count_max`; returns how many.
  std::size_t release(int error = 0, std::size_t count_max = SIZE_MAX);
  // Forgets the requests held now without completing them.
  void forget() { waiting_.clear(); }

  Completion completion = Completion::inside;
  int extents_error = 0;                // of the next extents() calls
  int next_error = 0;                   // of the next request only
  std::function<void()> before_submit;  // called first in submit()

  struct Seen {
    BlockOp op;
    std::uint64_t offset;
    std::uint32_t length;
    bool fua;
    bool may_unmap;

    bool operator==(const Seen&) const = default;
  };
  std::vector<Seen> seen;
  std::vector<std::byte>& disk() { return disk_; }
  std::size_t waiting() const { return waiting_.size(); }

 private:
  using Waiting = std::pair<std::unique_ptr<BlockRequest>, int>;

  int apply(BlockRequest& request);
  void schedule();
  void complete_some();
  static void complete(Waiting waiting);

  boost::asio::steady_timer timer_;
  std::vector<std::byte> disk_;
  const std::uint32_t alignment_bytes_;
  std::vector<Waiting> waiting_;
  bool scheduled_ = false;
  std::mt19937 random_{42};
};

}  // namespace havm::nbd_test
