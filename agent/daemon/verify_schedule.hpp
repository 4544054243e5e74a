// The job of the verify schedule: choose which VM of this node is verified next by its policy
// ("verify": {"every": "7d"}). Pure.
//
// Guarantees
//  1. One verify at a time on a node; none while one runs, also one that a person began.
//  2. Only a VM that this node owns, with both replicas in sync, whose last complete verify ended
//     its policy's time ago or longer; the one that has waited longest first.
//  3. After an attempt, whatever came of it, the next of the same VM is retry_delay later at the
//     earliest.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace havm {

struct VerifyCandidate {
  std::string vm;
  std::optional<std::chrono::milliseconds> every;  // of the policy; nothing: never
  bool live = false;                               // owned by this node, session live
  bool running = false;                            // a verify of it
  std::int64_t completed_ms = 0;                   // wall time; 0: never
  std::int64_t attempted_ms = 0;                   // wall time; 0: not since the start
};

constexpr std::chrono::minutes verify_retry_delay{10};

// The VM whose verify is to start now.
std::optional<std::string> due_verify(const std::vector<VerifyCandidate>& candidates,
                                      std::int64_t now_ms);

}  // namespace havm
