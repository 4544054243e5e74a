// The torture runs of ./dev torture engine, with a budget for every day.
#include <gtest/gtest.h>

#include "tests/torture/runs.hpp"

namespace havm::torture {
namespace {

constexpr std::uint64_t seeds = 80;
constexpr std::uint64_t mutant_seeds_max = 40;

TEST(EngineTortureTest, NothingPromisedIsLostAndNothingDiverges) {
  const Summary sum = run_seeds(1, seeds, [](std::uint64_t seed, const std::string& what) {
    ADD_FAILURE() << what << "\nreplay: engine_torture --seed " << seed << " --verbose";
  });
  EXPECT_TRUE(sum.clean());
  RecordProperty("summary", to_text(sum));
  // Runs that never come to what they are about would prove nothing.
  const Reach& r = sum.reach;
  EXPECT_GT(r.completed_writes, 30 * seeds);
  EXPECT_GT(r.completed_flushes, 3 * seeds);
  EXPECT_GT(r.power_cuts, seeds);
  EXPECT_GT(r.kills, seeds / 4);
  EXPECT_GT(r.clean_ends, seeds / 4);
  EXPECT_GT(r.promotions, seeds / 10);
  EXPECT_GT(r.shrinks, seeds / 4);
  EXPECT_GT(r.grows, seeds);
  EXPECT_GT(r.partial_resyncs, seeds);
  EXPECT_GT(r.full_resyncs, seeds / 8);
  EXPECT_GT(r.cut_resyncs, 0U);
  EXPECT_GT(r.equal_copies, 2 * seeds);
  EXPECT_GT(r.partial_copies, 0U);
  EXPECT_GT(r.verifies, seeds);
  EXPECT_GT(r.full_logs, seeds);
}

TEST(EngineTortureTest, ASeedReplaysExactly) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const Outcome first = World(seed, true).run();
    const Outcome second = World(seed, true).run();
    EXPECT_EQ(first.timeline, second.timeline);
    EXPECT_GT(first.timeline.size(), 1000u);
  }
}

// Most mutants are noticed within a few seeds. What these do matters only when several rare things
// come together: the search begins shortly before a seed in which they do.
std::uint64_t first_seed(Rule rule) {
  switch (rule) {
    case Rule::acked_is_not_durable:
      return 105;
    case Rule::promise_ends_session:
      return 2054;
    case Rule::hello_below_promise:
      return 3017;
    case Rule::suspect_stays:
      return 955;
    default:
      return 1;
  }
}

class MutantTest : public testing::TestWithParam<Mutant> {};

TEST_P(MutantTest, IsNoticed) {
  const Sentence sentence = try_mutant(GetParam(), first_seed(GetParam().rule), mutant_seeds_max);
  EXPECT_TRUE(sentence.killed) << "an engine that " << GetParam().what << " passed "
                               << sentence.seeds << " seeds";
}

INSTANTIATE_TEST_SUITE_P(Rules, MutantTest, testing::ValuesIn(mutants()),
                         [](const testing::TestParamInfo<Mutant>& mutant) {
                           return "Rule" + std::string(mutant.param.number) + "_" +
                                  std::to_string(mutant.index);
                         });

TEST(MutantsTest, EveryRuleOfTheEngineHasOne) {
  EXPECT_EQ(mutants().size(), static_cast<std::size_t>(Rule::count) - 1);
}

}  // namespace
}  // namespace havm::torture
