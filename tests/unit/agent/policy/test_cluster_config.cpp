#include <gtest/gtest.h>

#include "agent/policy/cluster_config.hpp"
#include "agent/policy/json_document.hpp"
#include "tests/unit/agent/policy/finding_matchers.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

json valid() {
  return json::parse(R"({
    "version": 1, "cluster": "demo",
    "nodes": {"a": {"links": ["10.0.0.1", "10.0.1.1"]}, "b": {"links": ["10.0.0.2", "10.0.1.2"]}},
    "witness": {"address": "10.0.2.9"}
  })");
}

std::vector<Finding> check(const json& document) {
  Findings findings;
  const auto config = parse_cluster_config(document.dump(), findings);
  EXPECT_EQ(config.has_value(), findings.empty());
  return findings.list();
}

TEST(ClusterConfig, ReadsEverything) {
  json document = valid();
  document["witness"]["port"] = 1234;
  document["timing"] = json::parse(R"({"profile": "slow", "lease": "30s", "drift_ppm": 5})");
  document["ports"] = json::parse(
      R"({"heartbeat": 5000, "peer": 5001, "replication": {"first": 6000, "last": 6001}})");
  document["replication"] = json::parse(R"({"resyncs_at_once": 3, "guest_p99": "10ms"})");
  Findings findings;
  const auto config = parse_cluster_config(document.dump(), findings);
  ASSERT_THAT(texts(findings), ElementsAre());
  EXPECT_EQ(config->resyncs_at_once, 3U);
  EXPECT_EQ(config->guest_p99, milliseconds(10));
  EXPECT_EQ(config->name, "demo");
  EXPECT_THAT(config->nodes.at("a").links, ElementsAre("10.0.0.1", "10.0.1.1"));
  EXPECT_EQ(config->witness, (WitnessEndpoint{"10.0.2.9", 1234}));
  EXPECT_EQ(config->timing.lease, milliseconds(30'000));
  EXPECT_EQ(config->timing.heartbeat_interval, milliseconds(1000));
  EXPECT_EQ(config->timing.drift_ppm, 5);
  EXPECT_EQ(config->ports.heartbeat, 5000);
  EXPECT_EQ(config->ports.peer, 5001);
  EXPECT_EQ(config->ports.replication, (PortRange{6000, 6001}));
  EXPECT_EQ(config->partner_of("a").name, "b");
  EXPECT_EQ(config->partner_of("b").name, "a");
  EXPECT_EQ(config->find_node("c"), nullptr);
}

TEST(ClusterConfig, TheLatencyOfGuestsHasBounds) {
  json document = valid();
  for (const char* good : {"1ms", "60s", "1min"}) {
    document["replication"]["guest_p99"] = good;
    EXPECT_TRUE(check(document).empty()) << good;
  }
  for (const char* bad : {"0ms", "61s", "2min", "5"}) {
    document["replication"]["guest_p99"] = bad;
    EXPECT_EQ(check(document).size(), 1U) << bad;
  }
}

TEST(ClusterConfig, AtLeastOneResyncAtATime) {
  json document = valid();
  Findings none;
  EXPECT_EQ(parse_cluster_config(document.dump(), none)->resyncs_at_once, 1U);
  for (const char* bad : {"0", "65", "-1", "1.5", "\"2\""}) {
    document["replication"]["resyncs_at_once"] = json::parse(bad);
    EXPECT_EQ(check(document).size(), 1U) << bad;
  }
}

TEST(ClusterConfig, DefaultsOfWhatIsMissing) {
  json document = valid();
  document.erase("witness");
  Findings findings;
  const auto config = parse_cluster_config(document.dump(), findings);
  ASSERT_THAT(texts(findings), ElementsAre());
  EXPECT_EQ(config->witness, std::nullopt);
  EXPECT_EQ(config->timing, Timing{});
  EXPECT_EQ(config->ports, ClusterPorts{});
  EXPECT_EQ(config->transport, Transport::tls);
}

TEST(ClusterConfig, PlainTcpOnlyWhenSaid) {
  json document = valid();
  for (const auto& [text, transport] :
       {std::pair(R"({})", Transport::tls), std::pair(R"({"transport": "tls"})", Transport::tls),
        std::pair(R"({"transport": "plain"})", Transport::plain)}) {
    document["security"] = json::parse(text);
    Findings findings;
    const auto config = parse_cluster_config(document.dump(), findings);
    ASSERT_THAT(texts(findings), ElementsAre());
    EXPECT_EQ(config->transport, transport) << text;
  }
  document["security"] = {{"transport", "none"}};
  EXPECT_THAT(check(document), ElementsAre(finding("/security/transport", "plain")));
  document["security"] = {{"transprot", "tls"}};
  EXPECT_THAT(check(document), ElementsAre(finding("/security/transprot", "transport")));
}

TEST(ClusterConfig, AddressesBecomeCanonical) {
  json document = valid();
  document["nodes"]["a"]["links"] = {"FD00:0::1"};
  document["nodes"]["b"]["links"] = {"fd00::2"};
  Findings findings;
  const auto config = parse_cluster_config(document.dump(), findings);
  ASSERT_THAT(texts(findings), ElementsAre());
  EXPECT_THAT(config->nodes.at("a").links, ElementsAre("fd00::1"));
}

TEST(ClusterConfig, UnknownKeysGetASuggestion) {
  json document = valid();
  document["timing"] = {{"leese", "6s"}};
  document["nods"] = json::object();
  document["nodes"]["a"]["link"] = json::array();
  document["colour"] = "red";
  EXPECT_THAT(
      check(document),
      UnorderedElementsAre(finding("/timing/leese", "unknown key; did you mean \"lease\"?"),
                           finding("/nods", "did you mean \"nodes\"?"),
                           finding("/nodes/a/link", "did you mean \"links\"?"),
                           finding("/colour", "unknown key; the keys here are cluster, nodes")));
}

TEST(ClusterConfig, BareNumbersAreNoDurations) {
  json document = valid();
  document["timing"] = {{"lease", 6}, {"boot_grace", "30"}, {"peer_timeout", "2 s"}};
  EXPECT_THAT(check(document),
              UnorderedElementsAre(finding("/timing/lease",
                                           "expected a duration with its unit as text, such as "
                                           "\"250ms\", \"6s\" or \"1min\"; found 6"),
                                   finding("/timing/boot_grace", "found \"30\""),
                                   finding("/timing/peer_timeout", "found \"2 s\"")));
}

TEST(ClusterConfig, ExactlyTwoNodes) {
  json document = valid();
  document["nodes"]["c"] = {{"links", {"10.0.0.3", "10.0.1.3"}}};
  EXPECT_THAT(check(document),
              ElementsAre(finding("/nodes",
                                  "expected exactly two nodes (more than two are not "
                                  "supported yet)")));
  document["nodes"] = json::object();
  EXPECT_THAT(check(document), ElementsAre(finding("/nodes", "found an object with 0 keys")));
}

TEST(ClusterConfig, NodeNames) {
  json document = valid();
  document["nodes"].erase("b");
  document["nodes"]["B"] = {{"links", {"10.0.0.2", "10.0.1.2"}}};
  EXPECT_THAT(check(document),
              ElementsAre(finding("/nodes/B", "expected a node name: lower-case")));
}

TEST(ClusterConfig, LinksAreValidUniqueAndPaired) {
  json document = valid();
  document["nodes"]["a"]["links"] = {"10.0.0.300", "10.0.1.2", "0.0.0.0"};
  document["nodes"]["b"]["links"] = {"fd00::2", "10.0.1.2"};
  EXPECT_THAT(check(document),
              UnorderedElementsAre(finding("/nodes/a/links/0", "found \"10.0.0.300\""),
                                   finding("/nodes/a/links/2", "found \"0.0.0.0\""),
                                   finding("/nodes/b/links/1",
                                           "address 10.0.1.2 is already given at /nodes/a/links/1"),
                                   finding("/nodes", "node a has 3 links and node b has 2")));
}

TEST(ClusterConfig, BothEndsOfALinkAreOfOneFamily) {
  json document = valid();
  document["nodes"]["b"]["links"] = {"fd00::2", "10.0.1.2"};
  EXPECT_THAT(check(document),
              ElementsAre(finding("/nodes/b/links/0", "one is IPv4 and one IPv6")));
}

TEST(ClusterConfig, NumberAndTypeOfLinks) {
  json document = valid();
  document["nodes"]["a"]["links"] = json::array();
  document["nodes"]["b"]["links"] = {1, "10.0.0.2"};
  EXPECT_THAT(check(document),
              UnorderedElementsAre(finding("/nodes/a/links", "1 to 4 IP addresses"),
                                   finding("/nodes/b/links/0", "found 1"),
                                   finding("/nodes/b/links/0", "expected an IP address as text")));
}

TEST(ClusterConfig, WitnessIsAThirdMachine) {
  json document = valid();
  document["witness"]["address"] = "10.0.1.2";
  EXPECT_THAT(check(document),
              ElementsAre(finding("/witness/address", "must run on a third machine")));
  document["witness"]["address"] = "witness.example";
  EXPECT_THAT(check(document), ElementsAre(finding("/witness/address", "slow name server")));
  document["witness"] = {{"port", 7600}};
  EXPECT_THAT(check(document), ElementsAre(finding("/witness", "the key \"address\" is missing")));
  document["witness"] = nullptr;
  EXPECT_THAT(check(document), ElementsAre());
}

TEST(ClusterConfig, PortsAreDisjoint) {
  json document = valid();
  document["ports"] = {{"heartbeat", 7700}, {"peer", 7700}};
  EXPECT_THAT(
      check(document),
      UnorderedElementsAre(finding("/ports/peer", "also used by heartbeat = 7700"),
                           finding("/ports/heartbeat", "also used by replication = 7610–7999"),
                           finding("/ports/peer", "also used by replication = 7610–7999")));
  document["ports"] = {{"replication", {{"first", 9000}, {"last", 8000}}}};
  EXPECT_THAT(check(document), ElementsAre(finding("/ports/replication",
                                                   "first = 9000 is greater than last = 8000")));
  document["ports"] = {{"heartbeat", 0}, {"peer", 65536}};
  EXPECT_THAT(check(document), UnorderedElementsAre(finding("/ports/heartbeat", "found 0"),
                                                    finding("/ports/peer", "found 65536")));
}

TEST(ClusterConfig, TimingInequalityShowsItsNumbers) {
  json document = valid();
  document["timing"] = {{"lease", "1s"}};
  EXPECT_THAT(check(document), ElementsAre(finding("/timing/lease", "0.3 × 1s = 300ms")));
}

TEST(ClusterConfig, EverythingAtOnce) {
  Findings findings;
  parse_cluster_config(R"({"version": 2, "version": 2, "cluster": "D", "nodes": [],
                           "witness": {"address": "x"}, "timing": {"lease": "1s", "x": 1}})",
                       findings);
  EXPECT_THAT(findings.list(),
              UnorderedElementsAre(
                  finding("/version", "given twice"), finding("/version", "found 2"),
                  finding("/cluster", "found \"D\""), finding("/nodes", "found a list of 0 items"),
                  finding("/witness/address", "found \"x\""), finding("/timing/lease", "300ms"),
                  finding("/timing/x", "unknown key")));
}

