#include "agent/daemon/verify_schedule.hpp"

#include <algorithm>

namespace havm {

std::optional<std::string> due_verify(const std::vector<VerifyCandidate>& candidates,
                                      std::int64_t now_ms) {
  using std::chrono::milliseconds;
  if (std::ranges::any_of(candidates, &VerifyCandidate::running)) return std::nullopt;
  const VerifyCandidate* first = nullptr;
  for (const VerifyCandidate& c : candidates) {
    if (!c.every || !c.live) continue;
    const milliseconds retry = verify_retry_delay;
    // A clock that was set back must not put a verify off for ever.
    const auto passed = [now_ms](std::int64_t since, milliseconds time) {
      return since == 0 || since > now_ms || now_ms - since >= time.count();
    };
    if (!passed(c.completed_ms, *c.every) || !passed(c.attempted_ms, retry)) continue;
    if (first == nullptr || c.completed_ms < first->completed_ms) first = &c;
  }
  if (first == nullptr) return std::nullopt;
  return first->vm;
}

}  // namespace havm
