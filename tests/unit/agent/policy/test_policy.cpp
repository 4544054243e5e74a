#include <gtest/gtest.h>

#include "agent/policy/json_document.hpp"
#include "agent/policy/policy.hpp"
#include "tests/unit/agent/policy/finding_matchers.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::UnorderedElementsAre;

std::vector<Finding> check(const std::string& text) {
  Findings findings;
  const auto policy = parse_policy(text, findings);
  EXPECT_EQ(policy.has_value(), findings.empty());
  return findings.list();
}

TEST(Policy, OnlyTheVersionIsNeeded) {
  Findings findings;
  EXPECT_EQ(parse_policy(R"({"version": 1})", findings), Policy{});
  EXPECT_THAT(check("{}"), ElementsAre(finding("", "the key \"version\" is missing")));
}

TEST(Policy, EveryCombinationSurvivesARoundTrip) {
  for (const auto mode : {FailoverMode::automatic, FailoverMode::manual})
    for (const auto loss : {OnPeerLoss::go_on, OnPeerLoss::freeze})
      for (const auto off : {OnGuestShutdown::stay_off, OnGuestShutdown::restart})
        for (const auto& node : {std::optional<std::string>(), std::optional<std::string>("b")}) {
          Policy policy{mode, loss, off, node, {}};
          policy.slow_partner = std::chrono::milliseconds(node ? 1500 : 0);
          Findings findings;
          EXPECT_EQ(parse_policy(policy_to_json(policy).dump(), findings), policy);
          EXPECT_THAT(texts(findings), ElementsAre());
        }
}

TEST(Policy, WordsInTheFile) {
  Policy policy{FailoverMode::manual, OnPeerLoss::freeze, OnGuestShutdown::restart, "b", {}};
  policy.slow_partner = std::chrono::milliseconds(500);
  EXPECT_EQ(policy_to_json(policy), json::parse(R"({
    "version": 1, "failover": {"mode": "manual"},
    "replication": {"on_peer_loss": "freeze", "slow_partner": "500ms"},
    "guest": {"on_guest_shutdown": "restart"}, "preferred_node": "b"})"));
}

TEST(Policy, HowOftenToVerify) {
  const auto every = [](const std::string& text) {
    Findings findings;
    const auto policy =
        parse_policy(R"({"version": 1, "verify": {"every": ")" + text + R"("}})", findings);
    return policy ? policy->verify_every : std::nullopt;
  };
  EXPECT_EQ(every("7d"), std::chrono::hours(7 * 24));
  EXPECT_EQ(every("12h"), std::chrono::hours(12));
  EXPECT_EQ(every("90min"), std::chrono::minutes(90));
  for (const char* bad : {"", "7", "0d", "7w", "60s", "-1d", "1.5h", "1000000d"})
    EXPECT_EQ(every(bad), std::nullopt) << bad;
  for (const char* text : {"7d", "36h", "90min", "1h", "999999min"}) {
    Policy policy;
    policy.verify_every = every(text);
    const json document = policy_to_json(policy);
    EXPECT_EQ(document["verify"]["every"], text);
    Findings findings;
    EXPECT_EQ(policy_from_json(document, findings), policy);
  }
  EXPECT_THAT(check(R"({"version": 1, "verify": {}})"),
              ElementsAre(finding("/verify", "\"every\" is missing")));
  EXPECT_THAT(check(R"({"version": 1, "verify": {"every": "weekly"}})"),
              ElementsAre(finding("/verify/every", "found \"weekly\"")));
}

TEST(Policy, EveryMistakeAtOnce) {
  EXPECT_THAT(check(R"({"version": 7, "failover": {"mode": "automatic", "mod": 1},
                        "replication": [], "geust": {}, "preferred_node": "B"})"),
              UnorderedElementsAre(finding("/version", "found 7"),
                                   finding("/failover/mode", "found \"automatic\""),
                                   finding("/failover/mod", "did you mean \"mode\"?"),
                                   finding("/replication", "expected an object {\"on_peer_loss\""),
                                   finding("/geust", "did you mean \"guest\"?"),
                                   finding("/preferred_node", "found \"B\"")));
}

TEST(Policy, WhatIsNoBoundOfASlowPartner) {
  for (const char* text : {"49ms", "21s", "0ms", "1min"})
    EXPECT_THAT(
        check(std::string(R"({"version": 1, "replication": {"slow_partner": ")") + text + "\"}}"),
        ElementsAre(finding("/replication/slow_partner", "50ms..20s")))
        << text;
  EXPECT_THAT(check(R"({"version": 1, "replication": {"slow_partner": "2"}})"),
              ElementsAre(finding("/replication/slow_partner", "50ms to 20s")));
  EXPECT_THAT(check(R"({"version": 1, "replication": {"slow_partner": "off"}})"), ElementsAre());
}

TEST(Policy, MalformedText) {
  EXPECT_THAT(check("{\"version\": 1,}"), ElementsAre(finding("", "not valid JSON at line 1")));
  EXPECT_THAT(check(R"({"version": 1, "version": 1})"), ElementsAre(finding("/version", "twice")));
}

TEST(Policy, ExampleFileIsTheDefault) {
  const auto text = read_file(HAVM_SOURCE_DIR "/conf/policy.example.json");
  ASSERT_TRUE(text.has_value());
  Findings findings;
  EXPECT_EQ(parse_policy(text.value(), findings), Policy{});
  EXPECT_EQ(policy_to_json(Policy{}), json::parse(text.value()));
}

TEST(Policy, BuiltInSchemaIsTheFileOfConf) {
  const auto text = read_file(HAVM_SOURCE_DIR "/conf/schema/policy-1.json");
  ASSERT_TRUE(text.has_value());
  EXPECT_EQ(text.value(), policy_schema);
}

}  // namespace
}  // namespace havm
