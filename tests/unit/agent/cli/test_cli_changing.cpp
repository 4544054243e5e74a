// Commands that change something: what they send, how they follow it, what they say.
#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agent/cli/run_havm.hpp"

namespace havm {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

class CliChanging : public testing::Test {
 protected:
  FakeHavmd havmd;

  // 202, then an operation that runs for two polls and ends like this.
  void answer_operation(const std::string& request, json last) {
    havmd.answer(request, 202, json::parse(R"({"operation": "17"})"));
    json running =
        json::parse(R"({"id": "17", "state": "running", "step": "copying", "percent": 42})");
    havmd.answer("GET /v1/operations/17", 200, running);
    running["percent"] = nullptr;
    havmd.answer("GET /v1/operations/17", 200, running);
    havmd.answer("GET /v1/operations/17", 200, std::move(last));
  }
  void answer_success(const std::string& request, json result) {
    json done = json::parse(R"({"id": "17", "state": "done", "step": "", "percent": 100})");
    done["result"] = std::move(result);
    answer_operation(request, done);
  }

  void expect(const std::vector<std::string>& arguments, const std::string& out) {
    const Outcome outcome = run_havm(havmd, arguments);
    EXPECT_EQ(outcome.out, out);
    EXPECT_EQ(outcome.err, "");
    EXPECT_EQ(outcome.exit_status, 0);
  }
  void expect_failure(const std::vector<std::string>& arguments, const std::string& err) {
    const Outcome outcome = run_havm(havmd, arguments);
    EXPECT_EQ(outcome.out, "\n");
    EXPECT_EQ(outcome.err, err);
    EXPECT_EQ(outcome.exit_status, 1);
  }
};

TEST_F(CliChanging, ProtectFollowsTheOperation) {
  answer_success("POST /v1/vms/web1/protect", example_vm("web1"));
  expect({"protect", "web1", "--peer", "b"}, "Domain 'web1' protected with partner 'b'\n\n");
  EXPECT_THAT(
      havmd.requests(),
      ElementsAre("POST /v1/vms/web1/protect "
                  R"({"dry_run":false,"peer":"b","policy":null,"restart":false})",
                  "GET /v1/operations/17", "GET /v1/operations/17", "GET /v1/operations/17"));
}

TEST_F(CliChanging, ProtectSendsPolicyAndRestart) {
  answer_success("POST /v1/vms/web1/protect", example_vm("web1"));
  const std::string policy = havmd.write_file("policy.json", R"({"version": 1, "failover":
                                                             {"mode": "manual"}})");
  const Outcome outcome =
      run_havm(havmd, {"-q", "protect", "web1", "--peer", "b", "--policy", policy, "--restart"});
  EXPECT_EQ(outcome.out + outcome.err, "");
  const std::string request = havmd.requests().at(0);
  const json body = json::parse(request.substr(request.find('{')));
  EXPECT_EQ(body.at("restart"), true);
  EXPECT_EQ(body.at("policy"), json::parse(R"({"version": 1, "failover": {"mode": "manual"},
    "replication": {"on_peer_loss": "continue", "slow_partner": "2s"},
    "guest": {"on_guest_shutdown": "stay-off"},
    "preferred_node": null})"));
}

TEST_F(CliChanging, ABadPolicyFileSendsNothing) {
  const std::string policy =
      havmd.write_file("policy.json", R"({"version": 2, "failover": {"mod": "auto"}})");
  expect_failure({"protect", "web1", "--peer", "b", "--policy", policy},
                 "error: " + policy + ": /failover/mod: unknown key; did you mean \"mode\"?\n" +
                     "error: " + policy +
                     ": /version: expected the number 1 (version of this format); found 2\n");
  const std::string missing = havmd.folder() + "/none.json";
  const Outcome outcome = run_havm(havmd, {"protect", "web1", "--peer", "b", "--policy", missing});
  EXPECT_EQ(outcome.exit_status, 1);
  EXPECT_THAT(outcome.err, testing::AllOf(StartsWith("error: "), HasSubstr(missing),
                                          HasSubstr("No such file or directory")));
  EXPECT_THAT(havmd.requests(), ElementsAre());
}

