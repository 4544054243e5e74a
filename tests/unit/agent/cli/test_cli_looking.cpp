// Commands that only look: their output to the byte, on a file as standard output.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agent/cli/run_havm.hpp"

namespace havm {
namespace {

using nlohmann::json;

class CliLooking : public testing::Test {
 protected:
  FakeHavmd havmd;

  void answer_three_vms() {
    json partner_vm = example_vm("db");
    partner_vm["uuid"] = "11111111-2222-3333-4444-555555555555";
    partner_vm["title"] = "Data base";
    partner_vm["state"] = "shut off";
    partner_vm["owner"] = "b";
    partner_vm["role"] = "partner";
    partner_vm["ready"] = false;
    partner_vm["sync"] = {
        {"state", "resyncing"}, {"done_bytes", 42}, {"total_bytes", 100}, {"rate_bytes_per_s", 10}};
    json plain;
    plain["vm"] = "test";
    plain["uuid"] = "99999999-2222-3333-4444-555555555555";
    plain["title"] = "";
    plain["protected"] = false;
    plain["state"] = "running";
    json body;
    body["vms"] = {partner_vm, plain, example_vm("web1")};
    havmd.answer("GET /v1/vms", 200, body);
  }

  void expect(const std::vector<std::string>& arguments, const std::string& out) {
    const Outcome outcome = run_havm(havmd, arguments);
    EXPECT_EQ(outcome.out, out);
    EXPECT_EQ(outcome.err, "");
    EXPECT_EQ(outcome.exit_status, 0);
  }
};

TEST_F(CliLooking, List) {
  answer_three_vms();
  expect({"list"},
         " Name   State      Role      Owner   Partner   Sync             Ready\n"
         "-----------------------------------------------------------------------\n"
         " db     shut off   partner   b       b         resyncing 42 %   no\n"
         " web1   running    owner     a       b         in-sync          yes\n"
         "\n");
}

TEST_F(CliLooking, ASlowPartnerIsToldWithItsNumbers) {
  json vm = example_vm("web1");
  vm["in_sync"] = {"a"};
  vm["sync"]["state"] = "alone";
  vm["disks"][0]["repaired"] = 3;
  vm["sync"]["slow_partner"] = "slow partner: its answers take up to 3000 ms";
  json body;
  body["vms"] = {vm};
  havmd.answer("GET /v1/vms", 200, body);
  havmd.answer("GET /v1/vms/web1", 200, vm);
  expect({"-q", "list"}, " web1   running   owner   a   b   alone, slow partner   yes\n");
  const Outcome outcome = run_havm(havmd, {"dominfo", "web1"});
  EXPECT_NE(outcome.out.find("Slow partner:   slow partner: its answers take up to 3000 ms\n"),
            std::string::npos)
      << outcome.out;
  EXPECT_NE(outcome.out.find("), places repaired: 3"), std::string::npos) << outcome.out;
}

TEST_F(CliLooking, ListQuietHasNoHeader) {
  answer_three_vms();
  expect({"-q", "list"},
         " db     shut off   partner   b   b   resyncing 42 %   no\n"
         " web1   running    owner     a   b   in-sync          yes\n");
}

TEST_F(CliLooking, ListAllWithTitles) {
  answer_three_vms();
  expect({"list", "--all", "--title"},
         " Name   State      Role      Owner   Partner   Sync             Ready   Title\n"
         "-----------------------------------------------------------------------------------\n"
         " db     shut off   partner   b       b         resyncing 42 %   no      Data base\n"
         " test   running    -         -       -         -                -       \n"
         " web1   running    owner     a       b         in-sync          yes     \n"
         "\n");
}

TEST_F(CliLooking, ListNamesAndUuids) {
  answer_three_vms();
  expect({"list", "--name"}, "db\nweb1\n\n");
  expect({"list", "--name", "--all"}, "db\ntest\nweb1\n\n");
  expect({"list", "--uuid"},
         "11111111-2222-3333-4444-555555555555\n6695eb01-f6a4-8304-79aa-97f2502e193f\n\n");
  expect({"-q", "list", "--name", "--uuid"},
         "11111111-2222-3333-4444-555555555555 db\n6695eb01-f6a4-8304-79aa-97f2502e193f web1\n");
}

TEST_F(CliLooking, ListOfNothing) {
  havmd.answer("GET /v1/vms", 200, json::parse(R"({"vms": []})"));
  expect({"list"},
         " Name   State   Role   Owner   Partner   Sync   Ready\n"
         "-------------------------------------------------------\n"
         "\n");
  expect({"-q", "list"}, "");
}

TEST_F(CliLooking, ListJsonIsTheAnswerOfTheApi) {
  answer_three_vms();
  const Outcome outcome = run_havm(havmd, {"list", "--json"});
  const json out = json::parse(outcome.out);
  ASSERT_EQ(out.at("vms").size(), 2U);
  EXPECT_EQ(out.at("vms").at(1), example_vm("web1"));
  EXPECT_EQ(run_havm(havmd, {"--json", "list"}).out, outcome.out);
  EXPECT_EQ(json::parse(run_havm(havmd, {"list", "--json", "--all"}).out).at("vms").size(), 3U);
}

TEST_F(CliLooking, Dominfo) {
  havmd.answer("GET /v1/vms/web1", 200, example_vm("web1"));
  expect({"dominfo", "web1"},
         "Name:           web1\n"
         "UUID:           6695eb01-f6a4-8304-79aa-97f2502e193f\n"
         "State:          running\n"
         "Protected:      yes\n"
         "Owner:          a\n"
         "Role:           owner\n"
         "Partner:        b\n"
         "Epoch:          4\n"
         "In-sync set:    a, b\n"
         "Sync:           in-sync\n"
         "Ready:          yes (both replicas are in sync and node b is alive)\n"
         "Redundant:      yes (every completed write is on both nodes)\n"
         "Bytes at risk:  0 B\n"
         "Desired:        running\n"
         "Phase:          serving\n"
         "Reason:         both nodes are in sync at epoch 4\n"
         "Failover:       auto\n"
         "On peer loss:   continue\n"
         "Slow limit:     2s\n"
         "Preferred node: -\n"
         "Disk vda:       /images/web1.qcow2 (qcow2, 1.00 GiB)\n"
         "\n");
}

TEST_F(CliLooking, DominfoOfWhatIsUnknown) {
  json vm = example_vm("web1");
  vm["title"] = "Shop";
  vm["owner"] = nullptr;
  vm["in_sync"] = json::array();
  vm["sync"] = {{"state", "unknown"}, {"done_bytes", nullptr}, {"total_bytes", nullptr}};
  vm["ready"] = false;
  vm["ready_reason"] = "node b is silent";
  vm["protection"] = {{"protected", false}, {"reason", "unknown"}, {"bytes_at_risk", nullptr}};
  vm["disks"][0]["error"] = "No space left on device";
  havmd.answer("GET /v1/vms/web1", 200, vm);
  const Outcome outcome = run_havm(havmd, {"dominfo", "web1"});
  for (const char* line :
       {"Title:          Shop\n", "Owner:          -\n", "In-sync set:    -\n",
        "Sync:           unknown\n", "Ready:          no (node b is silent)\n",
        "Redundant:      no (unknown)\n", "Bytes at risk:  unknown\n",
        "Disk vda:       /images/web1.qcow2 (qcow2, 1.00 GiB): No space left on device\n"})
    EXPECT_NE(outcome.out.find(line), std::string::npos) << line << outcome.out;
}

TEST_F(CliLooking, DominfoOfAnUnprotectedDomain) {
  havmd.answer("GET /v1/vms/test", 200,
               json::parse(R"({"vm": "test", "uuid": "u", "title": "", "protected": false,
                               "state": "shut off"})"));
  expect({"dominfo", "test"},
         "Name:           test\n"
         "UUID:           u\n"
         "State:          shut off\n"
         "Protected:      no\n"
         "\n");
}

TEST_F(CliLooking, DominfoByUuidAndJson) {
  answer_three_vms();
  havmd.answer("GET /v1/vms/web1", 200, example_vm("web1"));
  const Outcome outcome =
      run_havm(havmd, {"dominfo", "6695EB01-f6a4-8304-79aa-97f2502e193f", "--json"});
  EXPECT_EQ(outcome.exit_status, 0) << outcome.err;
  EXPECT_EQ(json::parse(outcome.out), example_vm("web1"));
}

TEST_F(CliLooking, Domstate) {
  json vm = example_vm("web 1");
  vm["state"] = "shut off";
  havmd.answer("GET /v1/vms/web 1", 200, vm);
  expect({"domstate", "web 1"}, "shut off\n\n");
  expect({"-q", "domstate", "web 1"}, "shut off\n");
  expect({"domstate", "web 1", "--json"},
         "{\n  \"state\": \"shut off\",\n  \"vm\": \"web 1\"\n}\n");
}

TEST_F(CliLooking, Explain) {
  havmd.answer("GET /v1/vms/web1/explain", 200, json::parse(R"({"events": [
    {"id": 1, "time": "2025-01-31T09:30:00.123Z", "time_ns": 1, "node": "b", "kind": "partner-lost",
     "text": "node a is silent for 2.0 s", "epoch": 4},
    {"id": 2, "time": "2025-01-31T09:30:01.000Z", "time_ns": 2, "node": "b", "kind": "note",
     "text": "line\u001b[2J", "epoch": null}]})"));
  expect({"explain", "web1"},
         " Time                       Node   Epoch   Event          Explanation\n"
         "--------------------------------------------------------------------------------------\n"
         " 2025-01-31T09:30:00.123Z   b      4       partner-lost   node a is silent for 2.0 s\n"
         " 2025-01-31T09:30:01.000Z   b      -       note           line\\x1B[2J\n"
         "\n");
  const Outcome outcome = run_havm(havmd, {"explain", "web1", "--json"});
  EXPECT_EQ(json::parse(outcome.out).at("events").size(), 2U);
}

TEST_F(CliLooking, NodeList) {
  havmd.answer("GET /v1/nodes", 200, json::parse(R"({"nodes": [
    {"name": "a", "self": true, "state": "up", "version": "0.1.0", "boot_id": "x", "vms_owned": 2,
     "links": [{"address": "192.0.2.1", "state": "up", "silent_ms": null}]},
    {"name": "b", "self": false, "state": "silent", "version": null, "boot_id": null,
     "vms_owned": 0,
     "links": [{"address": "192.0.2.2", "state": "silent", "silent_ms": 3210},
               {"address": "198.51.100.2", "state": "unknown", "silent_ms": null}]}],
    "arbiter": {"kind": "witness", "endpoint": "203.0.113.9:7600", "state": "up",
                "silent_ms": 80}})"));
  expect(
      {"node-list"},
      " Name            State    VMs   Version   Links\n"
      "--------------------------------------------------------------------------------------------"
      "\n"
      " a (this node)   up       2     0.1.0     192.0.2.1\n"
      " b               silent   0     -         192.0.2.2 silent for 3.2 s, 198.51.100.2 unknown\n"
      "\n"
      "Arbiter: witness at 203.0.113.9:7600, up\n"
      "\n");
}

