// Two real engines with a bad network between them: bytes late, lost, damaged, cut off and out of
// order. What the guest was told must be on both replicas, and nothing may be applied that is
// damaged or of a session that is over.
#include <cstdlib>
#include <filesystem>
#include <future>
#include <optional>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/vmrepl/session/engine_pair.hpp"
#include "tests/unit/vmrepl/session/tcp_proxy.hpp"
#include "tests/unit/vmrepl/session/verified_guest.hpp"
#include "vmrepl/base/clock.hpp"
#include "vmrepl/wire/frame_codec.hpp"

namespace havm {
namespace {

using Json = nlohmann::json;
using Way = TcpProxy::Way;
using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr std::uint64_t disk_bytes = 4U << 20;
constexpr milliseconds session_timeout{500};

class EngineNetworkFaults : public EnginePair {
 protected:
  EngineNetworkFaults() : EnginePair(disk_bytes), to_b(plan.port_b), to_a(plan.port_a) {
    a.config["partner_addresses"][0]["port"] = to_b.port();
    b.config["partner_addresses"][0]["port"] = to_a.port();
    for (EngineProcess* e : {&a, &b})
      e->config["timing"] = {{"keepalive_ms", 50},
                             {"session_timeout_ms", session_timeout.count()},
                             {"lease_ms", 6000}};
  }
  void SetUp() override { HAVM_NEED_PROGRAM("qemu-io"); }
  void start_live() {
    start_pair();
    serve(a, 1);
    grow(a, 1);
  }
  // What an agent does after the loss; the guest goes on.
  void shrink_and_grow(std::future<int>& waiting, std::uint64_t epoch = 3) {
    a.ok("shrink", {{"epoch", epoch}});
    EXPECT_EQ(waiting.get(), 0);
    grow(a, epoch);
    EXPECT_TRUE(same_images());
  }
  static bool log_has(const EngineProcess& e, const std::string& text) {
    return e.log().find(text) != std::string::npos;
  }

