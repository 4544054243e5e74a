// The job of Verdict: what one rule of the failover core answers: the phase that a person sees and
// one decision. A decision without an action only tells why nothing is done.
#pragma once

#include <string>
#include <utility>

#include "agent/failover/failover_state.hpp"

namespace havm {

struct Verdict {
  std::string phase;
  Decision decision;
};

inline Verdict wait(std::string phase, std::string reason) {
  return {std::move(phase), {"", std::move(reason), std::nullopt}};
}

inline Verdict act(std::string phase, std::string kind, std::string reason, Action action) {
  return {std::move(phase), {std::move(kind), std::move(reason), std::move(action)}};
}

}  // namespace havm
