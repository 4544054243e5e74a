#include "vmrepl/disk/memory_disk.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>

#include <boost/asio/post.hpp>

#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

struct FailPlan {
  int error = 0;
  std::uint64_t skip = 0;
  std::uint64_t count = 0;
};

struct Pending {
  MemoryDisk::Op op = MemoryDisk::Op::read;
  std::uint64_t number = 0;  // of a write or zero
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::span<std::byte> into;
  std::span<const std::byte> from;
  bool fua = false;
  int error = 0;
  std::vector<std::uint64_t> covered;  // flush: numbers of the writes completed before it
  ReplicaDisk::Done done;
};

std::size_t index_of(MemoryDisk::Op op) {
  return static_cast<std::size_t>(op);
}

void copy_to(std::vector<std::byte>& image, std::uint64_t offset,
             std::span<const std::byte> bytes) {
  if (!bytes.empty()) std::memcpy(image.data() + offset, bytes.data(), bytes.size());
}

}  // namespace

struct MemoryDisk::State : std::enable_shared_from_this<State> {
  boost::asio::any_io_executor executor;
  std::uint32_t alignment_bytes = 512;
  std::vector<std::byte> contents;
  std::vector<std::byte> durable;
  std::vector<UnflushedWrite> log;  // in order of starting
  std::array<FailPlan, op_kinds> plans{};
  std::array<bool, op_kinds> holds{};
  std::array<std::uint64_t, op_kinds> started{};
  std::deque<Pending> held;
  std::size_t outstanding = 0;
  std::uint64_t next_number = 1;
  std::uint64_t power_cycle = 0;  // completions of an earlier one are dropped
  int flush_error = 0;

  void check_range(std::uint64_t offset, std::uint64_t length) const;
  void start(Pending pending);
  void complete_later(Pending pending);
  void complete(const Pending& pending);
  void apply(const Pending& pending);
  void apply_write(const Pending& pending);
  void make_durable(std::size_t log_index);
  int planned_error(Op op);
};

void MemoryDisk::State::check_range(std::uint64_t offset, std::uint64_t length) const {
  HAVM_ASSERT(offset <= contents.size() && length <= contents.size() - offset,
              "disk requests must lie on the disk");
  HAVM_ASSERT(offset % alignment_bytes == 0 && length % alignment_bytes == 0,
              "disk requests must be aligned");
}

int MemoryDisk::State::planned_error(Op op) {
  if (op == Op::flush && flush_error != 0) return flush_error;
  FailPlan& plan = plans[index_of(op)];
  if (plan.count == 0) return 0;
  if (plan.skip > 0) {
    --plan.skip;
    return 0;
  }
  --plan.count;
  return plan.error;
}

void MemoryDisk::State::start(Pending pending) {
  ++started[index_of(pending.op)];
  ++outstanding;
  pending.error = planned_error(pending.op);
  if (pending.op == Op::write || pending.op == Op::zero) {
    pending.number = next_number++;
    std::vector<std::byte> bytes(pending.length);
    if (pending.op == Op::write) copy_to(bytes, 0, pending.from);
    // A failed write may still be in the drive's cache for all anybody knows, but it is not
    // promised.
    if (pending.error == 0)
      log.push_back(UnflushedWrite{pending.number, pending.offset, std::move(bytes), false});
  }
  if (pending.op == Op::flush)
    for (const UnflushedWrite& write : log)
      if (write.completed) pending.covered.push_back(write.number);
  if (holds[index_of(pending.op)])
    held.push_back(std::move(pending));
  else
    complete_later(std::move(pending));
}

void MemoryDisk::State::complete_later(Pending pending) {
  boost::asio::post(executor,
                    [self = shared_from_this(), cycle = power_cycle, pending = std::move(pending)] {
                      if (cycle == self->power_cycle) self->complete(pending);
                    });
}

void MemoryDisk::State::complete(const Pending& pending) {
  --outstanding;
  int error = pending.error;
  if (pending.op == Op::flush) {
    if (error != 0 && flush_error == 0) flush_error = error;
    error = flush_error;
  }
  if (error == 0) apply(pending);
  pending.done(error);
}

void MemoryDisk::State::apply(const Pending& pending) {
  switch (pending.op) {
    case Op::read:
      std::copy_n(contents.begin() + static_cast<std::ptrdiff_t>(pending.offset),
                  pending.into.size(), pending.into.begin());
      return;
    case Op::write:
    case Op::zero:
      apply_write(pending);
      return;
    case Op::flush:
      for (const std::uint64_t number : pending.covered) {
        const auto it = std::ranges::find(log, number, &UnflushedWrite::number);
        if (it != log.end()) make_durable(static_cast<std::size_t>(it - log.begin()));
      }
      return;
  }
}

void MemoryDisk::State::apply_write(const Pending& pending) {
  const auto it = std::ranges::find(log, pending.number, &UnflushedWrite::number);
  HAVM_ASSERT(it != log.end(), "a write in flight is in the log");
  // From the caller's memory as it is now, not as it was at the start.
  if (pending.op == Op::write) it->bytes.assign(pending.from.begin(), pending.from.end());
  it->completed = true;
  copy_to(contents, it->offset, it->bytes);
  if (pending.fua) make_durable(static_cast<std::size_t>(it - log.begin()));
}

