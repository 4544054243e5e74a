// resync-pause and resync-resume: what they send, what they say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agent/cli/run_havm.hpp"

namespace havm {
namespace {

using nlohmann::json;
using testing::ElementsAre;

class CliResync : public testing::Test {
 protected:
  FakeHavmd havmd;

  void expect(const std::vector<std::string>& arguments, const std::string& out) {
    const Outcome outcome = run_havm(havmd, arguments);
    EXPECT_EQ(outcome.out, out);
    EXPECT_EQ(outcome.err, "");
    EXPECT_EQ(outcome.exit_status, 0);
  }
};

TEST_F(CliResync, PauseAndResume) {
  havmd.answer("POST /v1/vms/web1/resync-pause", 200, json::object());
  havmd.answer("POST /v1/vms/web1/resync-resume", 200, json::object());
  expect({"resync-pause", "web1", "--reason", "backup runs"}, "Resync of domain 'web1' paused\n\n");
  expect({"resync-pause", "web1"}, "Resync of domain 'web1' paused\n\n");
  expect({"resync-resume", "web1"}, "Resync of domain 'web1' goes on\n\n");
  expect({"resync-resume", "web1", "--json"}, "{}\n");
  EXPECT_THAT(havmd.requests(),
              ElementsAre("POST /v1/vms/web1/resync-pause "
                          R"({"dry_run":false,"reason":"backup runs"})",
                          R"(POST /v1/vms/web1/resync-pause {"dry_run":false,"reason":null})",
                          R"(POST /v1/vms/web1/resync-resume {"dry_run":false})",
                          R"(POST /v1/vms/web1/resync-resume {"dry_run":false})"));
}

TEST_F(CliResync, ADryRunShowsThePlan) {
  const json plan = json::parse(R"({"plan": ["copy nothing", "stream writes"]})");
  havmd.answer("POST /v1/vms/web1/resync-pause", 200, plan);
  expect({"resync-pause", "web1", "--dry-run"},
         "Plan for domain 'web1' (nothing was changed):\n 1. copy nothing\n 2. stream writes\n\n");
  const Outcome outcome = run_havm(havmd, {"resync-pause", "web1", "--dry-run", "--json"});
  EXPECT_EQ(json::parse(outcome.out), plan);
  EXPECT_THAT(havmd.requests().back(),
              R"(POST /v1/vms/web1/resync-pause {"dry_run":true,"reason":null})");
}

TEST_F(CliResync, ARefusalIsAnError) {
  havmd.answer("POST /v1/vms/web1/resync-pause", 503,
               json::parse(R"({"error": "node b owns VM 'web1' and is not heard"})"));
  const Outcome outcome = run_havm(havmd, {"resync-pause", "web1"});
  EXPECT_EQ(outcome.err, "error: node b owns VM 'web1' and is not heard\n");
  EXPECT_EQ(outcome.exit_status, 1);
}

TEST_F(CliResync, SnapshotList) {
  json vm = example_vm("web1");
  vm["snapshots"] = json::parse(R"([
    {"node": "a", "state": "impossible", "reason": "the file system of /i/vda has no reflinks",
     "files": []},
    {"node": "b", "state": "kept", "reason": null,
     "files": [{"disk": "vda", "path": "/i/vda.havm-before-resync",
                "taken": "2025-01-31T09:30:00Z", "allocated_bytes": 1073741824}]}])");
  havmd.answer("GET /v1/vms/web1", 200, vm);
  expect({"snapshot-list", "web1"},
         " Node   Disk   Taken                  Allocated   File\n"
         "-----------------------------------------------------------------------------\n"
         " b      vda    2025-01-31T09:30:00Z   1.00 GiB    /i/vda.havm-before-resync\n"
         "Node a keeps none (impossible): the file system of /i/vda has no reflinks\n"
         "\n");
  const Outcome outcome = run_havm(havmd, {"snapshot-list", "web1", "--json"});
  EXPECT_EQ(json::parse(outcome.out).at("snapshots"), vm["snapshots"]);
}

TEST_F(CliResync, SnapshotListOfNothing) {
  json vm = example_vm("web1");
  havmd.answer("GET /v1/vms/web1", 200, vm);
  expect({"-q", "snapshot-list", "web1"}, "");
  EXPECT_EQ(json::parse(run_havm(havmd, {"snapshot-list", "web1", "--json"}).out),
            json::parse(R"({"snapshots": []})"));
}

}  // namespace
}  // namespace havm
