// cluster-init, node-join and certificate-info by the real program, as a person uses them on two
// hosts.
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/pki/authority.hpp"
#include "agent/pki/bundle.hpp"
#include "tests/unit/agent/cli/run_havm.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class CliCertificates : public testing::Test {
 protected:
  CliCertificates() { havmd.stop(); }  // none of these commands needs it

  // A command on host a or b: with its name, its directory and the common cluster file.
  Outcome on(const std::string& host, std::vector<std::string> words) {
    for (const std::string& each : {std::string("--config"), config, std::string("--node"), host,
                                    std::string("--dir"), directory(host)})
      words.push_back(each);
    return run_program(words, havmd.folder());
  }
  static void expect_done(const Outcome& outcome) {
    EXPECT_EQ(outcome.exit_status, 0);
    EXPECT_EQ(outcome.err, "");
  }
  static void expect_refused(const Outcome& outcome, const std::string& why) {
    EXPECT_EQ(outcome.exit_status, 1);
    EXPECT_THAT(outcome.err, testing::StartsWith("error: "));
    EXPECT_THAT(outcome.err, HasSubstr(why));
  }
  [[nodiscard]] std::string directory(const std::string& host) const {
    return havmd.folder() + "/" + host + "-tls";
  }
  // Content of every file below a host's directory, by name.
  [[nodiscard]] std::map<std::string, std::string> files(const std::string& host) const {
    std::map<std::string, std::string> found;
    if (!std::filesystem::exists(directory(host))) return found;
    for (const auto& entry : std::filesystem::directory_iterator(directory(host)))
      found[entry.path().filename().string()] = read_file(entry.path().string()).value();
    return found;
  }
  static mode_t mode_of(const std::string& path) {
    struct stat st {};
    EXPECT_EQ(::stat(path.c_str(), &st), 0) << path;
    return st.st_mode & 07777;
  }
  [[nodiscard]] std::string cluster_text(const std::string& name) const {
    return R"({"version": 1, "cluster": ")" + name +
           R"(", "nodes": {"a": {"links": ["10.0.0.1"]}, "b": {"links": ["10.0.0.2"]}}})";
  }
  void join_both() {
    expect_done(on("a", {"cluster-init"}));
    expect_done(on("a", {"node-join", "b", "--out", bundle}));
    expect_done(on("b", {"node-join", "--from", bundle}));
  }

  FakeHavmd havmd;
  std::string config = havmd.write_file("cluster.json", cluster_text("demo"));
  std::string bundle = havmd.folder() + "/b.pem";
};

TEST_F(CliCertificates, TwoNodesJoin) {
  const Outcome init = on("a", {"cluster-init"});
  expect_done(init);
  EXPECT_EQ(init.out, "CA of cluster 'demo' and certificate of node 'a' created in '" +
                          directory("a") + "'\nNext: havm node-join b\n\n");
  const Outcome made = on("a", {"node-join", "b", "--out", bundle});
  expect_done(made);
  EXPECT_EQ(made.out, "Certificate and key of node 'b' written to '" + bundle +
                          "'\nCarry it to node 'b' (scp -p), run 'havm node-join --from FILE' "
                          "there, and delete it on both\n\n");
  EXPECT_EQ(mode_of(bundle), 0600U);
  const Outcome joined = on("b", {"node-join", "--from", bundle});
  expect_done(joined);
  EXPECT_EQ(joined.out, "Node 'b' joined cluster 'demo': certificates installed in '" +
                            directory("b") + "'\n\n");
  for (const std::string host : {"a", "b"}) {
    EXPECT_EQ(mode_of(directory(host)), 0700U);
    EXPECT_EQ(mode_of(directory(host) + "/node.key"), 0600U);
    const json info = json::parse(
        run_program({"certificate-info", "--dir", directory(host), "--json"}, havmd.folder()).out);
    EXPECT_EQ(info.at("node"), host);
    EXPECT_EQ(info.at("cluster"), "demo");
    EXPECT_EQ(info.at("has_ca_key"), host == "a");
    EXPECT_TRUE(info.at("problem").is_null());
  }
  EXPECT_EQ(files("a").at("ca.pem"), files("b").at("ca.pem"));
  EXPECT_FALSE(files("b").contains("ca.key"));
  EXPECT_EQ(mode_of(directory("a") + "/ca.key"), 0600U);
}

TEST_F(CliCertificates, InfoForAPerson) {
  join_both();
  const Outcome info = run_program({"certificate-info", "--dir", directory("b")}, havmd.folder());
  for (const char* line :
       {"Node:           b\n", "Cluster:        demo\n", "CA key:         not here\n",
        "State:          good\n", "Issuer:         CN=havm CA of cluster demo,O=demo\n"})
    EXPECT_THAT(info.out, HasSubstr(line));
  expect_refused(run_program({"certificate-info", "--dir", "/nonexistent"}, havmd.folder()),
                 "/nonexistent/ca.pem");
}

TEST_F(CliCertificates, InfoTellsWhatIsNoGood) {
  join_both();
  std::filesystem::copy_file(directory("a") + "/node.key", directory("b") + "/node.key",
                             std::filesystem::copy_options::overwrite_existing);
  const Outcome info = run_program({"certificate-info", "--dir", directory("b")}, havmd.folder());
  EXPECT_EQ(info.exit_status, 0);
  EXPECT_THAT(info.out, HasSubstr("node.key does not belong to the certificate"));
}

