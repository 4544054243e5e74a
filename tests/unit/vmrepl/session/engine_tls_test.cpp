// Two real engines with TLS between them, and what happens when one is not what it should be.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/unit/vmrepl/session/engine_pair.hpp"
#include "tests/unit/vmrepl/transport/test_cluster.hpp"
#include "vmrepl/base/files.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;
using testing::Not;

class EngineTlsTest : public EnginePair {
 protected:
  void SetUp() override {
    HAVM_NEED_PROGRAM("qemu-io");
    use(a, cluster.node("a"));
    use(b, cluster.node("b"));
  }
  static void use(EngineProcess& e, const TlsFiles& files) {
    e.config["tls"] = {{"ca", files.ca}, {"certificate", files.certificate}, {"key", files.key}};
  }
  static void wait_for_log(EngineProcess& e, const std::string& words) {
    e.wait_until("a log line with: " + words,
                 [&](const Json&) { return e.log().find(words) != std::string::npos; });
  }
  // No session comes about, and both say why.
  void expect_strangers(const std::string& of_a, const std::string& of_b) {
    start_pair();
    serve(a, 1);
    a.ok("connect");
    wait_for_log(a, of_a);
    wait_for_log(b, of_b);
    EXPECT_EQ(a.status()["session"]["state"], "connecting");
    EXPECT_EQ(b.status()["record"]["promised_epoch"], 0);
    EXPECT_EQ(qemu_io(a, {"write -P 4 0 64k", "flush"}), 0) << "the guest does not wait for that";
  }

  TestCluster cluster;
};

TEST_F(EngineTlsTest, ReplicationOverTlsIsWhole) {
  start_live_and_filled();
  EXPECT_EQ(qemu_io(a, {"write -P 1 0 8M", "write -P 2 5M 4k", "write -z 1M 1M", "flush"}), 0);
  EXPECT_EQ(qemu_io(a, {"read -P 2 5M 4k"}), 0);
  EXPECT_TRUE(same_images());
  for (const EngineProcess* e : {&a, &b})
    EXPECT_THAT(e->log(), Not(HasSubstr("plain TCP")));
  EXPECT_THAT(a.log(), HasSubstr("session open with b"));
}

TEST_F(EngineTlsTest, AKilledPartnerIsNoticedAndFoundAgain) {
  start_pair();
  serve(a, 1);
  grow(a, 1);
  b.kill();
  a.wait_for_session("none");
  EXPECT_TRUE(a.status()["held"]["frozen"].get<bool>());
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_EQ(qemu_io(a, {"write -P 7 0 1M", "flush"}), 0);
  b.start();
  grow(a, 3);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineTlsTest, APartnerSetToPlainTcpIsNoPartner) {
  b.config.erase("tls");
  expect_strangers("is it set to plain TCP?", "is the other side set to TLS");
  EXPECT_THAT(b.log(), HasSubstr("replication goes over plain TCP"));
  EXPECT_THAT(a.log(), HasSubstr("no connection to node b at 127.0.0.1 port"));
}

TEST_F(EngineTlsTest, AnOwnerSetToPlainTcpIsNoOwner) {
  a.config["tls"] = nullptr;
  expect_strangers("is the other side set to TLS", "is the other side set to plain TCP?");
  EXPECT_THAT(b.log(), HasSubstr("a connection from 127.0.0.1 is refused"));
}

TEST_F(EngineTlsTest, AnEngineOfAnotherClusterIsNoPartner) {
  TestCluster other("demo");
  use(b, other.node("b"));
  expect_strangers("the certificate of node b is refused: it was not issued by the cluster CA",
                   "the other side refuses this node: it does not know the CA");
}

TEST_F(EngineTlsTest, AnOwnerOfAnotherClusterHearsWhyItIsRefused) {
  TestCluster other("demo");
  TlsFiles files = other.node("a");
  files.ca =
      other.write("both.pem", other.authority().certificate + cluster.authority().certificate);
  use(a, files);
  expect_strangers("opened no session: the other side refuses this node: it does not know the CA",
                   "the certificate of node a is refused");
}

TEST_F(EngineTlsTest, WithoutCertificatesTheGuestIsServedAndThePartnerJoinsWhenTheyCome) {
  const TlsFiles files = cluster.node("a");
  const std::string key = read_file(files.key).value();
  cluster.write("a.key", "");
  start_pair();
  EXPECT_THAT(a.log(), HasSubstr("no replication is possible: " + files.key));
  serve(a, 1);
  a.ok("connect");
  wait_for_log(a, "no connection to node b");
  EXPECT_EQ(qemu_io(a, {"write -P 4 0 64k", "flush"}), 0);
  cluster.write("a.key", key);
  grow(a, 1);
  EXPECT_TRUE(same_images());
}

// More than an engine will open at once, silent all of them: what has a session notices nothing.
TEST_F(EngineTlsTest, StrangersThatSayNothingDoNotDisturbASession) {
  start_pair();
  serve(a, 1);
  grow(a, 1);
  std::vector<UniqueFd> strangers;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(plan.port_b);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (int i = 0; i < 100; ++i) {
    strangers.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto* generic = reinterpret_cast<const sockaddr*>(&address);
    ASSERT_EQ(::connect(strangers.back().get(), generic, sizeof address), 0);
  }
  wait_for_log(b, "a connection was turned away: 64 are being opened");
  wait_for_log(b, "did not finish the handshake within 2000 ms");
  EXPECT_EQ(a.status()["session"]["state"], "live");
  EXPECT_EQ(qemu_io(a, {"write -P 5 0 1M", "flush"}), 0);
  EXPECT_THAT(a.log(), Not(HasSubstr("session lost")));
  EXPECT_TRUE(same_images());
}

}  // namespace
}  // namespace havm