TEST_F(CliChanging, ProtectWaitsUntilInSync) {
  answer_success("POST /v1/vms/web1/protect", example_vm("web1"));
  json resyncing = example_vm("web1");
  resyncing["sync"]["state"] = "resyncing";
  havmd.answer("GET /v1/vms/web1", 200, resyncing);
  havmd.answer("GET /v1/vms/web1", 200, example_vm("web1"));
  expect({"protect", "web1", "--peer", "b", "--wait"},
         "Domain 'web1' protected with partner 'b'\n\n");
  EXPECT_EQ(havmd.requests().back(), "GET /v1/vms/web1");
}

TEST_F(CliChanging, ProtectJsonIsTheOperation) {
  answer_success("POST /v1/vms/web1/protect", example_vm("web1"));
  const Outcome outcome = run_havm(havmd, {"protect", "web1", "--peer", "b", "--json"});
  const json out = json::parse(outcome.out);
  EXPECT_EQ(out.at("state"), "done");
  EXPECT_EQ(out.at("result"), example_vm("web1"));
}

TEST_F(CliChanging, DryRunShowsThePlan) {
  havmd.answer("POST /v1/vms/web1/protect", 200,
               json::parse(R"({"plan": ["copy the definition to b",
                                                           "create the register"]})"));
  expect({"protect", "web1", "--peer", "b", "--dry-run"},
         "Plan for domain 'web1' (nothing was changed):\n"
         " 1. copy the definition to b\n"
         " 2. create the register\n"
         "\n");
  EXPECT_THAT(havmd.requests(), ElementsAre(HasSubstr("\"dry_run\":true")));
}

TEST_F(CliChanging, AnOperationThatFails) {
  answer_operation("POST /v1/vms/web1/protect", json::parse(R"({"id": "17", "state": "failed",
                                   "error": "node b has no space for disk vda"})"));
  expect_failure({"protect", "web1", "--peer", "b"}, "error: node b has no space for disk vda\n");
}

TEST_F(CliChanging, AnOperationThatHavmdForgot) {
  havmd.answer("POST /v1/vms/web1/protect", 202, json::parse(R"({"operation": "18"})"));
  expect_failure({"protect", "web1", "--peer", "b"},
                 "error: havmd no longer knows this operation: it was restarted meanwhile; see "
                 "'havm explain' for what became of it\n");
}

TEST_F(CliChanging, RefusalsAreTheSentenceOfHavmd) {
  havmd.answer("POST /v1/vms/nope/protect", 404,
               json::parse(R"({"error": "failed to get domain 'nope'"})"));
  expect_failure({"protect", "nope", "--peer", "b"}, "error: failed to get domain 'nope'\n");
}

TEST_F(CliChanging, Unprotect) {
  answer_success("POST /v1/vms/web1/unprotect", example_vm("web1"));
  expect({"unprotect", "web1", "--restart"}, "Domain 'web1' is no longer protected\n\n");
  EXPECT_EQ(havmd.requests().at(0),
            R"(POST /v1/vms/web1/unprotect {"dry_run":false,"restart":true})");
}

TEST_F(CliChanging, FailoverToTheOtherNode) {
  json after = example_vm("web1");
  after["owner"] = "b";
  answer_success("POST /v1/vms/web1/failover", after);
  expect({"failover", "web1"}, "Domain 'web1' failed over to node 'b'\n\n");
  EXPECT_EQ(havmd.requests().at(0), R"(POST /v1/vms/web1/failover {"dry_run":false,"to":null})");
}

TEST_F(CliChanging, FailoverWaitsUntilItRunsThere) {
  json after = example_vm("web1");
  after["owner"] = "b";
  answer_success("POST /v1/vms/web1/failover", after);
  json still = after;
  still["state"] = "shut off";
  havmd.answer("GET /v1/vms/web1", 200, still);
  havmd.answer("GET /v1/vms/web1", 200, after);
  expect({"failover", "web1", "--to", "b", "--wait"}, "Domain 'web1' failed over to node 'b'\n\n");
  EXPECT_THAT(havmd.requests(),
              Contains(R"(POST /v1/vms/web1/failover {"dry_run":false,"to":"b"})"));
  const auto requests = havmd.requests();
  EXPECT_EQ(std::count(requests.begin(), requests.end(), "GET /v1/vms/web1"), 2);
}

