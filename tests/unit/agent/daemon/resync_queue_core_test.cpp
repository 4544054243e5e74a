// Whose turn it is: by table, and with two nodes that know each other by late reports only.
#include "agent/daemon/resync_queue_core.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace havm {
namespace {

using Entries = std::vector<QueuedResync>;
using testing::HasSubstr;

std::vector<std::string> going(std::size_t slots, const Entries& own,
                               const Entries& partners = {}) {
  std::vector<std::string> names;
  for (const QueueVerdict& v : decide_resync_queue(slots, own, partners))
    if (v.go) names.push_back(v.vm);
  return names;
}
using Names = std::vector<std::string>;

TEST(ResyncQueueTest, OneAtATimeByName) {
  EXPECT_EQ(going(1, {}), Names{});
  EXPECT_EQ(going(1, {{"web", false}, {"db", false}}), Names{"db"});
  EXPECT_EQ(going(2, {{"web", false}, {"db", false}, {"mail", false}}), (Names{"db", "mail"}));
  EXPECT_EQ(going(9, {{"web", false}, {"db", false}}), (Names{"web", "db"}));
}

TEST(ResyncQueueTest, OneThatCopiesIsNotInterrupted) {
  EXPECT_EQ(going(1, {{"web", true}, {"db", false}}), Names{"web"});
  EXPECT_EQ(going(1, {{"db", false}}, {{"web", true}}), Names{});
  EXPECT_EQ(going(2, {{"db", false}, {"a", false}}, {{"web", true}}), Names{"a"});
}

TEST(ResyncQueueTest, WhereTooManyCopyBothHoldBackTheSame) {
  EXPECT_EQ(going(1, {{"a", true}}, {{"b", true}}), Names{"a"});
  EXPECT_EQ(going(1, {{"b", true}}, {{"a", true}}), Names{});
}

TEST(ResyncQueueTest, TheOwnEngineIsBelieved) {
  EXPECT_EQ(going(1, {{"a", false}}, {{"a", true}}), Names{"a"});
}

TEST(ResyncQueueTest, WhoWaitsIsToldForWhom) {
  const auto verdicts = decide_resync_queue(1, {{"web", false}, {"mail", false}}, {{"db", true}});
  EXPECT_THAT(verdicts[0].reason, HasSubstr("behind VM 'mail'; 2 before it, 1 at a time"));
  EXPECT_THAT(verdicts[1].reason, HasSubstr("behind VM 'db'"));
}

// Each node carries out what it decided, and hears the other one's state of some rounds ago.
TEST(ResyncQueueTest, TwoNodesComeToAnEndWithLateReports) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    std::mt19937 random(seed);
    const std::size_t slots = 1 + random() % 3;
    struct Vm {
      unsigned left;
      bool copies;
    };
    std::array<std::map<std::string, Vm>, 2> nodes;
    for (unsigned i = 0; i < 12; ++i)
      nodes[random() % 2][std::string(1, static_cast<char>('a' + random() % 26))] = {
          static_cast<unsigned>(1 + random() % 8), random() % 8 == 0};
    for (const auto& [name, vm] : std::map<std::string, Vm>(nodes[0])) {
      static_cast<void>(vm);
      nodes[1].erase(name);
    }
    std::array<Entries, 2> reported;
    unsigned calm = 0;  // rounds since a report was late
    unsigned round = 0;
    const auto entries = [](const std::map<std::string, Vm>& vms) {
      Entries all;
      for (const auto& [name, vm] : vms)
        all.push_back({name, vm.copies});
      return all;
    };
    while ((!nodes[0].empty() || !nodes[1].empty()) && round < 1000) {
      ++round;
      const bool late = random() % 4 == 0;
      calm = late ? 0 : calm + 1;
      if (!late)
        for (const std::size_t n : {0U, 1U})
          reported[n] = entries(nodes[n]);
      for (const std::size_t n : {0U, 1U})
        for (const QueueVerdict& v : decide_resync_queue(slots, entries(nodes[n]), reported[1 - n]))
          nodes[n].at(v.vm).copies = v.go;
      std::size_t copying = 0;
      for (auto& vms : nodes)
        for (const auto& [name, vm] : vms)
          if (vm.copies) ++copying;
      if (calm >= 2) {
        EXPECT_LE(copying, slots) << "seed " << seed << " round " << round;
      }
      for (auto& vms : nodes)
        for (auto it = vms.begin(); it != vms.end();)
          it = it->second.copies && --it->second.left == 0 ? vms.erase(it) : std::next(it);
    }
    EXPECT_LT(round, 1000U) << "seed " << seed << ": somebody waits for ever";
  }
}

}  // namespace
}  // namespace havm