TEST_F(CliLooking, NodeListTellsHowTheDataIsProtected) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"({"transport": "tls", "certificate_until": "2035-01-31T09:30:00Z", "problem": null})",
       "TLS, certificate of this node valid until 2035-01-31T09:30:00Z"},
      {R"({"transport": "plain", "certificate_until": null, "problem": null})",
       "plain TCP, neither encrypted nor authenticated (for measurements only)"},
      {R"({"transport": "tls", "certificate_until": null, "problem": "it is gone"})",
       "no new connection is possible: it is gone"}};
  for (const auto& [replication, line] : cases)
    havmd.answer("GET /v1/nodes", 200,
                 json::parse(R"({"nodes": [], "arbiter": {"kind": "none", "endpoint": null},
                                 "replication": )" +
                             replication + "}"));
  for (const auto& [replication, line] : cases)
    EXPECT_THAT(run_havm(havmd, {"node-list"}).out,
                testing::EndsWith("\nReplication: " + line + "\n\n"));
}

TEST_F(CliLooking, NodeListWithoutArbiter) {
  havmd.answer("GET /v1/nodes", 200,
               json::parse(R"({"nodes": [], "arbiter": {"kind": "none", "endpoint": null}})"));
  const Outcome outcome = run_havm(havmd, {"node-list"});
  EXPECT_NE(outcome.out.find("\nArbiter: none (failover only by hand)\n"), std::string::npos);
}

