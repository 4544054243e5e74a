// All histories, and the judge judged: with any rule switched off it must find what goes wrong.
#include "tests/unit/vmrepl/session/generation_model.hpp"

#include <cstdlib>

#include <gtest/gtest.h>

namespace havm {
namespace {

std::string joined(const std::vector<std::string>& trace) {
  std::string all;
  for (const std::string& event : trace)
    all += (all.empty() ? "" : ", ") + event;
  return all;
}

// HAVM_GENERATION_EVENTS=7 looks further than the default.
int depth() {
  const char* wanted = std::getenv("HAVM_GENERATION_EVENTS");
  return wanted != nullptr ? std::atoi(wanted) : 6;
}

class GenerationWalk : public testing::TestWithParam<Start> {};

TEST_P(GenerationWalk, NoHistoryLosesSplitsOrDiffers) {
  const WalkOutcome outcome = walk_generations(GetParam(), depth());
  EXPECT_EQ(outcome.violation, "") << "after " << joined(outcome.trace);
  std::printf(
      "start=%s histories=%llu events=%d states=%llu partial=%llu full=%llu refused=%llu "
      "compared=%llu\n",
      to_text(GetParam()), static_cast<unsigned long long>(outcome.histories), depth(),
      static_cast<unsigned long long>(outcome.states),
      static_cast<unsigned long long>(outcome.partial),
      static_cast<unsigned long long>(outcome.full),
      static_cast<unsigned long long>(outcome.refused),
      static_cast<unsigned long long>(outcome.ended));
  // A walk that never compares or refuses would prove nothing.
  EXPECT_GT(outcome.histories, 10'000u);
  EXPECT_GT(outcome.ended, 1000u);
  EXPECT_GT(outcome.partial, 1000u);
  EXPECT_GT(outcome.refused, GetParam() == Start::fresh ? 0u : 100u);
}

INSTANTIATE_TEST_SUITE_P(Starts, GenerationWalk,
                         testing::Values(Start::fresh, Start::live, Start::alone, Start::promoted,
                                         Start::syncing, Start::synced),
                         [](const auto& parameter) { return to_text(parameter.param); });

class GenerationMutant : public testing::TestWithParam<int> {};

TEST_P(GenerationMutant, IsNoticed) {
  const auto mutant = static_cast<Mutant>(GetParam());
  // Shallow walks first: the shortest history that shows it is found from some start.
  for (int events = 1; events <= 6; ++events) {
    for (int s = 0; s < static_cast<int>(Start::last_of_the_list); ++s) {
      const auto start = static_cast<Start>(s);
      const WalkOutcome outcome = walk_generations(start, events, mutant);
      if (outcome.violation.empty()) continue;
      std::printf("mutant=%s start=%s events=%d: %s after %s\n", to_text(mutant), to_text(start),
                  events, outcome.violation.c_str(), joined(outcome.trace).c_str());
      return;
    }
  }
  ADD_FAILURE() << to_text(mutant) << " survived";
}

INSTANTIATE_TEST_SUITE_P(Mutants, GenerationMutant,
                         testing::Range(1, static_cast<int>(Mutant::last_of_the_list)),
                         [](const auto& parameter) {
                           return to_text(static_cast<Mutant>(parameter.param));
                         });

}  // namespace
}  // namespace havm
