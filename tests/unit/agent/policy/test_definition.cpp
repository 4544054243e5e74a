#include <filesystem>

#include <gtest/gtest.h>
#include <stdlib.h>

#include "agent/policy/definition.hpp"
#include "agent/policy/json_document.hpp"
#include "tests/unit/agent/policy/finding_matchers.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

VmDefinition example() {
  VmDefinition definition;
  definition.vm = "web1";
  definition.uuid = "6695eb01-f6a4-8304-79aa-97f2502e193f";
  definition.nodes = {"a", "b"};
  definition.generation = 9223372036854775807U;  // what JSON tools can hold
  definition.replication_port = 7610;
  definition.disks = {{"vda", "qcow2", "/images/web1 ü.qcow2", 1'073'741'824},
                      {"sdb", "raw", "/images/web1-b.raw", 9'223'372'036'854'775'807}};
  definition.desired = DesiredState::running;
  definition.policy.on_peer_loss = OnPeerLoss::freeze;
  definition.policy.preferred_node = "b";
  definition.original_xml = "<domain>\n  <name>web1</name>\n</domain>\n";
  return definition;
}

std::vector<Finding> check(const json& document) {
  Findings findings;
  const auto definition = definition_from_json(document, findings);
  EXPECT_EQ(definition.has_value(), findings.empty());
  return findings.list();
}

TEST(Definition, SurvivesARoundTripThroughAFile) {
  std::string folder = "/tmp/havm-test-definition-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/vm.json";
  ASSERT_TRUE(save_definition(path, example()).has_value());
  const auto loaded = load_definition(path);
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
  EXPECT_EQ(loaded.value(), example());

  VmDefinition latin1 = example();
  latin1.original_xml = "<title>caf\xe9</title>";
  const auto refused = save_definition(path, latin1);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message, HasSubstr("not UTF-8"));
  EXPECT_EQ(load_definition(path).value(), example());

  ASSERT_TRUE(replace_file(path, "{\"version\": 1").has_value());
  const auto damaged = load_definition(path);
  ASSERT_FALSE(damaged.has_value());
  EXPECT_THAT(damaged.error().message, testing::StartsWith(path + ": not valid JSON at line 1"));
  std::filesystem::remove_all(folder);
}

TEST(Definition, KeysOfTheFile) {
  const json document = definition_to_json(example());
  EXPECT_EQ(document.at("disks").at(0), json::parse(R"({"target": "vda", "format": "qcow2",
              "path": "/images/web1 ü.qcow2", "size": 1073741824})"));
  EXPECT_EQ(document.at("desired"), "running");
  EXPECT_EQ(document.size(), 10U);
}

TEST(Definition, EveryKeyIsNeededAndNoOther) {
  const json whole = definition_to_json(example());
  for (const auto& entry : whole.items()) {
    json document = whole;
    document.erase(entry.key());
    EXPECT_THAT(check(document), ElementsAre(finding("", "\"" + entry.key() + "\" is missing")));
  }
  json document = whole;
  document["owner"] = "a";
  EXPECT_THAT(check(document), ElementsAre(finding("/owner", "unknown key")));
}

TEST(Definition, EveryMistakeAtOnce) {
  json document = definition_to_json(example());
  document["uuid"] = "x";
  document["nodes"] = {"a"};
  document["replication_port"] = 70'000;
  document["disks"][1] = {{"target", "vda"}, {"format", "vmdk"}, {"path", "relative"}, {"size", 0}};
  document["policy"]["failover"]["mode"] = "never";
  EXPECT_THAT(check(document),
              UnorderedElementsAre(finding("/uuid", "UUID"), finding("/nodes", "exactly two"),
                                   finding("/replication_port", "found 70000"),
                                   finding("/disks/1/format", "found \"vmdk\""),
                                   finding("/disks/1/path", "an absolute path"),
                                   finding("/disks/1/size", "found 0"),
                                   finding("/policy/failover/mode", "found \"never\"")));
}

TEST(Definition, DisksAndNodesAreDistinct) {
  json document = definition_to_json(example());
  document["disks"][1]["target"] = "vda";
  document["disks"][1]["path"] = document["disks"][0]["path"];
  document["policy"]["preferred_node"] = "c";
  document["vm"] = "web 1";
  EXPECT_THAT(check(document),
              UnorderedElementsAre(finding("/disks/1/target", "another disk has the target"),
                                   finding("/disks/1/path", "another disk has the path"),
                                   finding("/policy/preferred_node", "holds no replica"),
                                   finding("/vm", "contains a space")));
  json twice = definition_to_json(example());
  twice["nodes"] = {"b", "b"};
  EXPECT_THAT(check(twice), ElementsAre(finding("/nodes", "two different node names")));
}

TEST(Definition, NulAndLineBreaksInAPathAreRefused) {
  json document = definition_to_json(example());
  for (const std::string& path :
       {std::string("/a\0b", 4), std::string("/a\nb"), std::string("/a\r"), std::string("/\n")}) {
    document["disks"][0]["path"] = path;
    EXPECT_THAT(check(document), ElementsAre(finding("/disks/0/path", ""))) << json(path);
  }
}

// A partner sends definitions too. std::regex recurses over what a pattern repeats without bound: a
// path of a megabyte must not end the process.
TEST(Definition, ATextOfAnyLengthIsJudged) {
  const json whole = definition_to_json(example());
  const std::string endless(1'000'000, 'x');
  json document = whole;
  document["disks"][0]["path"] = "/" + endless;
  EXPECT_THAT(check(document), ElementsAre(finding("/disks/0/path", "an absolute path")));
  for (const char* key : {"uuid", "desired", "policy"}) {
    document = whole;
    document[key] = endless;
    EXPECT_FALSE(check(document).empty()) << key;
  }
  document = whole;
  document["nodes"][1] = endless;
  EXPECT_FALSE(check(document).empty());
  document = whole;
  document["disks"][0]["target"] = "v" + endless;
  EXPECT_FALSE(check(document).empty());
  document = whole;
  document["policy"]["preferred_node"] = endless;
  EXPECT_FALSE(check(document).empty());
}

TEST(Definition, BuiltInSchemaIsTheFileOfConf) {
  const auto text = read_file(HAVM_SOURCE_DIR "/conf/schema/vm-1.json");
  ASSERT_TRUE(text.has_value());
  EXPECT_EQ(text.value(), vm_schema);
}

}  // namespace
}  // namespace havm
