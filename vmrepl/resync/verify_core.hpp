// The job of VerifyCore: choose which range a verify compares next and when, over all disks of one
// VM, and count what was found. Pure. PrimaryCore orders each check among the guest's writes.
//
// Guarantees
//  1. Every byte of every disk is handed out once, in rising order, and what differed is handed out
//     a second time: only what differs then too is a mismatch.
//  2. At most in_flight_bytes_max are in flight, and no more than the rate allows are handed out.
//     While the guest has requests: one check at a time, at a busy_share-th of the rate.
//  3. finished() only when everything was handed out and reported done. The counts are exact; the
//     list is bounded.
// One thread. Bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "vmrepl/base/clock.hpp"
#include "vmrepl/resync/check_outcome.hpp"

namespace havm {

struct VerifyCheck {
  std::uint16_t disk = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  bool again = false;  // it differed; repaired when that is asked for and it still does
};

enum class MismatchReason : std::uint8_t { different, unreadable_here, unreadable_there };
const char* to_text(MismatchReason reason);

struct VerifyMismatch {
  std::uint16_t disk = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  MismatchReason reason = MismatchReason::different;
  bool repaired = false;
  bool operator==(const VerifyMismatch&) const = default;
};

class VerifyCore {
 public:
  static constexpr std::uint32_t check_bytes_max = 512U << 10;
  static constexpr std::uint64_t in_flight_bytes_max = 2U << 20;
  static constexpr std::size_t mismatches_max = 64;  // of the list
  static constexpr std::uint64_t busy_share = 10;
  // What was not used of the rate is lost after this.
  static constexpr std::chrono::milliseconds burst{20};

  // rate ≥ 1.
  VerifyCore(std::vector<std::uint64_t> disk_sizes, std::uint64_t rate_bytes_per_s, TimePoint now);

  // Hands out the next range; nothing when the window or the rate does not allow it now, or when
  // all is handed out.
  std::optional<VerifyCheck> next(TimePoint now, bool guest_busy);
  // When the rate allows the next one.
  [[nodiscard]] TimePoint next_at() const { return next_at_; }
  void done(const VerifyCheck& check, const CheckOutcome& outcome);

  [[nodiscard]] bool finished() const;
  [[nodiscard]] std::uint64_t total_bytes() const { return total_bytes_; }
  [[nodiscard]] std::uint64_t done_bytes() const { return done_bytes_; }
  [[nodiscard]] std::uint64_t mismatch_bytes() const { return mismatch_bytes_; }
  [[nodiscard]] std::uint64_t mismatch_count() const { return mismatch_count_; }
  [[nodiscard]] std::uint64_t repaired_bytes() const { return repaired_bytes_; }
  // The first mismatches_max; neighbours of one kind, found one after the other, are one.
  [[nodiscard]] const std::vector<VerifyMismatch>& mismatches() const { return mismatches_; }

 private:
  void count(const VerifyMismatch& found);

  std::vector<std::uint64_t> sizes_;
  std::uint64_t rate_;
  TimePoint next_at_;
  std::uint16_t disk_ = 0;  // the walk
  std::uint64_t offset_ = 0;
  std::deque<VerifyCheck> again_;
  std::size_t in_flight_ = 0;
  std::uint64_t in_flight_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
  std::uint64_t done_bytes_ = 0;
  std::uint64_t mismatch_bytes_ = 0;
  std::uint64_t mismatch_count_ = 0;
  std::uint64_t repaired_bytes_ = 0;
  std::optional<VerifyMismatch> last_;
  std::vector<VerifyMismatch> mismatches_;
};

}  // namespace havm
