// The job of the session model: a pair, as PrimaryCore and SecondaryCore with memory disks, joined
// by a channel that delays, breaks and reconnects at random, under a random guest; and a judge,
// block by block:
//  - what was completed is on every replica that is, or may be, in-sync;
//  - what a completed flush (or FUA) covered survives a power cut of any such replica, whatever
//    subset of its unflushed writes survives;
//  - a read never returns something older than what had completed before it was asked for;
//  - wherever the replicas may differ after a crash, the owner's bitmap or activity log tells;
//  - in the end everything completes and both replicas are equal.
#pragma once

#include <cstdint>
#include <string>

namespace havm {

struct ModelOutcome {
  std::string violation;  // the first one; empty: none
  std::uint64_t completed_requests = 0;
  std::uint64_t times_live = 0;
  std::uint64_t resyncs = 0;
  std::uint64_t resynced_bytes = 0;
  std::uint64_t resent_bytes = 0;  // of those: the others were zeroes, or equal by their checksums
  std::uint64_t verified = 0;      // ranges compared while live
  std::uint64_t transactions = 0;  // of the activity log
  std::uint64_t times_shrunk_from_both = 0;
};

ModelOutcome run_session_model(unsigned seed, int steps);

}  // namespace havm
