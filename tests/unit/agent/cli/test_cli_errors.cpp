// What havm says when it cannot do its work: always "error: …" on standard error and exit status 1.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/agent/cli/run_havm.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

class CliErrors : public testing::Test {
 protected:
  FakeHavmd havmd;

  void expect(const std::vector<std::string>& arguments, const std::string& err,
              const std::string& out = "") {
    const Outcome outcome = run_havm(havmd, arguments);
    EXPECT_EQ(outcome.err, err);
    EXPECT_EQ(outcome.out, out);
    EXPECT_EQ(outcome.exit_status, 1);
  }
};

TEST_F(CliErrors, OfTheCommandLine) {
  expect({"fly"}, "error: unknown command: 'fly'\n");
  expect({"domstat", "x"}, "error: unknown command: 'domstat'\nerror: did you mean 'domstate'?\n");
  expect({"dominfo"}, "error: command 'dominfo' requires <domain> option\n");
  expect({"dominfo", "x", "--fly"}, "error: command 'dominfo' doesn't support option --fly\n");
  expect({"dominfo", "x", "y"}, "error: unexpected data 'y'\n");
  expect({"--fly"}, "error: unsupported option '--fly'. See --help.\n");
  expect({"help", "fly"}, "error: command or command group 'fly' doesn't exist\n", "\n");
  EXPECT_TRUE(havmd.requests().empty());
}

TEST_F(CliErrors, HavmdIsNotRunning) {
  havmd.stop();
  const std::string text = "error: cannot reach havmd at " + havmd.socket() +
                           ": is it running? (systemctl start havmd)\n";
  expect({"list"}, text, "\n");
  expect({"-q", "list"}, text);
  expect({"list", "--json"}, text);
  expect({"wait", "web1", "ready"}, text, "\n");
  unlink(havmd.socket().c_str());
  expect({"start", "web1"}, text, "\n");
}

TEST_F(CliErrors, PermissionDenied) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become somebody else";
  const std::string err = havmd.write_file("err", "");
  const pid_t child = fork();
  if (child == 0) {  // root may open everything: try as nobody
    dup2(open(err.c_str(), O_WRONLY), STDERR_FILENO);
    dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(2);
    execl(HAVM_BINARY, "havm", "-c", havmd.socket().c_str(), "list", nullptr);
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    GTEST_SKIP() << "nobody may not run the program where it was built";
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1);
  EXPECT_EQ(read_file(err).value(), "error: cannot reach havmd at " + havmd.socket() +
                                        ": permission denied (run havm as root)\n");
}

TEST_F(CliErrors, ARefusalWithoutASentence) {
  havmd.answer("GET /v1/vms", 500, json::array());
  expect({"list"}, "error: havmd answered with status 500 and no explanation\n", "\n");
}

TEST_F(CliErrors, AnAnswerOfAnotherFormIsBorne) {
  havmd.answer("GET /v1/vms", 200, json::parse(R"({"vms": [1, {"protected": true}, null]})"));
  const Outcome outcome = run_havm(havmd, {"-q", "list"});
  EXPECT_EQ(outcome.out, " -   -   -   -   -   -   no\n");
  havmd.answer("GET /v1/vms/x", 200, json(7));
  EXPECT_EQ(run_havm(havmd, {"dominfo", "x"}).exit_status, 0);
}

TEST_F(CliErrors, TextOfHavmdCannotPlayWithTheTerminal) {
  havmd.answer("GET /v1/vms/x", 404, json::parse(R"({"error": "bad \u001b[2J\u0007"})"));
  expect({"dominfo", "x"}, "error: bad \\x1B[2J\\x07\n", "\n");
}

TEST_F(CliErrors, FullDisk) {
  havmd.answer("GET /v1/vms", 200, json::parse(R"({"vms": []})"));
  const std::string command = std::string(HAVM_BINARY) + " -c " + havmd.socket() +
                              " list >/dev/full 2>" + havmd.folder() + "/err";
  const int status = std::system(command.c_str());
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

TEST_F(CliErrors, ClusterValidate) {
  const std::string path = havmd.write_file("cluster.json", R"({"version": 1, "cluster": "x",
    "nodes": {"a": {"links": ["10.0.0.1"]}, "b": {"links": ["10.0.0.1"]}},
    "timing": {"leese": "6s"}})");
  expect({"cluster-validate", path},
         "error: " + path + ": /nodes/b/links/0: address 10.0.0.1 is already given at " +
             "/nodes/a/links/0: each link of each node needs its own\n" + "error: " + path +
             ": /timing/leese: unknown key; did you mean \"lease\"?\n",
         "\n");
  const Outcome missing = run_havm(havmd, {"cluster-validate", "/nonexistent"});
  EXPECT_EQ(missing.exit_status, 1);
  EXPECT_THAT(missing.err, testing::AllOf(StartsWith("error: "), HasSubstr("/nonexistent")));
}

TEST_F(CliErrors, ExamplesAreValid) {
  const std::string cluster = HAVM_SOURCE_DIR "/conf/cluster.example.json";
  const std::string policy = HAVM_SOURCE_DIR "/conf/policy.example.json";
  EXPECT_EQ(run_havm(havmd, {"cluster-validate", cluster}).out,
            "Cluster configuration '" + cluster + "' is valid\n\n");
  EXPECT_EQ(run_havm(havmd, {"policy-validate", policy}).out,
            "Policy '" + policy + "' is valid\n\n");
  EXPECT_EQ(json::parse(run_havm(havmd, {"policy-validate", policy, "--json"}).out).at("valid"),
            true);
}

}  // namespace
}  // namespace havm
