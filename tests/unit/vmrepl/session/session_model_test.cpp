#include "tests/unit/vmrepl/session/session_model.hpp"

#include <gtest/gtest.h>

namespace havm {
namespace {

class SessionModelTest : public testing::TestWithParam<unsigned> {};

TEST_P(SessionModelTest, WhatWasCompletedIsWhereItShouldBe) {
  const ModelOutcome outcome = run_session_model(GetParam(), 4000);
  EXPECT_EQ(outcome.violation, "");
}

// A model that never gets live, or never shrinks, would prove nothing.
TEST(SessionModelReachTest, TheModelReachesWhatItIsAbout) {
  ModelOutcome sum;
  for (unsigned seed = 1; seed <= 20; ++seed) {
    const ModelOutcome one = run_session_model(seed, 4000);
    sum.completed_requests += one.completed_requests;
    sum.times_live += one.times_live;
    sum.times_shrunk_from_both += one.times_shrunk_from_both;
    sum.resyncs += one.resyncs;
    sum.resynced_bytes += one.resynced_bytes;
    sum.resent_bytes += one.resent_bytes;
    sum.verified += one.verified;
    sum.transactions += one.transactions;
  }
  EXPECT_GT(sum.completed_requests, 2000u);
  EXPECT_GT(sum.times_live, 30u);
  EXPECT_GT(sum.times_shrunk_from_both, 20u);
  EXPECT_GT(sum.transactions, 900u);
  EXPECT_GT(sum.verified, 80u);
  EXPECT_LT(sum.resent_bytes, sum.resynced_bytes / 2);
  // Far from whole disks (20 MiB) each time, although a quarter of the runs begins with that.
  EXPECT_LT(sum.resynced_bytes, sum.resyncs * (12U << 20));
}

INSTANTIATE_TEST_SUITE_P(Seeds, SessionModelTest, testing::Range(1u, 101u));

}  // namespace
}  // namespace havm