TEST_F(CliCertificates, DryRunsChangeNothing) {
  const Outcome init = on("a", {"cluster-init", "--dry-run"});
  expect_done(init);
  EXPECT_THAT(init.out,
              HasSubstr("Plan (nothing was changed):\n 1. make the CA of cluster 'demo'"));
  EXPECT_FALSE(std::filesystem::exists(directory("a")));
  expect_done(on("a", {"cluster-init"}));
  const auto before = files("a");
  expect_done(on("a", {"node-join", "b", "--out", bundle, "--dry-run"}));
  EXPECT_FALSE(std::filesystem::exists(bundle));
  expect_done(on("a", {"node-join", "b", "--out", bundle}));
  const Outcome join = on("b", {"node-join", "--from", bundle, "--dry-run", "--json"});
  expect_done(join);
  EXPECT_EQ(json::parse(join.out).at("changed"), false);
  EXPECT_EQ(json::parse(join.out).at("plan").size(), 1U);
  EXPECT_FALSE(std::filesystem::exists(directory("b")));
  EXPECT_EQ(files("a"), before);
}

TEST_F(CliCertificates, WhatIsThereIsReplacedOnlyByForce) {
  join_both();
  const auto a = files("a");
  const auto b = files("b");
  const std::string carried = read_file(bundle).value();
  expect_refused(on("a", {"cluster-init"}), "say --force to replace them");
  expect_refused(on("a", {"cluster-init", "--dry-run"}), "say --force");
  expect_refused(on("a", {"node-join", "b", "--out", bundle}), "say --force to replace it");
  expect_refused(on("b", {"node-join", "--from", bundle}), "say --force to replace them");
  EXPECT_EQ(files("a"), a);
  EXPECT_EQ(files("b"), b);
  EXPECT_EQ(read_file(bundle).value(), carried);
  // A node's certificate is renewed with the same CA.
  expect_done(on("a", {"node-join", "b", "--out", bundle, "--force"}));
  expect_done(on("b", {"node-join", "--from", bundle, "--force"}));
  EXPECT_NE(files("b").at("node.pem"), b.at("node.pem"));
  EXPECT_EQ(files("b").at("ca.pem"), b.at("ca.pem"));
  // Also that of the node with the CA, which keeps it.
  expect_done(on("a", {"node-join", "a", "--out", bundle, "--force"}));
  expect_done(on("a", {"node-join", "--from", bundle, "--force"}));
  EXPECT_NE(files("a").at("node.pem"), a.at("node.pem"));
  EXPECT_EQ(files("a").at("ca.key"), a.at("ca.key"));
  // A new CA.
  expect_done(on("a", {"cluster-init", "--force"}));
  EXPECT_NE(files("a").at("ca.pem"), a.at("ca.pem"));
  EXPECT_EQ(files("a").size(), 4U);
}

TEST_F(CliCertificates, RefusalsOfNodeJoin) {
  expect_refused(on("a", {"node-join", "b", "--out", bundle}), "'havm cluster-init' ran");
  join_both();
  expect_refused(on("a", {"node-join"}), "requires either <member> or --from");
  expect_refused(on("a", {"node-join", "b", "--from", bundle}),
                 "requires either <member> or --from");
  expect_refused(on("a", {"node-join", "--from", bundle, "--days", "3"}), "mutually exclusive");
  expect_refused(on("a", {"node-join", "c"}), "has no node 'c': its nodes are a, b");
  expect_refused(on("b", {"node-join", "a"}), "'havm cluster-init' ran");
  expect_refused(on("a", {"node-join", "--from", bundle, "--force"}),
                 "is that of node b, and this is node a");
  expect_refused(on("b", {"node-join", "--from", "/nonexistent"}), "/nonexistent");
  expect_refused(on("b", {"node-join", "--from", config, "--force"}), "is no bundle");
  for (const char* days : {"0", "-1", "x", "36501", "1.5"})
    expect_refused(on("a", {"cluster-init", "--force", std::string("--days=") + days}),
                   "Numeric value");
  config = havmd.write_file("cluster.json", cluster_text("other"));
  expect_refused(on("b", {"node-join", "--from", bundle, "--force"}),
                 "is for cluster 'demo', and this node is in cluster 'other'");
  expect_refused(on("a", {"node-join", "b", "--force"}), "of cluster 'demo', not of 'other'");
}

TEST_F(CliCertificates, ABundleThatIsOldOrOfAnotherCaIsRefused) {
  join_both();
  const auto before = files("b");
  const auto authority = make_authority("demo", validity_of(10, ::time(nullptr))).value();
  const auto old = certify_node(authority, "demo", "b", {1000, 2000}).value();
  std::string path = havmd.write_file(
      "old.pem", make_bundle({authority.certificate, old.certificate, old.key}, "demo", "b"));
  expect_refused(on("b", {"node-join", "--from", path, "--force"}), "expired at 1970-01-01");
  const auto fresh = certify_node(authority, "demo", "b", validity_of(5, ::time(nullptr))).value();
  path = havmd.write_file(
      "foreign.pem", make_bundle({before.at("ca.pem"), fresh.certificate, fresh.key}, "demo", "b"));
  expect_refused(on("b", {"node-join", "--from", path, "--force"}), "not issued by the cluster CA");
  EXPECT_EQ(files("b"), before);
}

TEST_F(CliCertificates, TheHostIsANodeOfTheClusterFile) {
  expect_refused(on("c", {"cluster-init"}), "this host is 'c', but the cluster file has no such");
  expect_refused(run_program({"cluster-init", "--config", "/nonexistent"}, havmd.folder()),
                 "/nonexistent");
  EXPECT_FALSE(std::filesystem::exists(directory("c")));
}

}  // namespace
}  // namespace havm
