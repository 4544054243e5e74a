// The job of BlockService: what the NBD server serves. One per disk; the replication session
// implements it for the owner's disks, tests implement it on memory. One thread (the engine's
// executor).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "vmrepl/base/buffer.hpp"
#include "vmrepl/base/result.hpp"
#include "vmrepl/disk/replica_disk.hpp"

namespace havm {

enum class BlockOp : std::uint8_t { read, write, flush, trim, write_zeroes };

struct BlockRequest;
// Called exactly once, with the request back and 0 or a positive errno value. May be called from
// inside submit(). A held request (partner lost, lease away) is simply completed later, never
// failed.
using BlockDone = std::function<void(std::unique_ptr<BlockRequest> request, int error)>;

struct BlockRequest {
  BlockOp op = BlockOp::read;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  bool fua = false;        // write, trim, write_zeroes: durable before completion
  bool may_unmap = false;  // write_zeroes without NBD_CMD_FLAG_NO_HOLE
  Buffer data;             // write: the payload; read: `length` bytes allocated by the server
  BlockDone done;
};

class BlockService {
 public:
  virtual ~BlockService() = default;
  [[nodiscard]] virtual std::uint64_t size_bytes() const = 0;
  // Minimum block size told to clients: requests are multiples of it (the server enforces this).
  [[nodiscard]] virtual std::uint32_t alignment_bytes() const = 0;
  virtual void submit(std::unique_ptr<BlockRequest> request) = 0;
  // For NBD_CMD_BLOCK_STATUS of base:allocation.
  virtual Result<std::vector<Extent>> extents(std::uint64_t offset, std::uint64_t length) = 0;
};

}  // namespace havm
