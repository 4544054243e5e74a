#include "agent/witness/witness_core.hpp"

#include <gtest/gtest.h>

namespace havm {
namespace {

using namespace std::chrono_literals;

const Register both(Epoch(4), "a", {"a", "b"});

TEST(WitnessTypes, OnlySoundRegistersAreValid) {
  EXPECT_FALSE(register_problem(both));
  EXPECT_FALSE(register_problem(Register(Epoch(1), "a", {"a"})));
  const Register bad[] = {
      Register(Epoch(0), "a", {"a"}),      Register(Epoch(~0ULL), "a", {"a"}),
      Register(Epoch(1), "", {""}),        Register(Epoch(1), "a", {}),
      Register(Epoch(1), "a", {"b"}),      Register(Epoch(1), "a", {"b", "a"}),
      Register(Epoch(1), "a", {"a", "a"}), Register(Epoch(1), "a", {"a", "b", "c"}),
      Register(Epoch(1), "a\n", {"a\n"}),  Register(Epoch(1), "a", {"a", std::string(200, 'b')}),
  };
  for (const Register& value : bad)
    EXPECT_TRUE(register_problem(value)) << value.owner;
}

TEST(WitnessCore, SwapsOnlyTheExpectedValueAndOnlyUpwards) {
  const Register next(Epoch(5), "b", {"b"});
  EXPECT_TRUE(cas_applicable(both, both, next));
  EXPECT_FALSE(cas_applicable(next, both, next)) << "repeated after it was applied";
  EXPECT_FALSE(cas_applicable(both, both, Register(Epoch(4), "b", {"b"})));
  EXPECT_FALSE(cas_applicable(both, both, Register(Epoch(3), "b", {"b"})));
  EXPECT_FALSE(cas_applicable(both, Register(Epoch(4), "b", {"a", "b"}), next));
  EXPECT_FALSE(cas_applicable(both, Register(Epoch(4), "a", {"a"}), next));
}

TEST(WitnessCore, CreatesOnce) {
  EXPECT_EQ(decide_create(std::nullopt, both), CreateDecision::Create);
  EXPECT_EQ(decide_create(both, both), CreateDecision::AlreadyEqual);
  EXPECT_EQ(decide_create(both, Register(Epoch(4), "b", {"b"})), CreateDecision::Conflict);
}

TEST(WitnessCore, LeasesOnlyForOwnerAndEpoch) {
  EXPECT_FALSE(lease_refusal(both, "a", Epoch(4)));
  EXPECT_TRUE(lease_refusal(both, "b", Epoch(4)));
  EXPECT_TRUE(lease_refusal(both, "a", Epoch(3)));
  EXPECT_TRUE(lease_refusal(both, "a", Epoch(5)));
  EXPECT_TRUE(lease_refusal(std::nullopt, "a", Epoch(4)));
}

TEST(WitnessCore, AgesAreNeverTooLarge) {
  GrantLedger ledger;
  const RegisterKey key("c", "v");
  const TimePoint start = from_ns(1'000'000'000);
  EXPECT_FALSE(ledger.age(key, "a", start));
  ledger.record(key, "a", start + 10ms);
  ledger.record(key, "a", start + 5ms);  // handled late: the newer one counts
  EXPECT_EQ(ledger.age(key, "a", start + 30ms), Duration(20ms));
  EXPECT_EQ(ledger.age(key, "a", start), Duration(0));
  EXPECT_FALSE(ledger.age(key, "b", start + 30ms));
  EXPECT_FALSE(ledger.age(RegisterKey("d", "v"), "a", start + 30ms));
  EXPECT_EQ(ledger.ages(key, start + 30ms).size(), 1U);
}

}  // namespace
}  // namespace havm
