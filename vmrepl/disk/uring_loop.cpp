#include "vmrepl/disk/uring_loop.hpp"

#include <array>
#include <cerrno>
#include <deque>
#include <utility>
#include <vector>

#include <boost/asio/defer.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <liburing.h>
#include <linux/falloc.h>
#include <sys/eventfd.h>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {

namespace asio = boost::asio;

struct UringLoop::State {
  asio::any_io_executor executor;
  io_uring ring{};
  asio::posix::stream_descriptor completions;  // the eventfd that the ring signals

  // Operations in the kernel; a completion carries the index of its slot.
  std::vector<std::function<void(int)>> slots;
  std::vector<std::uint32_t> free_slots;
  std::deque<UringOperation> waiting;
  std::size_t in_flight = 0;  // given a place in the ring, not yet reaped
  bool submit_scheduled = false;

  explicit State(const asio::any_io_executor& e) : executor(e), completions(e) {}
};

namespace {

// Completions handled before other work of the executor gets its turn.
constexpr std::size_t reap_batch_max = 256;
constexpr std::uint64_t transfer_bytes_max = std::uint64_t{1} << 30;

void prepare(io_uring_sqe* sqe, const UringOperation& op, std::uint32_t slot) {
  const auto length = static_cast<unsigned>(op.length);
  switch (op.kind) {
    case UringOperation::Kind::read:
      io_uring_prep_read(sqe, op.fd, op.data, length, op.offset);
      break;
    case UringOperation::Kind::write:
      io_uring_prep_write(sqe, op.fd, op.data, length, op.offset);
      break;
    case UringOperation::Kind::write_dsync:
      io_uring_prep_write(sqe, op.fd, op.data, length, op.offset);
      sqe->rw_flags = RWF_DSYNC;
      break;
    case UringOperation::Kind::data_sync:
      io_uring_prep_fsync(sqe, op.fd, IORING_FSYNC_DATASYNC);
      break;
    case UringOperation::Kind::punch_hole:
      io_uring_prep_fallocate(sqe, op.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              static_cast<off_t>(op.offset), static_cast<off_t>(op.length));
      break;
    case UringOperation::Kind::zero_range:
      io_uring_prep_fallocate(sqe, op.fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                              static_cast<off_t>(op.offset), static_cast<off_t>(op.length));
      break;
  }
  io_uring_sqe_set_data64(sqe, slot);
}

}  // namespace

Result<std::shared_ptr<UringLoop>> UringLoop::create(const asio::any_io_executor& executor) {
  auto state = std::make_unique<State>(executor);
  io_uring_params parameters{};
  // As many completions as operations may be in flight: the completion queue never overflows.
  parameters.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
  parameters.cq_entries = in_flight_max;
  int error = io_uring_queue_init_params(ring_entries, &state->ring, &parameters);
  if (error < 0)
    return errno_error("this host offers no io_uring (see kernel.io_uring_disabled)", -error);
  UniqueFd event(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  error = event.valid() ? io_uring_register_eventfd(&state->ring, event.get()) : -errno;
  if (error < 0) {
    io_uring_queue_exit(&state->ring);
    return errno_error("cannot be told about io_uring completions", -error);
  }
  state->completions.assign(event.release());
  state->slots.resize(in_flight_max);
  for (std::uint32_t slot = in_flight_max; slot > 0; --slot)
    state->free_slots.push_back(slot - 1);

  std::shared_ptr<UringLoop> loop(new UringLoop(std::move(state)));
  loop->wait_for_completions();
  return loop;
}

UringLoop::UringLoop(std::unique_ptr<State> state) : state_(std::move(state)) {}

UringLoop::~UringLoop() {
  // The kernel still writes into buffers that the slots keep alive: wait for it before they go.
  while (state_->in_flight > 0) {
    io_uring_submit(&state_->ring);  // what an earlier shortage of memory left behind
    io_uring_cqe* cqe = nullptr;
    __kernel_timespec patience{.tv_sec = 0, .tv_nsec = 100'000'000};
    const int error = io_uring_wait_cqe_timeout(&state_->ring, &cqe, &patience);
    if (error == -EINTR || error == -ETIME || error == -EAGAIN) continue;
    HAVM_ASSERT(error == 0, "the ring must tell the end of each operation");
    io_uring_cqe_seen(&state_->ring, cqe);
    --state_->in_flight;
  }
  io_uring_queue_exit(&state_->ring);
}

const asio::any_io_executor& UringLoop::executor() const {
  return state_->executor;
}

std::size_t UringLoop::outstanding() const {
  return state_->in_flight + state_->waiting.size();
}

void UringLoop::start(UringOperation operation) {
  HAVM_ASSERT(operation.fd >= 0 && operation.done, "an operation needs a file and a done");
  HAVM_ASSERT(operation.data == nullptr || operation.length <= transfer_bytes_max,
              "one transfer is at most 1 GiB");
  HAVM_ASSERT(state_->waiting.size() < waiting_max, "callers must bound their requests");
  state_->waiting.push_back(std::move(operation));
  schedule_submit();
}

// One system call for all that is started in this turn of the executor.
void UringLoop::schedule_submit() {
  if (std::exchange(state_->submit_scheduled, true)) return;
  asio::defer(state_->executor, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->submit();
  });
}

