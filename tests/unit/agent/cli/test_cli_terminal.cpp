// On a terminal: colours, progress, questions.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agent/cli/run_havm.hpp"

namespace havm {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

class CliTerminal : public testing::Test {
 protected:
  FakeHavmd havmd;

  void answer_list() {
    json body;
    body["vms"] = {example_vm("web1")};
    havmd.answer("GET /v1/vms", 200, body);
  }
  void answer_unprotect() {
    havmd.answer("POST /v1/vms/web1/unprotect", 202, json::parse(R"({"operation": "1"})"));
    havmd.answer(
        "GET /v1/operations/1", 200,
        json::parse(R"({"state": "running", "step": "stopping the engine", "percent": 42})"));
    havmd.answer("GET /v1/operations/1", 200,
                 json::parse(R"({"state": "running", "step": "define", "percent": null})"));
    havmd.answer("GET /v1/operations/1", 200, json::parse(R"({"state": "done"})"));
  }
};

TEST_F(CliTerminal, ColoursDoNotMoveColumns) {
  answer_list();
  const Outcome outcome = run_havm_on_terminal(havmd, {"-q", "list"}, "");
  EXPECT_EQ(outcome.out,
            " web1   \x1B[32mrunning\x1B[0m   owner   a   b   \x1B[32min-sync\x1B[0m   "
            "\x1B[32myes\x1B[0m\r\n");
}

TEST_F(CliTerminal, NoColorAndDumbTerminals) {
  answer_list();
  for (const std::vector<std::string>& environment :
       {std::vector<std::string>{"TERM=xterm", "NO_COLOR=1"}, {"TERM=dumb"}, {}}) {
    const Outcome outcome = run_havm_on_terminal(havmd, {"list"}, "", environment);
    EXPECT_THAT(outcome.out, HasSubstr("in-sync"));
    EXPECT_THAT(outcome.out, Not(HasSubstr("\x1B")));
  }
}

TEST_F(CliTerminal, ProgressStaysOnItsLine) {
  answer_unprotect();
  const Outcome outcome = run_havm_on_terminal(havmd, {"unprotect", "web1", "--yes"}, "");
  EXPECT_EQ(outcome.exit_status, 0);
  EXPECT_EQ(outcome.out,
            "\r[ 42 %] stopping the engine"
            "\rdefine                     \r\n"
            "Domain 'web1' is no longer protected\r\n"
            "\r\n");
}

TEST_F(CliTerminal, QuietShowsNoProgress) {
  answer_unprotect();
  EXPECT_EQ(run_havm_on_terminal(havmd, {"-q", "unprotect", "web1", "--yes"}, "").out, "");
}

TEST_F(CliTerminal, UnprotectAsksFirst) {
  answer_unprotect();
  const Outcome no = run_havm_on_terminal(havmd, {"unprotect", "web1"}, "n\n");
  EXPECT_EQ(no.exit_status, 1);
  EXPECT_THAT(no.out, HasSubstr("Give up the second replica of domain 'web1'? [y/N] "));
  EXPECT_THAT(no.out, HasSubstr("error: not confirmed: domain 'web1' stays protected"));
  EXPECT_TRUE(havmd.requests().empty());

  const Outcome yes = run_havm_on_terminal(havmd, {"unprotect", "web1"}, "y\n");
  EXPECT_EQ(yes.exit_status, 0);
  EXPECT_FALSE(havmd.requests().empty());
}

TEST_F(CliTerminal, WaitShowsTheSynchronisation) {
  json vm = example_vm("web1");
  vm["sync"] = {{"state", "resyncing"}, {"done_bytes", 42}, {"total_bytes", 100}};
  havmd.answer("GET /v1/vms/web1", 200, vm);
  havmd.answer("GET /v1/vms/web1", 200, example_vm("web1"));
  const Outcome outcome = run_havm_on_terminal(havmd, {"wait", "web1", "in-sync"}, "");
  EXPECT_EQ(outcome.out, "\rSynchronising: [ 42 %]\r\nDomain 'web1' is in-sync\r\n\r\n");
}

}  // namespace
}  // namespace havm