void MemoryDisk::State::make_durable(std::size_t log_index) {
  const UnflushedWrite write = std::move(log[log_index]);
  log.erase(log.begin() + static_cast<std::ptrdiff_t>(log_index));
  copy_to(durable, write.offset, write.bytes);
  // Older bytes of the same place can no longer come to the surface.
  for (std::size_t i = 0; i < log_index; ++i) {
    UnflushedWrite& older = log[i];
    const std::uint64_t begin = std::max(older.offset, write.offset);
    const std::uint64_t end =
        std::min(older.offset + older.bytes.size(), write.offset + write.bytes.size());
    if (begin >= end) continue;
    std::copy_n(write.bytes.begin() + static_cast<std::ptrdiff_t>(begin - write.offset),
                end - begin,
                older.bytes.begin() + static_cast<std::ptrdiff_t>(begin - older.offset));
  }
}

MemoryDisk::MemoryDisk(boost::asio::any_io_executor executor, std::uint64_t size_bytes,
                       std::uint32_t alignment_bytes)
    : state_(std::make_shared<State>()) {
  HAVM_ASSERT(size_bytes % alignment_bytes == 0, "a disk is a whole number of blocks");
  state_->executor = std::move(executor);
  state_->alignment_bytes = alignment_bytes;
  state_->contents.resize(size_bytes);
  state_->durable.resize(size_bytes);
}

MemoryDisk::~MemoryDisk() = default;

std::uint64_t MemoryDisk::size_bytes() const {
  return state_->contents.size();
}
std::uint32_t MemoryDisk::alignment_bytes() const {
  return state_->alignment_bytes;
}

void MemoryDisk::read(std::uint64_t offset, std::span<std::byte> into, Done done) {
  state_->check_range(offset, into.size());
  Pending pending;
  pending.op = Op::read;
  pending.offset = offset;
  pending.length = into.size();
  pending.into = into;
  pending.done = std::move(done);
  state_->start(std::move(pending));
}

void MemoryDisk::write(std::uint64_t offset, std::span<const std::byte> from, bool fua, Done done) {
  state_->check_range(offset, from.size());
  Pending pending;
  pending.op = Op::write;
  pending.offset = offset;
  pending.length = from.size();
  pending.from = from;
  pending.fua = fua;
  pending.done = std::move(done);
  state_->start(std::move(pending));
}

void MemoryDisk::zero(std::uint64_t offset, std::uint64_t length, bool /*may_unmap*/, Done done) {
  state_->check_range(offset, length);
  Pending pending;
  pending.op = Op::zero;
  pending.offset = offset;
  pending.length = length;
  pending.done = std::move(done);
  state_->start(std::move(pending));
}

void MemoryDisk::flush(Done done) {
  Pending pending;
  pending.op = Op::flush;
  pending.done = std::move(done);
  state_->start(std::move(pending));
}

Result<std::vector<Extent>> MemoryDisk::extents(std::uint64_t offset, std::uint64_t length) {
  const std::uint64_t end = offset + length;
  HAVM_ASSERT(end <= size_bytes(), "extents are asked for on the disk");
  std::vector<Extent> extents;
  while (offset < end) {
    const std::uint64_t block_end =
        (offset / state_->alignment_bytes + 1) * state_->alignment_bytes;
    const std::uint64_t piece = std::min(end, block_end) - offset;
    const auto bytes = contents().subspan(offset, piece);
    const bool hole = std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
    if (!extents.empty() && extents.back().hole == hole)
      extents.back().length += piece;
    else
      extents.push_back(Extent{offset, piece, hole});
    offset += piece;
  }
  return extents;
}

void MemoryDisk::fail(Op op, int error, std::uint64_t skip, std::uint64_t count) {
  HAVM_ASSERT(error > 0, "a failure needs an errno value");
  state_->plans[index_of(op)] = FailPlan{error, skip, count};
}

void MemoryDisk::hold(Op op, bool on) {
  state_->holds[index_of(op)] = on;
}

void MemoryDisk::hold_all(bool on) {
  state_->holds.fill(on);
}

std::size_t MemoryDisk::held() const {
  return state_->held.size();
}

std::size_t MemoryDisk::release(std::size_t count) {
  std::size_t released = 0;
  for (; released < count && !state_->held.empty(); ++released) {
    Pending pending = std::move(state_->held.front());
    state_->held.pop_front();
    state_->complete_later(std::move(pending));
  }
  return released;
}

std::uint64_t MemoryDisk::started(Op op) const {
  return state_->started[index_of(op)];
}

std::size_t MemoryDisk::outstanding() const {
  return state_->outstanding;
}

std::span<const std::byte> MemoryDisk::contents() const {
  return state_->contents;
}

std::span<std::byte> MemoryDisk::contents() {
  return state_->contents;
}

void MemoryDisk::set_durable() {
  state_->durable = state_->contents;
  std::erase_if(state_->log, [](const UnflushedWrite& write) { return write.completed; });
}

std::vector<MemoryDisk::UnflushedWrite> MemoryDisk::unflushed() const {
  return state_->log;
}

std::vector<std::byte> MemoryDisk::crash_image(
    const std::function<bool(const UnflushedWrite&)>& survives) const {
  std::vector<std::byte> image = state_->durable;
  for (const UnflushedWrite& write : state_->log)
    if (survives(write)) copy_to(image, write.offset, write.bytes);
  return image;
}

void MemoryDisk::crash(const std::function<bool(const UnflushedWrite&)>& survives) {
  state_->contents = crash_image(survives);
  state_->durable = state_->contents;
  state_->log.clear();
  state_->held.clear();
  state_->outstanding = 0;
  state_->flush_error = 0;
  ++state_->power_cycle;
}

}  // namespace havm
