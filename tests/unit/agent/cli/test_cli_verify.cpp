// resync-verify, and what the other commands say of a verify.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agent/cli/run_havm.hpp"

namespace havm {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class CliVerify : public testing::Test {
 protected:
  FakeHavmd havmd;

  static json vm_that_ended(const std::string& id, const std::string& result) {
    json vm = example_vm("web1");
    json& verify = vm["verify"];
    verify["running"] = false;
    verify["unresolved_bytes"] = 0;
    json& last = verify["last"];
    last["id"] = id;
    last["time"] = "2025-01-31T09:30:00.123Z";
    last["result"] = result;
    last["reason"] = "the session with the partner ended";
    last["mismatch_bytes"] = 0;
    last["repaired_bytes"] = 0;
    last["mismatches"] = json::array();
    return vm;
  }
  static json vm_with_mismatch() {
    json vm = vm_that_ended("2", "mismatch");
    vm["verify"]["unresolved_bytes"] = 65536;
    vm["verify"]["last"]["mismatch_bytes"] = 65536;
    vm["verify"]["last"]["mismatches"] = json::parse(
        R"([{"disk": "vda", "offset": 1048576, "length": 65536, "reason": "different",
             "repaired": false}])");
    return vm;
  }
  static json vm_that_runs() {
    json vm = vm_that_ended("1", "clean");
    vm["verify"]["running"] = true;
    vm["verify"]["done_bytes"] = 42;
    vm["verify"]["total_bytes"] = 100;
    return vm;
  }
  // Before, two looks while it runs, its end.
  void answer(const json& end) {
    havmd.answer("POST /v1/vms/web1/verify", 200, json::parse(R"({"verify": {"running": true}})"));
    for (const json& vm : {vm_that_ended("1", "clean"), vm_that_runs(), vm_that_runs(), end})
      havmd.answer("GET /v1/vms/web1", 200, vm);
  }
  void expect_failure(const std::vector<std::string>& arguments, const std::string& err) {
    const Outcome outcome = run_havm(havmd, arguments);
    EXPECT_EQ(outcome.err, err);
    EXPECT_EQ(outcome.exit_status, 1);
  }
  std::vector<std::string> posts() const {
    std::vector<std::string> found;
    for (const std::string& request : havmd.requests())
      if (request.starts_with("POST")) found.push_back(request);
    return found;
  }
};

TEST_F(CliVerify, WaitsForTheEndOfAVerifyThatIsClean) {
  answer(vm_that_ended("2", "clean"));
  const Outcome outcome = run_havm(havmd, {"resync-verify", "web1"});
  EXPECT_EQ(outcome.out, "Domain 'web1' verified: both replicas are the same\n\n");
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(outcome.exit_status, 0);
  EXPECT_THAT(posts(), ElementsAre(R"(POST /v1/vms/web1/verify {"cancel":false,"repair":false})"));
  EXPECT_EQ(havmd.requests().size(), 5U);
}

TEST_F(CliVerify, AMismatchIsAFailureWithItsPlaces) {
  answer(vm_with_mismatch());
  expect_failure(
      {"resync-verify", "web1"},
      "error: domain 'web1': the replicas differ in 64.00 KiB; which of them is right is not known "
      "(see havm(1), resync-verify)\n"
      "error: disk vda: 65536 bytes at 1048576 (different)\n");
}

TEST_F(CliVerify, AMismatchIsAFailureAlsoForPrograms) {
  answer(vm_with_mismatch());
  const Outcome outcome = run_havm(havmd, {"resync-verify", "web1", "--json"});
  EXPECT_EQ(json::parse(outcome.out), vm_with_mismatch());
  EXPECT_EQ(outcome.exit_status, 1);
}

TEST_F(CliVerify, ARepairIsTold) {
  json end = vm_that_ended("2", "repaired");
  end["verify"]["last"]["mismatch_bytes"] = end["verify"]["last"]["repaired_bytes"] = 65536;
  answer(end);
  const Outcome outcome = run_havm(havmd, {"resync-verify", "web1", "--repair", "--yes"});
  EXPECT_EQ(outcome.out,
            "Domain 'web1' verified: 64.00 KiB copied from the owner to the partner\n\n");
  EXPECT_EQ(outcome.exit_status, 0);
  EXPECT_THAT(posts(), ElementsAre(R"(POST /v1/vms/web1/verify {"cancel":false,"repair":true})"));
}

TEST_F(CliVerify, AnEarlyEndIsAFailure) {
  answer(vm_that_ended("2", "interrupted"));
  expect_failure({"resync-verify", "web1"},
                 "error: domain 'web1': the verify ended early (interrupted): the session with the "
                 "partner ended\n");
}

TEST_F(CliVerify, AVerifyThatVanishedIsNotTakenForTheOneBefore) {
  answer(vm_that_ended("1", "clean"));
  expect_failure({"resync-verify", "web1"},
                 "error: domain 'web1': the verify has no result: its engine or its owner changed "
                 "meanwhile; run it again\n");
}