TEST(ClusterConfig, OtherDocumentsThanObjects) {
  for (const char* text : {"null", "[]", "1", "\"x\"", "true"}) {
    Findings findings;
    EXPECT_EQ(parse_cluster_config(text, findings), std::nullopt) << text;
    EXPECT_THAT(findings.list(), testing::Contains(finding("", "expected a JSON object"))) << text;
  }
}

TEST(ClusterConfig, ExampleFileIsValid) {
  const auto config = load_cluster_config(HAVM_SOURCE_DIR "/conf/cluster.example.json");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config.value().nodes.size(), 2U);
  EXPECT_EQ(config.value().timing, Timing{});
  EXPECT_EQ(config.value().ports, ClusterPorts{});
}

TEST(ClusterConfig, MissingFileIsNamed) {
  const auto config = load_cluster_config("/nonexistent/cluster.json");
  ASSERT_FALSE(config.has_value());
  EXPECT_THAT(config.error().message, HasSubstr("/nonexistent/cluster.json"));
  EXPECT_EQ(config.error().code, ENOENT);
}

TEST(ClusterConfig, BuiltInSchemaIsTheFileOfConf) {
  const auto text = read_file(HAVM_SOURCE_DIR "/conf/schema/cluster-1.json");
  ASSERT_TRUE(text.has_value());
  EXPECT_EQ(text.value(), cluster_schema);
}

// Takes each value of a valid document away, or replaces it: the reader never crashes, and refuses
// whatever the schema refuses.
TEST(ClusterConfig, EveryMutationIsHandled) {
  json whole = valid();
  whole["timing"] = {{"profile", "default"}, {"lease", "6s"}, {"drift_ppm", 10}};
  whole["ports"] = {{"heartbeat", 1}, {"peer", 2}, {"replication", {{"first", 3}, {"last", 4}}}};
  int refused = 0;
  const json places = whole.flatten();
  for (const auto& place : places.items()) {
    for (const json& value : {json(nullptr), json(-1), json(0), json(1e300), json("x"), json(""),
                              json::array(), json::object(), json(true)}) {
      json mutant = whole;
      mutant[json::json_pointer(place.key())] = value;
      Findings by_schema;
      check_schema(mutant, cluster_schema, by_schema);
      Findings findings;
      const auto config = parse_cluster_config(mutant.dump(), findings);
      if (!by_schema.empty()) {
        EXPECT_EQ(config, std::nullopt) << place.key() << " " << value;
      }
      if (config == std::nullopt) ++refused;
      EXPECT_EQ(config.has_value(), findings.empty());
    }
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace havm