  TcpProxy to_b;  // between the owner a and the secondary b
  TcpProxy to_a;
};

TEST_F(EngineNetworkFaults, WithoutAFaultTheProxyChangesNothing) {
  start_live();
  EXPECT_EQ(qemu_io(a, {"write -P 1 0 1M", "discard 128k 64k", "flush"}), 0);
  EXPECT_TRUE(same_images());
  EXPECT_EQ(to_b.connections(), 1U);
}

TEST_F(EngineNetworkFaults, ALongWayIsWaitedForAndIsNoLoss) {
  start_live();
  for (const Way way : {Way::to_server, Way::to_client})
    to_b.delay(way, milliseconds(200));
  const auto began = BootClock::now();
  EXPECT_EQ(qemu_io(a, {"write -P 0x22 0 64k"}), 0);
  EXPECT_GE(to_ms(BootClock::now() - began), 400);
  EXPECT_EQ(a.status()["session"]["state"], "live");
  EXPECT_TRUE(same_images());
  EXPECT_EQ(to_b.connections(), 1U);
}

// Half-open in each way, and a black hole: all are silence, sooner or later.
class SilentWays : public EngineNetworkFaults,
                   public testing::WithParamInterface<std::vector<Way>> {};
INSTANTIATE_TEST_SUITE_P(, SilentWays,
                         testing::Values(std::vector{Way::to_server}, std::vector{Way::to_client},
                                         std::vector{Way::to_server, Way::to_client}));

TEST_P(SilentWays, AreALossAndHoldTheGuestUntilTheShrink) {
  start_live();
  for (const Way way : GetParam())
    to_b.swallow(way);
  auto waiting = guest(a, {"write -P 0x22 0 64k", "flush"});
  a.wait_for_session("none");
  EXPECT_TRUE(is_held(a, waiting));
  b.wait_for_session("none");  // also without having heard of it
  // Nothing gets through, so nothing is found by trying.
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_EQ(waiting.get(), 0);
  a.ok("connect");
  a.wait_until("attempts", [this](const Json&) { return to_b.connections() >= 3; });
  EXPECT_EQ(a.status()["session"]["state"], "connecting");
  to_b.heal();
  grow(a, 3);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineNetworkFaults, ADamagedWriteIsNotApplied) {
  start_live();
  EXPECT_EQ(qemu_io(a, {"write -P 0x11 0 64k", "flush"}), 0);
  const std::string good = plan.directory + "/good";
  std::filesystem::copy_file(b.image(), good);
  // In the middle of the next big frame, whatever small ones come before it.
  to_b.corrupt(Way::to_server, 40'000);
  auto waiting = guest(a, {"write -P 0x22 0 64k"});
  a.wait_for_session("none");
  EXPECT_TRUE(is_held(a, waiting));
  EXPECT_EQ(to_b.corrupted(), 1U);
  EXPECT_THAT(b.log(), HasSubstr("a frame is unusable"));
  EXPECT_EQ(run_program({"cmp", good, b.image()}).exit_code, 0);
  shrink_and_grow(waiting);
}

TEST_F(EngineNetworkFaults, ADamagedAckIsNone) {
  start_live();
  to_b.corrupt(Way::to_client, 10);  // of a lease grant or of the ack
  auto waiting = guest(a, {"write -P 0x22 0 64k"});
  a.wait_for_session("none");
  EXPECT_TRUE(log_has(a, "a frame is unusable")) << a.log();
  // The guest may have been served before the damage came.
  if (waiting.wait_for(milliseconds(300)) == std::future_status::timeout) {
    EXPECT_TRUE(is_held(a, waiting));
  }
  shrink_and_grow(waiting);
}

TEST_F(EngineNetworkFaults, AConnectionCutInTheMiddleOfAFrameLosesNothing) {
  start_live();
  std::uint64_t epoch = 2;
  for (const std::uint64_t byte : {std::uint64_t{1}, std::uint64_t{frame_header_bytes + 5},
                                   std::uint64_t{30'000}, std::uint64_t{65'000}}) {
    SCOPED_TRACE(byte);
    to_b.cut(Way::to_server, byte);
    auto waiting = guest(a, {"write -P " + std::to_string(epoch) + " 0 64k"});
    a.wait_for_session("none");
    shrink_and_grow(waiting, ++epoch);
    ++epoch;
    EXPECT_EQ(qemu_io(a, {"read -P " + std::to_string(epoch - 2) + " 0 64k"}), 0);
  }
  EXPECT_EQ(to_b.cuts(), 4U);
}

// The old connection's bytes come after the new session was opened: they are of no interest.
TEST_F(EngineNetworkFaults, BytesOfAnOldConnectionAreNotAppliedInANewSession) {
  b.config["timing"]["session_timeout_ms"] = 20'000;  // b keeps the old connection
  start_live();
  to_b.set_aside();
  auto waiting = guest(a, {"write -P 0x11 0 64k"});
  a.wait_for_session("none");
  EXPECT_EQ(b.status()["session"]["state"], "secondary");
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_EQ(waiting.get(), 0);
  EXPECT_EQ(qemu_io(a, {"write -P 0x22 0 64k", "flush"}), 0);
  // In the middle of the new resync, as far as it has not ended yet.
  a.ok("connect");
  b.wait_until("the new session",
               [](const Json& s) { return s["session"]["epoch"].get<int>() == 3; });
  EXPECT_GT(to_b.deliver_aside(), 64U << 10);
  grow(a, 3);
  EXPECT_TRUE(same_images());
  EXPECT_EQ(qemu_io(a, {"read -P 0x22 0 64k"}), 0);
}

TEST_F(EngineNetworkFaults, BytesOfADeposedOwnerAreNotAppliedAfterThePromise) {
  b.config["timing"]["session_timeout_ms"] = 20'000;
  start_live();
  EXPECT_EQ(qemu_io(a, {"write -P 0x11 0 64k", "flush"}), 0);
  to_b.set_aside();
  auto waiting = guest(a, {"write -P 0x22 0 64k"});
  a.wait_until("a held request", [](const Json& s) { return s["held"]["requests"] == 1; });
  b.ok("promise", {{"epoch", 3}});
  EXPECT_GT(to_b.deliver_aside(), 64U << 10);
  b.ok("serve", {{"epoch", 3}});
  EXPECT_EQ(qemu_io(b, {"read -P 0x11 0 64k", "write -P 0x33 0 64k"}), 0);
  EXPECT_TRUE(is_held(a, waiting));
  a.ok("stand-by", {{"epoch", 3}, {"outdated", true}});
  EXPECT_NE(waiting.get(), 0);
  grow(b, 3);
  EXPECT_TRUE(same_images());
  EXPECT_EQ(qemu_io(b, {"read -P 0x33 0 64k"}), 0);
}

// ---- at random -------------------------------------------------------------------------------

class RandomNetwork : public EngineNetworkFaults,
                      public testing::WithParamInterface<std::uint64_t> {
 protected:
  static constexpr int rounds = 4;

  EngineProcess& owner() { return *owner_; }
  EngineProcess& other() { return owner_ == &a ? b : a; }
  TcpProxy& network() { return owner_ == &a ? to_b : to_a; }

  // One fault, chosen by the seed, while the guest writes.
  void break_something() {
    const Way way = random_() % 2 == 0 ? Way::to_server : Way::to_client;
    const std::uint64_t byte = random_() % 200'000;
    switch (random_() % 6) {
      case 0:
        return network().delay(way, milliseconds(20 + random_() % 100));
      case 1:
        return network().swallow(way);
      case 2:
        network().swallow(Way::to_client);
        return network().swallow(Way::to_server);
      case 3:
        return network().corrupt(way, byte);
      case 4:
        return network().cut(way, byte);
      default:
        return network().cut_all();
    }
  }

  // What an agent does until the pair is live again, with an arbiter that always says yes.
  void bring_live() {
    const auto deadline = BootClock::now() + std::chrono::seconds(20);
    while (BootClock::now() < deadline) {
      const Json s = owner().status();
      const std::string session = s["session"]["state"];
      const bool may_be_both =
          s["record"]["in_sync"] == "both" || s["record"]["grow_mark"].get<bool>();
      if (session == "live") {
        epoch_ = s["record"]["epoch"];
        return;
      }
      if (may_be_both && session != "synced") {
        owner().ok("shrink", {{"epoch", ++epoch_}});
      } else if (session == "synced") {
        // May be refused when the session was lost just now.
        owner().call("grow-prepare", {{"epoch", s["record"]["epoch"]}});
        if (owner().status()["record"]["grow_mark"].get<bool>())
          owner().call("grow-commit", {{"epoch", ++epoch_}});
      } else {
        owner().call("connect");
        std::this_thread::sleep_for(milliseconds(10));
      }
    }
    FAIL() << "the pair does not become live again";
  }

  // The partner takes over, the network being as it is; the old owner was killed, or is alive and
  // deposed.
  void take_over(VerifiedGuest& writer) {
    const bool kill = random_() % 2 == 0;
    if (kill) owner().kill();
    ++epoch_;
    other().ok("promise", {{"epoch", epoch_}});
    other().ok("serve", {{"epoch", epoch_}});
    if (kill) {
      owner().start();
    } else {
      owner().ok("stand-by", {{"epoch", epoch_}, {"outdated", true}});
    }
    writer.stop();
    owner_ = &other();
    ASSERT_TRUE(writer.judge_socket(owner().nbd_socket()));
    writer.start(owner().nbd_socket());
  }

  std::mt19937_64 random_{GetParam()};
  EngineProcess* owner_ = &a;
  std::uint64_t epoch_ = 2;
};

std::vector<std::uint64_t> seeds() {
  const char* number = std::getenv("HAVM_FAULT_SEEDS");
  const char* first = std::getenv("HAVM_FAULT_SEED");
  std::vector<std::uint64_t> all(number == nullptr ? 3 : std::strtoull(number, nullptr, 10));
  std::uint64_t next = first == nullptr ? 1 : std::strtoull(first, nullptr, 10);
  for (std::uint64_t& seed : all)
    seed = next++;
  return all;
}

INSTANTIATE_TEST_SUITE_P(Seed, RandomNetwork, testing::ValuesIn(seeds()),
                         [](const auto& seed) { return std::to_string(seed.param); });

TEST_P(RandomNetwork, NoCompletedWriteIsLostAndBothReplicasAreEqual) {
  start_live();
  VerifiedGuest writer(disk_bytes, GetParam());
  for (int round = 0; round < rounds && !HasFailure(); ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    writer.start(owner().nbd_socket());
    writer.wait_for_acknowledged(writer.acknowledged() + 50, milliseconds(2000));
    break_something();
    // Until the fault has come to bear, or long enough for one that costs only time.
    writer.wait_for_acknowledged(writer.acknowledged() + random_() % 400, 3 * session_timeout / 2);
    if (random_() % 3 == 0 && owner().status()["record"]["in_sync"] == "both") take_over(writer);
    to_a.heal();
    to_b.heal();
    bring_live();
    writer.wait_for_acknowledged(writer.acknowledged() + 50, milliseconds(2000));
    EXPECT_TRUE(writer.stop()) << "the guest is still waiting in a healthy pair";
    EXPECT_TRUE(same_images());
    EXPECT_TRUE(writer.judge_image(a.image()));
    EXPECT_TRUE(writer.judge_image(b.image()));
  }
  RecordProperty("acknowledged", std::to_string(writer.acknowledged()));
}

}  // namespace
}  // namespace havm