TEST_F(CliChanging, StartShutdownDestroy) {
  for (const char* verb : {"start", "shutdown", "destroy"})
    havmd.answer(std::string("POST /v1/vms/web1/") + verb, 200, json::object());
  expect({"start", "web1"}, "Domain 'web1' started\n\n");
  expect({"shutdown", "web1"}, "Domain 'web1' is being shutdown\n\n");
  expect({"destroy", "--domain", "web1"}, "Domain 'web1' destroyed\n\n");
  expect({"-q", "start", "web1"}, "");
  expect({"start", "web1", "--json"}, "{}\n");
}

TEST_F(CliChanging, AStartThatTakesAWait) {
  answer_success("POST /v1/vms/web1/start", example_vm("web1"));
  expect({"start", "web1"}, "Domain 'web1' started\n\n");
}

TEST_F(CliChanging, AStartThatIsRefused) {
  havmd.answer("POST /v1/vms/web1/start", 409,
               json::parse(R"({"error": "domain is already running"})"));
  expect_failure({"start", "web1"}, "error: domain is already running\n");
}

TEST_F(CliChanging, WaitForAState) {
  json vm = example_vm("web1");
  vm["state"] = "shut off";
  havmd.answer("GET /v1/vms/web1", 200, example_vm("web1"));
  havmd.answer("GET /v1/vms/web1", 200, vm);
  expect({"wait", "web1", "shut-off", "--timeout", "20"}, "Domain 'web1' is shut-off\n\n");
  EXPECT_EQ(havmd.requests().size(), 2U);
}

TEST_F(CliChanging, WaitThatTakesTooLong) {
  json vm = example_vm("web1");
  vm["sync"] = {{"state", "resyncing"}, {"done_bytes", 42}, {"total_bytes", 100}};
  vm["ready"] = false;
  vm["ready_reason"] = "the replica on b is not complete";
  havmd.answer("GET /v1/vms/web1", 200, vm);
  expect_failure(
      {"wait", "web1", "in-sync", "--timeout", "0.3"},
      "error: domain 'web1' is not in-sync after 0.3 s: it is running, resyncing 42 %, not "
      "ready: the replica on b is not complete\n");
  EXPECT_GE(havmd.requests().size(), 2U);
}

TEST_F(CliChanging, WaitForEveryStateThatThereIs) {
  const auto reached = [this](const char* state, json vm) {
    const std::string name = std::string("vm-") + state;
    vm["vm"] = name;
    havmd.answer("GET /v1/vms/" + name, 200, std::move(vm));
    EXPECT_EQ(run_havm(havmd, {"wait", name, state, "--timeout", "0.01"}).exit_status, 0) << state;
  };
  json vm = example_vm("");
  reached("running", vm);
  reached("in-sync", vm);
  reached("ready", vm);
  reached("protected", vm);
  vm["state"] = "paused";
  vm["sync"]["state"] = "alone";
  reached("paused", vm);
  reached("alone", vm);
  vm["sync"]["state"] = "resyncing";
  reached("resyncing", vm);
}

TEST_F(CliChanging, WaitMistakes) {
  expect_failure(
      {"wait", "web1", "happy"},
      "error: unknown state 'happy': expected one of running, paused, shut-off, in-sync, "
      "resyncing, alone, ready, protected\n");
  for (const char* bad : {"x", "0", "1e99", "nan", "1s", "-1"})
    expect_failure({"wait", "web1", "ready", std::string("--timeout=") + bad},
                   std::string("error: Numeric value '") + bad +
                       "' for <timeout> option is malformed or out of range\n");
  EXPECT_THAT(havmd.requests(), ElementsAre());
}

}  // namespace
}  // namespace havm
