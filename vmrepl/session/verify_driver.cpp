#include "vmrepl/session/verify_driver.hpp"

#include <random>
#include <utility>

#include <spdlog/spdlog.h>

#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

constexpr std::chrono::milliseconds shortest_wait{2};
constexpr std::chrono::seconds note_interval{1};

std::string random_id() {
  std::random_device device;
  return std::to_string((std::uint64_t{device()} << 32U) | device());
}

}  // namespace

VerifyDriver::VerifyDriver(boost::asio::any_io_executor executor, std::string vm,
                           std::vector<std::string> disk_names,
                           std::vector<std::uint64_t> disk_sizes, Hooks hooks)
    : vm_(std::move(vm)),
      names_(std::move(disk_names)),
      sizes_(std::move(disk_sizes)),
      hooks_(std::move(hooks)),
      timer_(std::move(executor)) {}

void VerifyDriver::start(bool repair, std::uint64_t rate_bytes_per_s) {
  HAVM_ASSERT(!core_, "one verify at a time");
  const TimePoint now = BootClock::now();
  ++run_;
  core_.emplace(sizes_, rate_bytes_per_s, now);
  flushes_left_ = 0;
  status_ = VerifyStatus{};
  status_.id = random_id();
  status_.running = true;
  status_.repair = repair;
  status_.total_bytes = core_->total_bytes();
  status_.started = noted_at_ = now;
  noted_bytes_ = 0;
  spdlog::info("vm={} verify of {} bytes begins{}", vm_, status_.total_bytes,
               repair ? "; what differs is repaired" : "");
  hooks_.changed();
  go_on();
}

void VerifyDriver::go_on() {
  while (core_) {
    const TimePoint now = BootClock::now();
    const auto check = core_->next(now, hooks_.guest_busy());
    if (check) {
      hooks_.check(run_, *check, status_.repair && check->again);
      continue;
    }
    if (now - noted_at_ >= note_interval) note(now);
    // The window opens with the end of a check; the rate, and the guest's being busy, with time.
    if (flushes_left_ == 0) wait(std::max(core_->next_at(), now + shortest_wait));
    return;
  }
}

void VerifyDriver::wait(TimePoint until) {
  const Duration left = until - BootClock::now();
  timer_.expires_after(std::max<Duration>(left, shortest_wait));
  timer_.async_wait([this, run = run_](const boost::system::error_code& e) {
    if (!e && run == run_) go_on();
  });
}

void VerifyDriver::checked(std::uint64_t run, const VerifyCheck& check, int error,
                           const CheckOutcome& outcome) {
  if (!core_ || run != run_) {
    if (error == 0 && outcome.repaired)
      spdlog::error(
          "vm={} disk={} verify: the replicas were not the same in the {} bytes at {}; the owner's "
          "data was copied to the partner when the verify had been cancelled already",
          vm_, names_[check.disk], check.length, check.offset);
    return;
  }
  if (error != 0) return;  // the loss of the session is told by itself
  const std::uint64_t before = core_->mismatch_bytes();
  core_->done(check, outcome);
  status_.done_bytes = core_->done_bytes();
  if (core_->mismatch_bytes() != before) {
    status_.mismatch_bytes = core_->mismatch_bytes();
    status_.mismatch_count = core_->mismatch_count();
    status_.repaired_bytes = core_->repaired_bytes();
    status_.mismatches = core_->mismatches();
    if (status_.mismatch_count <= VerifyCore::mismatches_max)
      spdlog::error(
          "vm={} disk={} verify: the replicas are not the same in {} of the {} bytes at {} ({}){}",
          vm_, names_[check.disk], core_->mismatch_bytes() - before, check.length, check.offset,
          to_text(status_.mismatches.back().reason),
          outcome.repaired ? "; the owner's data was copied to the partner" : "");
    hooks_.changed();
  }
  end_if_finished();
  go_on();
}

void VerifyDriver::end_if_finished() {
  if (!core_->finished()) return;
  if (status_.repaired_bytes == 0) {
    if (status_.mismatch_bytes == 0) return end("clean", "both replicas are the same");
    return end("mismatch", "the replicas differ; which of them is right is not known");
  }
  if (flushes_left_ != 0) return;
  flushes_left_ = sizes_.size();
  for (std::uint16_t disk = 0; disk < sizes_.size(); ++disk)
    hooks_.flush(run_, disk);
}

void VerifyDriver::flushed(std::uint64_t run, int error) {
  if (!core_ || run != run_ || error != 0) return;
  if (--flushes_left_ > 0) return;
  if (status_.repaired_bytes == status_.mismatch_bytes)
    end("repaired", "what differed was copied from the owner to the partner, and is durable there");
  else
    end("mismatch", "some of what differs could not be repaired");
}

void VerifyDriver::cancel() {
  if (core_) end("cancelled", "it was cancelled");
}

void VerifyDriver::session_lost(const std::string& reason) {
  if (core_) end("interrupted", "the session with the partner ended: " + reason);
}

void VerifyDriver::end(const std::string& result, const std::string& reason) {
  core_.reset();
  timer_.cancel();
  status_.running = false;
  status_.finished = BootClock::now();
  status_.result = result;
  status_.reason = reason;
  const auto level =
      status_.repaired_bytes == status_.mismatch_bytes ? spdlog::level::info : spdlog::level::err;
  spdlog::log(level, "vm={} verify ended: {}, {}; {} of {} bytes compared, {} differ, {} repaired",
              vm_, result, reason, status_.done_bytes, status_.total_bytes, status_.mismatch_bytes,
              status_.repaired_bytes);
  hooks_.changed();
}

void VerifyDriver::note(TimePoint now) {
  const double seconds = std::chrono::duration<double>(now - noted_at_).count();
  const auto bytes = static_cast<double>(status_.done_bytes - noted_bytes_);
  status_.rate_bytes_per_s = static_cast<std::uint64_t>(bytes / seconds);
  noted_at_ = now;
  noted_bytes_ = status_.done_bytes;
  hooks_.changed();
}

}  // namespace havm