void UringLoop::submit() {
  state_->submit_scheduled = false;
  while (true) {
    fill_ring();
    if (io_uring_sq_ready(&state_->ring) == 0) return;
    const int taken = io_uring_submit(&state_->ring);
    if (taken == -EINTR) continue;
    if (taken < 0 || (taken == 0 && io_uring_sq_ready(&state_->ring) != 0)) {
      // EAGAIN/EBUSY: the kernel is short of memory or wants completions taken first.
      HAVM_ASSERT(taken == 0 || taken == -EAGAIN || taken == -EBUSY || taken == -ENOMEM,
                  "the ring must accept operations");
      schedule_submit();
      return;
    }
  }
}

void UringLoop::fill_ring() {
  while (!state_->waiting.empty() && !state_->free_slots.empty()) {
    io_uring_sqe* sqe = io_uring_get_sqe(&state_->ring);
    if (sqe == nullptr) return;
    const std::uint32_t slot = state_->free_slots.back();
    state_->free_slots.pop_back();
    UringOperation& op = state_->waiting.front();
    prepare(sqe, op, slot);
    state_->slots[slot] = std::move(op.done);
    state_->waiting.pop_front();
    ++state_->in_flight;
  }
}

void UringLoop::wait_for_completions() {
  state_->completions.async_wait(asio::posix::stream_descriptor::wait_read,
                                 [weak = weak_from_this()](const boost::system::error_code& error) {
                                   const auto self = weak.lock();
                                   if (!self || error) return;
                                   eventfd_t count = 0;
                                   ::eventfd_read(self->state_->completions.native_handle(),
                                                  &count);
                                   self->reap();
                                   self->wait_for_completions();
                                 });
}

void UringLoop::reap() {
  // Guards against the last owner going away inside a done.
  const auto self = shared_from_this();
  struct Completion {
    std::function<void(int)> done;
    int result = 0;
  };
  std::array<io_uring_cqe*, reap_batch_max> cqes{};
  const unsigned count = io_uring_peek_batch_cqe(&state_->ring, cqes.data(), reap_batch_max);
  if (count == 0) return;
  std::vector<Completion> batch;
  batch.reserve(count);
  for (unsigned i = 0; i < count; ++i) {
    const auto slot = static_cast<std::uint32_t>(io_uring_cqe_get_data64(cqes[i]));
    batch.push_back({std::move(state_->slots[slot]), cqes[i]->res});
    state_->slots[slot] = nullptr;
    state_->free_slots.push_back(slot);
  }
  io_uring_cq_advance(&state_->ring, count);
  state_->in_flight -= count;
  for (Completion& completion : batch)
    completion.done(completion.result);

  if (!state_->waiting.empty()) schedule_submit();
  // The eventfd was read: what is left will not signal again by itself.
  if (io_uring_cq_ready(&state_->ring) != 0)
    asio::defer(state_->executor, [weak = weak_from_this()] {
      if (const auto again = weak.lock()) again->reap();
    });
}

}  // namespace havm