TEST_F(CliLooking, Version) {
  havmd.answer("GET /v1/version", 200, json::parse(R"({"version": "0.1.0", "node": "a",
    "cluster": "demo", "hypervisor": "QEMU 7.2.9 / libvirt 9.0.0", "pid": 1, "uptime_ms": 5})"));
  expect({"version"}, "Client:         havm " HAVM_VERSION
                      "\n"
                      "Daemon:         havmd 0.1.0\n"
                      "Hypervisor:     QEMU 7.2.9 / libvirt 9.0.0\n"
                      "Node:           a\n"
                      "Cluster:        demo\n"
                      "\n");
  EXPECT_EQ(json::parse(run_havm(havmd, {"version", "--json"}).out).at("client"), HAVM_VERSION);
  expect({"-v"}, HAVM_VERSION "\n");
}

TEST_F(CliLooking, SocketFromTheEnvironment) {
  havmd.answer("GET /v1/vms", 200, json::parse(R"({"vms": []})"));
  const Outcome outcome =
      run_program({"list", "--name"}, havmd.folder(), {"HAVM_SOCKET=" + havmd.socket()});
  EXPECT_EQ(outcome.exit_status, 0) << outcome.err;
}

TEST_F(CliLooking, HelpNeedsNoDaemon) {
  havmd.stop();
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{},
                                                    {"--help"},
                                                    {"help"},
                                                    {"help", "list"},
                                                    {"help", "host"},
                                                    {"list", "--help"}}) {
    const Outcome outcome = run_havm(havmd, arguments);
    EXPECT_EQ(outcome.exit_status, 0) << outcome.err;
    EXPECT_NE(outcome.out.find("list"), std::string::npos) << outcome.out;
  }
  EXPECT_EQ(run_havm(havmd, {"help", "list"}).out, run_havm(havmd, {"list", "--help"}).out);
}

}  // namespace
}  // namespace havm
