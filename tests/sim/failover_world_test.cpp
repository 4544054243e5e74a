// Random faults against the production failover core; see failover_world.hpp. One seed replays
// exactly.
#include "tests/sim/failover_world.hpp"

#include <cstdlib>

#include <gtest/gtest.h>

namespace havm::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Mutation = FailoverWorld::Mutation;

void settle(FailoverWorld& world) {
  world.heal();
  for (int i = 0; i < 240 && !world.protected_and_running(); ++i)
    world.run_for(milliseconds(500));
}

std::uint64_t seeds() {
  const char* text = std::getenv("HAVM_SIM_SEEDS");
  return text ? std::strtoull(text, nullptr, 10) : 2000;
}

std::uint64_t first_seed() {
  const char* text = std::getenv("HAVM_SIM_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 1;
}

int pick(FailoverWorld& w, int n) {
  return std::uniform_int_distribution<int>(0, n - 1)(w.random());
}

void one_fault(FailoverWorld& w) {
  const int n = pick(w, 2);
  switch (pick(w, 9)) {
    case 0:
      return w.power_cut(n);
    case 1:
      return w.kill_agent(n);
    case 2:
      return w.start_agent(n);
    case 3:
      return w.restart_engine(n);
    case 4:
      return w.cut_links(true);
    case 5:
      return w.cut_arbiter(n, true);
    case 6:
      return w.cut_links(false);
    case 7:
      return w.slow_partner(true);
    default:
      return w.deliver(n, Requested{Wish::failover});
  }
}

// Faults are most telling while a swap is on its way.
void until_swapping(FailoverWorld& w) {
  const auto swapping = [&](int n) {
    const auto& action = w.node(n).core.storage_pending;
    return action && std::holds_alternative<CompareAndSwap>(*action);
  };
  for (int i = 0; i < 200 && !swapping(0) && !swapping(1); ++i)
    w.run_for(milliseconds(50));
}

// One power cut at a time at most (the promise is for any single fault), anything else as often as
// it likes.
void random_run(FailoverWorld& w) {
  settle(w);
  for (int round = 0; round < 4 && w.violations().empty(); ++round) {
    const int faults = 1 + pick(w, 4);
    bool cut = false;
    for (int i = 0; i < faults; ++i) {
      const bool both_up = w.node(0).powered && w.node(1).powered;
      if (!cut && both_up) {
        one_fault(w);
      } else {
        w.cut_arbiter(pick(w, 2), pick(w, 2) == 0);
        if (cut && pick(w, 3) == 0) w.boot(0), w.boot(1);
      }
      cut = cut || !w.node(0).powered || !w.node(1).powered;
      if (pick(w, 2) == 0) {
        w.run_for(milliseconds(50 + pick(w, 9000)));
      } else {
        until_swapping(w);
      }
    }
    settle(w);
  }
}

TEST(FailoverWorld, A_protected_VM_gets_in_sync_and_stays_quiet) {
  FailoverWorld w(1);
  settle(w);
  EXPECT_TRUE(w.protected_and_running()) << w.timeline();
  const Epoch epoch = w.reg().epoch;
  w.run_for(seconds(60));
  EXPECT_EQ(epoch, w.reg().epoch) << w.timeline();
}

TEST(FailoverWorld, A_power_cut_of_the_owner_costs_about_one_lease) {
  FailoverWorld w(2);
  settle(w);
  w.power_cut(0);
  int waited_ms = 0;
  while (!w.running(1) && waited_ms < 20000) {
    w.run_for(milliseconds(50));
    waited_ms += 50;
  }
  EXPECT_TRUE(w.running(1)) << w.timeline();
  EXPECT_LE(waited_ms, 7000) << w.timeline();
  EXPECT_GE(waited_ms, 5900) << "nobody may run before the old lease ended\n" << w.timeline();
  settle(w);
  EXPECT_TRUE(w.protected_and_running()) << w.timeline();
}

TEST(FailoverWorld, A_failover_by_hand_needs_no_lease_wait) {
  FailoverWorld w(3);
  settle(w);
  w.deliver(0, Requested{Wish::failover});
  int waited_ms = 0;
  while (!w.running(1) && waited_ms < 20000) {
    w.run_for(milliseconds(50));
    waited_ms += 50;
  }
  EXPECT_LE(waited_ms, 3000) << w.timeline();
  settle(w);
  EXPECT_TRUE(w.protected_and_running()) << w.timeline();
  EXPECT_EQ(1, w.reg().owner);
}

TEST(FailoverWorld, A_cut_of_all_links_with_the_arbiter_seen_by_both_moves_nothing) {
  FailoverWorld w(4);
  settle(w);
  w.cut_links(true);
  w.run_for(seconds(60));
  EXPECT_EQ(0, w.reg().owner) << w.timeline();
  EXPECT_TRUE(w.running(0)) << w.timeline();
}

// What completed is on the partner; the disk that failed holds nothing that counts any more.
TEST(FailoverWorld, A_failed_disk_of_the_owner_moves_the_VM) {
  for (std::uint64_t seed = 100; seed < 150; ++seed) {
    FailoverWorld w(seed);
    settle(w);
    const bool arbiter_away_from_owner = seed % 2 == 0;
    if (arbiter_away_from_owner) w.cut_arbiter(0, true);
    w.run_for(milliseconds(50 + pick(w, 1000)));
    w.fail_disk(0);
    for (int i = 0; i < 200 && !w.running(1); ++i)
      w.run_for(milliseconds(50));
    ASSERT_TRUE(w.running(1)) << "seed " << seed << "\n" << w.timeline();
    EXPECT_FALSE(w.node(0).vm_exists) << "seed " << seed << "\n" << w.timeline();
    const long before = w.acked();
    w.run_for(seconds(5));
    EXPECT_GT(w.acked(), before) << "seed " << seed << "\n" << w.timeline();
    settle(w);
    ASSERT_TRUE(w.protected_and_running()) << "seed " << seed << "\n" << w.timeline();
    EXPECT_EQ(1, w.reg().owner);
  }
}

TEST(FailoverWorld, A_failed_disk_of_the_partner_costs_the_guest_no_more_than_a_pause) {
  for (std::uint64_t seed = 100; seed < 150; ++seed) {
    FailoverWorld w(seed);
    settle(w);
    w.fail_disk(1);
    w.run_for(seconds(3));
    const long before = w.acked();
    w.run_for(seconds(5));
    EXPECT_GT(w.acked(), before) << "seed " << seed << "\n" << w.timeline();
    EXPECT_FALSE(w.reg().in_sync[1]) << w.timeline();
    EXPECT_TRUE(w.running(0) && w.reg().owner == 0) << w.timeline();
    settle(w);
    ASSERT_TRUE(w.protected_and_running()) << "seed " << seed << "\n" << w.timeline();
  }
}

// Nobody else holds what completed: nothing is failed, killed or told to be done.
TEST(FailoverWorld, A_failed_disk_of_an_owner_alone_holds_the_guest) {
  FailoverWorld w(16);
  settle(w);
  w.power_cut(1);
  w.run_for(seconds(20));
  ASSERT_TRUE(w.running(0)) << w.timeline();
  w.fail_disk(0);
  w.run_for(seconds(1));
  const long before = w.acked();
  w.run_for(seconds(30));
  EXPECT_EQ(w.acked(), before) << w.timeline();
  EXPECT_TRUE(w.node(0).vm_exists) << w.timeline();
  EXPECT_EQ(w.node(0).core.phase, "held") << w.timeline();
  w.restart_engine(0);
  w.run_for(seconds(10));
  EXPECT_GT(w.acked(), before) << w.timeline();
  settle(w);
  EXPECT_TRUE(w.protected_and_running()) << w.timeline();
}

TEST(FailoverWorld, A_slow_partner_is_left_and_comes_back) {
  FailoverWorld w(14);
  settle(w);
  const long before = w.acked();
  w.slow_partner(true);
  w.run_for(seconds(3));
  EXPECT_EQ(0, w.reg().owner) << w.timeline();
  EXPECT_FALSE(w.reg().in_sync[1]) << w.timeline();
  EXPECT_TRUE(w.running(0)) << w.timeline();
  EXPECT_GT(w.acked(), before) << w.timeline();
  settle(w);
  EXPECT_TRUE(w.protected_and_running()) << w.timeline();
}

// Leaving it would hold all I/O until the arbiter is back: slow is better than nothing.
TEST(FailoverWorld, A_slow_partner_is_waited_for_while_the_arbiter_is_away) {
  FailoverWorld w(15);
  settle(w);
  const Epoch epoch = w.reg().epoch;
  w.cut_arbiter(0, true);
  w.run_for(seconds(2));
  w.slow_partner(true);
  w.run_for(seconds(10));
  EXPECT_EQ(epoch, w.reg().epoch) << w.timeline();
  EXPECT_TRUE(w.protected_and_running()) << w.timeline();
  w.cut_arbiter(0, false);
  w.run_for(seconds(3));
  EXPECT_FALSE(w.reg().in_sync[1]) << w.timeline();
  EXPECT_TRUE(w.running(0)) << w.timeline();
  settle(w);
  EXPECT_TRUE(w.protected_and_running()) << w.timeline();
}

TEST(FailoverWorld, Both_hosts_power_cycled_come_back) {
  FailoverWorld w(5);
  settle(w);
  w.power_cut(1);
  w.power_cut(0);
  w.run_for(seconds(1));
  settle(w);
  EXPECT_TRUE(w.protected_and_running()) << w.timeline();
}

TEST(FailoverWorld, Random_faults_lose_nothing_run_nothing_twice_and_heal) {
  for (std::uint64_t seed = first_seed(); seed < first_seed() + seeds(); ++seed) {
    FailoverWorld w(seed);
    random_run(w);
    ASSERT_TRUE(w.violations().empty()) << "seed " << seed << ": " << w.violations().front() << "\n"
                                        << w.timeline();
    ASSERT_TRUE(w.protected_and_running()) << "seed " << seed << " did not heal\n" << w.timeline();
  }
}

// Each once failed: a hole in the rules or in the world that judges them
// (docs/protocol/failover.md).
TEST(FailoverWorld, Seeds_that_once_failed_stay_clean) {
  for (const std::uint64_t seed : {228, 284, 539, 2851, 12961, 14234, 99792, 767867}) {
    FailoverWorld w(seed);
    random_run(w);
    EXPECT_TRUE(w.violations().empty() && w.protected_and_running()) << "seed " << seed << "\n"
                                                                     << w.timeline();
  }
}

// The partner's engine ends while the swap to both is on its way, then the owner loses its power.
void lose_both_while_growing(FailoverWorld& w) {
  const auto growing = [&] {
    const auto& action = w.node(0).core.storage_pending;
    const auto* cas = action ? std::get_if<CompareAndSwap>(&*action) : nullptr;
    return cas && cas->to.both();
  };
  for (int i = 0; i < 400 && !growing(); ++i)
    w.run_for(milliseconds(50));
  w.restart_engine(1);
  for (int i = 0; i < 100 && !w.reg().in_sync[1]; ++i)
    w.run_for(milliseconds(50));
  w.power_cut(0);
  w.run_for(seconds(20));
  settle(w);
}

TEST(FailoverWorld, Losing_both_while_growing_loses_nothing) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    FailoverWorld w(seed);
    lose_both_while_growing(w);
    ASSERT_TRUE(w.violations().empty() && w.protected_and_running()) << "seed " << seed << "\n"
                                                                     << w.timeline();
  }
}

// The checkers must notice a broken engine.
class BrokenWorld : public testing::TestWithParam<Mutation> {};

TEST_P(BrokenWorld, is_noticed) {
  for (std::uint64_t seed = 1; seed <= 3000; ++seed) {
    FailoverWorld w(seed, GetParam());
    if (GetParam() == Mutation::ack_alone_while_growing) {
      lose_both_while_growing(w);
    } else {
      random_run(w);
    }
    if (!w.violations().empty()) return;
  }
  FAIL() << "no seed showed a violation";
}

INSTANTIATE_TEST_SUITE_P(Mutations, BrokenWorld,
                         testing::Values(Mutation::ack_without_partner, Mutation::ack_before_shrink,
                                         Mutation::ack_alone_while_growing,
                                         Mutation::no_lease_wait),
                         [](const auto& p) {
                           switch (p.param) {
                             case Mutation::ack_without_partner:
                               return "ack_without_partner";
                             case Mutation::ack_before_shrink:
                               return "ack_before_shrink";
                             case Mutation::ack_alone_while_growing:
                               return "ack_alone_while_growing";
                             case Mutation::no_lease_wait:
                               return "no_lease_wait";
                             default:
                               return "none";
                           }
                         });

}  // namespace
}  // namespace havm::sim