TEST_F(CliVerify, AnEngineThatDoesNotAnswerForAMomentIsWaitedFor) {
  havmd.answer("POST /v1/vms/web1/verify", 200, json::object());
  json away = vm_that_runs();
  away["verify"]["running"] = nullptr;
  for (const json& vm : {vm_that_ended("1", "clean"), away, vm_that_ended("2", "clean")})
    havmd.answer("GET /v1/vms/web1", 200, vm);
  EXPECT_EQ(run_havm(havmd, {"resync-verify", "web1"}).exit_status, 0);
}

TEST_F(CliVerify, NoWaitAndCancelReturnAtOnce) {
  havmd.answer("GET /v1/vms/web1", 200, vm_that_runs());
  havmd.answer("POST /v1/vms/web1/verify", 200, json::object());
  EXPECT_EQ(run_havm(havmd, {"resync-verify", "web1", "--no-wait"}).out,
            "Verify of domain 'web1' begun\n\n");
  EXPECT_EQ(run_havm(havmd, {"resync-verify", "web1", "--cancel"}).out,
            "Verify of domain 'web1' cancelled\n\n");
  EXPECT_THAT(posts(), ElementsAre(R"(POST /v1/vms/web1/verify {"cancel":false,"repair":false})",
                                   R"(POST /v1/vms/web1/verify {"cancel":true,"repair":false})"));
}

TEST_F(CliVerify, OnThePartnerTheOwnerIsNamed) {
  havmd.answer("GET /v1/vms/web1", 200, example_vm("web1"));
  havmd.answer("POST /v1/vms/web1/verify", 409,
               json::parse(R"({"error": "node b owns VM 'web1': only there it can be verified"})"));
  expect_failure({"resync-verify", "web1"},
                 "error: node b owns VM 'web1': only there it can be verified\n");
}

TEST_F(CliVerify, OptionsThatExcludeEachOtherSendNothing) {
  expect_failure({"resync-verify", "web1", "--cancel", "--repair"},
                 "error: options --cancel and --repair are mutually exclusive\n");
  expect_failure({"resync-verify", "web1", "--wait", "--no-wait"},
                 "error: options --wait and --no-wait are mutually exclusive\n");
  EXPECT_THAT(havmd.requests(), ElementsAre());
}

TEST_F(CliVerify, ARepairAsksFirst) {
  answer(vm_that_ended("2", "clean"));
  const Outcome no = run_havm_on_terminal(havmd, {"resync-verify", "web1", "--repair"}, "n\n");
  EXPECT_EQ(no.exit_status, 1);
  EXPECT_THAT(no.out, HasSubstr("overwrite the partner's with the owner's? [y/N] "));
  EXPECT_THAT(no.out, HasSubstr("error: not confirmed: nothing was begun"));
  EXPECT_TRUE(havmd.requests().empty());
  const Outcome yes = run_havm_on_terminal(havmd, {"resync-verify", "web1", "--repair"}, "y\n");
  EXPECT_EQ(yes.exit_status, 0);
  EXPECT_EQ(posts().size(), 1U);
}

TEST_F(CliVerify, ProgressIsShownOnATerminal) {
  json running = vm_that_runs();
  running["verify"]["rate_bytes_per_s"] = 1048576;
  running["verify"]["mismatch_bytes"] = 65536;
  havmd.answer("POST /v1/vms/web1/verify", 200, json::object());
  for (const json& vm : {vm_that_ended("1", "clean"), running, vm_that_ended("2", "clean")})
    havmd.answer("GET /v1/vms/web1", 200, vm);
  EXPECT_THAT(run_havm_on_terminal(havmd, {"resync-verify", "web1"}, "").out,
              HasSubstr("\rVerifying: [ 42 %] 1.00 MiB/s, 64.00 KiB differ\r\n"));
}

TEST_F(CliVerify, ListAndDominfoShowAMismatch) {
  json all;
  all["vms"] = {vm_with_mismatch()};
  havmd.answer("GET /v1/vms", 200, all);
  havmd.answer("GET /v1/vms/web1", 200, vm_with_mismatch());
  EXPECT_THAT(run_havm(havmd, {"list"}).out, HasSubstr(" in-sync, mismatch "));
  EXPECT_THAT(run_havm(havmd, {"dominfo", "web1"}).out,
              HasSubstr("Last verify:    mismatch: 64.00 KiB differ between the replicas; last: "
                        "mismatch (2025-01-31T09:30:00.123Z)\n"));
}

TEST_F(CliVerify, DominfoShowsTheLastVerifyAndTheRunningOne) {
  json vm = vm_that_runs();
  vm["policy"]["verify"]["every"] = "7d";
  havmd.answer("GET /v1/vms/web1", 200, vm);
  const std::string out = run_havm(havmd, {"dominfo", "web1"}).out;
  EXPECT_THAT(out, HasSubstr("Last verify:    clean (2025-01-31T09:30:00.123Z); running 42 %\n"));
  EXPECT_THAT(out, HasSubstr("Verify every:   7d\n"));
  EXPECT_THAT(out, Not(HasSubstr("mismatch")));
}

}  // namespace
}  // namespace havm
