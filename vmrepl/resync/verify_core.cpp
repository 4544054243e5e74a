#include "vmrepl/resync/verify_core.hpp"

#include <utility>

#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

Duration time_for(std::uint64_t bytes, std::uint64_t rate_bytes_per_s) {
  const double seconds = static_cast<double>(bytes) / static_cast<double>(rate_bytes_per_s);
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

const char* to_text(MismatchReason reason) {
  switch (reason) {
    case MismatchReason::different:
      return "different";
    case MismatchReason::unreadable_here:
      return "unreadable on the owner";
    case MismatchReason::unreadable_there:
      return "unreadable on the partner";
  }
  return "unknown";
}

VerifyCore::VerifyCore(std::vector<std::uint64_t> disk_sizes, std::uint64_t rate_bytes_per_s,
                       TimePoint now)
    : sizes_(std::move(disk_sizes)), rate_(rate_bytes_per_s), next_at_(now) {
  HAVM_ASSERT(rate_ > 0, "a verify needs a rate");
  for (const std::uint64_t size : sizes_)
    total_bytes_ += size;
  while (disk_ < sizes_.size() && sizes_[disk_] == 0)
    ++disk_;
}

std::optional<VerifyCheck> VerifyCore::next(TimePoint now, bool guest_busy) {
  const bool all_out = again_.empty() && disk_ == sizes_.size();
  const bool window_full =
      guest_busy ? in_flight_ > 0 : in_flight_bytes_ + check_bytes_max > in_flight_bytes_max;
  if (all_out || window_full || now < next_at_) return std::nullopt;
  VerifyCheck check;
  if (!again_.empty()) {
    check = again_.front();
    again_.pop_front();
  } else {
    check.disk = disk_;
    check.offset = offset_;
    const std::uint64_t left = sizes_[disk_] - offset_;
    check.length = static_cast<std::uint32_t>(std::min<std::uint64_t>(left, check_bytes_max));
    offset_ += check.length;
    while (disk_ < sizes_.size() && offset_ == sizes_[disk_]) {
      ++disk_;
      offset_ = 0;
    }
  }
  ++in_flight_;
  in_flight_bytes_ += check.length;
  const std::uint64_t rate = guest_busy ? std::max<std::uint64_t>(rate_ / busy_share, 1) : rate_;
  next_at_ = std::max(next_at_, now - burst) + time_for(check.length, rate);
  return check;
}

void VerifyCore::done(const VerifyCheck& check, const CheckOutcome& outcome) {
  HAVM_ASSERT(in_flight_ > 0, "a check ended that was not handed out");
  --in_flight_;
  in_flight_bytes_ -= check.length;
  if (!check.again) done_bytes_ += check.length;
  const std::uint32_t bits = outcome.local_error != 0 ? UINT32_MAX : outcome.differing;
  for_each_run(check.offset, check.length, bits, [&](const ByteRange& run) {
    if (!check.again) {
      again_.push_back({check.disk, run.offset, static_cast<std::uint32_t>(run.length), true});
      return;
    }
    VerifyMismatch found{check.disk, run.offset, run.length, MismatchReason::different,
                         outcome.repaired};
    if (outcome.partner_error != 0) found.reason = MismatchReason::unreadable_there;
    if (outcome.local_error != 0) found.reason = MismatchReason::unreadable_here;
    count(found);
  });
}

void VerifyCore::count(const VerifyMismatch& found) {
  mismatch_bytes_ += found.length;
  if (found.repaired) repaired_bytes_ += found.length;
  const bool goes_on = last_ && last_->disk == found.disk && last_->reason == found.reason &&
                       last_->repaired == found.repaired &&
                       last_->offset + last_->length == found.offset;
  if (goes_on) {
    last_->length += found.length;
  } else {
    ++mismatch_count_;
    last_ = found;
  }
  if (mismatch_count_ > mismatches_max) return;
  mismatches_.resize(static_cast<std::size_t>(mismatch_count_));
  mismatches_.back() = *last_;
}

bool VerifyCore::finished() const {
  return in_flight_ == 0 && again_.empty() && disk_ == sizes_.size();
}

}  // namespace havm
