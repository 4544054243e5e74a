#include "tests/unit/vmrepl/nbd/memory_block_service.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>

namespace havm::nbd_test {
namespace {

constexpr std::uint64_t extent_bytes = 4096;
// Long enough for several requests to arrive meanwhile.
constexpr std::chrono::microseconds shuffle_delay{200};

bool all_zero(const std::byte* data, std::size_t size) {
  return data[0] == std::byte{0} && std::memcmp(data, data + 1, size - 1) == 0;
}

}  // namespace

MemoryBlockService::MemoryBlockService(boost::asio::io_context& io, std::uint64_t size_bytes,
                                       std::uint32_t alignment_bytes)
    : timer_(io), disk_(size_bytes), alignment_bytes_(alignment_bytes) {}

int MemoryBlockService::apply(BlockRequest& request) {
  if (const int error = std::exchange(next_error, 0); error != 0) return error;
  std::byte* at = disk_.data() + request.offset;
  switch (request.op) {
    case BlockOp::read:
      std::memcpy(request.data.data(), at, request.length);
      break;
    case BlockOp::write:
      std::memcpy(at, request.data.data(), request.length);
      break;
    case BlockOp::trim:
    case BlockOp::write_zeroes:
      std::memset(at, 0, request.length);
      break;
    case BlockOp::flush:
      break;
  }
  return 0;
}

void MemoryBlockService::submit(std::unique_ptr<BlockRequest> request) {
  if (before_submit) before_submit();
  seen.push_back({request->op, request->offset, request->length, request->fua, request->may_unmap});
  const int error = apply(*request);
  if (completion == Completion::inside) return complete({std::move(request), error});
  waiting_.emplace_back(std::move(request), error);
  if (completion == Completion::held || scheduled_) return;
  schedule();
}

void MemoryBlockService::schedule() {
  scheduled_ = true;
  timer_.expires_after(shuffle_delay);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) complete_some();
  });
}

void MemoryBlockService::complete_some() {
  scheduled_ = false;
  std::shuffle(waiting_.begin(), waiting_.end(), random_);
  const std::size_t keep = waiting_.size() / 2;
  while (waiting_.size() > keep) {
    Waiting last = std::move(waiting_.back());
    waiting_.pop_back();
    complete(std::move(last));
  }
  if (waiting_.empty()) return;
  schedule();
}

std::size_t MemoryBlockService::release(int error, std::size_t count_max) {
  std::vector<Waiting> released;
  while (!waiting_.empty() && released.size() < count_max) {
    released.push_back(std::move(waiting_.back()));
    waiting_.pop_back();
  }
  for (Waiting& waiting : released) {
    if (error != 0) waiting.second = error;
    complete(std::move(waiting));
  }
  return released.size();
}

void MemoryBlockService::complete(Waiting waiting) {
  auto done = std::move(waiting.first->done);
  done(std::move(waiting.first), waiting.second);
}

Result<std::vector<Extent>> MemoryBlockService::extents(std::uint64_t offset,
                                                        std::uint64_t length) {
  if (extents_error != 0) return errno_error("the extents of the test disk", extents_error);
  std::vector<Extent> found;
  while (length > 0) {
    const std::uint64_t piece = std::min(extent_bytes - offset % extent_bytes, length);
    found.push_back({offset, piece, all_zero(disk_.data() + offset, piece)});
    offset += piece;
    length -= piece;
  }
  return found;
}

}  // namespace havm::nbd_test
