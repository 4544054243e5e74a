// The job of VerifyDriver: run a verify of one VM at the pace of VerifyCore: when each check
// starts, what its end means, what of it is told.
//
// Guarantees
//  1. Every mismatch that was confirmed is logged as an error (the first of them one by one) and is
//     in status() at once, also when the verify ends early.
//  2. `repaired` is the result only after both replicas have flushed what was sent.
//  3. It ends with exactly one result; what ends of an earlier run is not counted.
// One thread: the engine's executor. Bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>

#include "vmrepl/base/clock.hpp"
#include "vmrepl/resync/verify_core.hpp"

namespace havm {

// The last or the running verify since the engine started.
struct VerifyStatus {
  std::string id;  // of this run, random; empty: there was none
  bool running = false;
  bool repair = false;
  std::uint64_t total_bytes = 0;
  std::uint64_t done_bytes = 0;
  std::uint64_t rate_bytes_per_s = 0;
  std::uint64_t mismatch_bytes = 0;
  std::uint64_t mismatch_count = 0;
  std::uint64_t repaired_bytes = 0;
  std::vector<VerifyMismatch> mismatches;
  TimePoint started;
  TimePoint finished;
  std::string result;  // clean, mismatch, repaired, cancelled, interrupted; empty while it runs
  std::string reason;  // one sentence for a person
};

class VerifyDriver {
 public:
  static constexpr std::uint64_t default_rate_bytes_per_s = 100U << 20;

  struct Hooks {
    // Ends with checked() of the same run.
    std::function<void(std::uint64_t run, const VerifyCheck& check, bool repair)> check;
    // Ends with flushed() of the same run.
    std::function<void(std::uint64_t run, std::uint16_t disk)> flush;
    std::function<bool()> guest_busy;
    // It started or ended, a mismatch was found, or (once a second) it went on.
    std::function<void()> changed;
  };

  VerifyDriver(boost::asio::any_io_executor executor, std::string vm,
               std::vector<std::string> disk_names, std::vector<std::uint64_t> disk_sizes,
               Hooks hooks);

  // Only while none runs.
  void start(bool repair, std::uint64_t rate_bytes_per_s);
  void cancel();
  void session_lost(const std::string& reason);
  // `error`: ECANCELED because the session went away.
  void checked(std::uint64_t run, const VerifyCheck& check, int error, const CheckOutcome& outcome);
  void flushed(std::uint64_t run, int error);

  [[nodiscard]] const VerifyStatus& status() const { return status_; }

 private:
  void go_on();
  void wait(TimePoint until);
  void note(TimePoint now);
  void end_if_finished();
  void end(const std::string& result, const std::string& reason);

  std::string vm_;
  std::vector<std::string> names_;
  std::vector<std::uint64_t> sizes_;
  Hooks hooks_;
  std::optional<VerifyCore> core_;  // while it runs
  std::uint64_t run_ = 0;
  std::size_t flushes_left_ = 0;
  VerifyStatus status_;
  TimePoint noted_at_;
  std::uint64_t noted_bytes_ = 0;
  boost::asio::steady_timer timer_;
};

}  // namespace havm
