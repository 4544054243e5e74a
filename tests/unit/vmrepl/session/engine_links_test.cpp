// Two real engines and what lies between and beside them: addresses, silence, the guard, several
// disks.
#include <cstring>
#include <filesystem>
#include <future>
#include <sstream>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/vmrepl/session/engine_pair.hpp"
#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

class EngineLinksTest : public EnginePair {
 protected:
  void SetUp() override { HAVM_NEED_PROGRAM("qemu-io"); }
};

TEST_F(EngineLinksTest, TheNextAddressIsTriedWhenOneIsDead) {
  Json& addresses = a.config["partner_addresses"];
  const Json good = addresses[0];
  addresses = Json::array({{{"address", "127.0.0.1"}, {"port", 1}}, good});
  start_pair();
  serve(a, 1);
  grow(a, 1);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineLinksTest, APartnerThatComesLaterIsFound) {
  ASSERT_EQ(a.create("uptodate"), 0);
  ASSERT_EQ(b.create("inconsistent"), 0);
  a.start();
  serve(a, 1);
  a.ok("connect");
  a.wait_for_session("connecting");
  EXPECT_EQ(qemu_io(a, {"write -P 4 0 64k"}), 0);
  b.start();
  grow(a, 1);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineLinksTest, ASilentPartnerIsLostAfterTheSessionTimeout) {
  start_pair();
  serve(a, 1);
  grow(a, 1);
  b.stop();
  const auto stopped = BootClock::now();
  a.wait_for_session("none");
  const auto waited = to_ms(BootClock::now() - stopped);
  EXPECT_GT(waited, 1500);
  EXPECT_LT(waited, 5000);
  EXPECT_TRUE(a.status()["held"]["frozen"].get<bool>());
  EXPECT_EQ(a.wait_for_event("session")["event"], "session");
}

TEST_F(EngineLinksTest, TwoDisksAreOneGroup) {
  for (EngineProcess* e : {&a, &b}) {
    const std::string image = e->directory() + "/vdb.raw";
    UniqueFd fd(::open(image.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    ASSERT_EQ(::ftruncate(fd.get(), 8 << 20), 0);
    e->config["disks"].push_back({{"name", "vdb"},
                                  {"path", image},
                                  {"size", 8 << 20},
                                  {"nbd_socket", e->directory() + "/vdb.nbd"}});
  }
  start_pair();
  serve(a, 1);
  grow(a, 1);
  const auto second = [this](const std::string& command) {
    return run_program({"qemu-io", "-f", "raw", "-c", command, "-c", "flush",
                        nbd_uri(a.directory() + "/vdb.nbd", "vdb")})
        .exit_code;
  };
  EXPECT_EQ(qemu_io(a, {"write -P 1 0 1M", "flush"}), 0);
  EXPECT_EQ(second("write -P 2 0 1M"), 0);
  EXPECT_TRUE(same_images());
  EXPECT_EQ(run_program({"cmp", a.directory() + "/vdb.raw", b.directory() + "/vdb.raw"}).exit_code,
            0);
  EXPECT_EQ(a.status()["disks"].size(), 2u);
}

TEST_F(EngineLinksTest, PartnersThatDisagreeAboutTheDisksDoNotJoin) {
  ASSERT_EQ(::truncate(b.image().c_str(), pair_disk_bytes / 2), 0);
  b.config["disks"][0]["size"] = pair_disk_bytes / 2;
  start_pair();
  serve(a, 1);
  a.ok("connect");
  a.wait_until("a refusal", [this](const Json&) {
    return a.log().find("differ in name, order or size") != std::string::npos;
  });
  EXPECT_EQ(a.status()["session"]["state"], "connecting");
  EXPECT_EQ(b.status()["record"]["state"], "inconsistent");
  EXPECT_EQ(b.status()["record"]["promised_epoch"], 0);
}

// The guard's side of `renew`, as far as an engine sees it.
TEST_F(EngineLinksTest, GrantsReachTheGuardWithTheTimeOfTheirRequest) {
  const std::string path = a.directory() + "/guard.sock";
  UniqueFd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  ASSERT_EQ(::bind(listener.get(), generic, sizeof address), 0);
  ASSERT_EQ(::listen(listener.get(), 4), 0);
  const auto before = to_ns(BootClock::now());
  start_pair();
  serve(a, 1);
  grow(a, 1);
  pollfd waiting{listener.get(), POLLIN, 0};
  ASSERT_EQ(::poll(&waiting, 1, 10000), 1);
  UniqueFd guard(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  long long last = 0;
  for (int i = 0; i < 5; ++i) {
    char packet[512];
    pollfd readable{guard.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&readable, 1, 10000), 1);
    const ssize_t n = ::recv(guard.get(), packet, sizeof packet, 0);
    ASSERT_GT(n, 0);
    std::istringstream words(std::string(packet, static_cast<std::size_t>(n)));
    std::string verb;
    std::string vm;
    std::uint64_t epoch = 0;
    long long sent = 0;
    words >> verb >> vm >> epoch >> sent;
    EXPECT_EQ(verb, "renew");
    EXPECT_EQ(vm, "web1");
    EXPECT_TRUE(epoch == 1 || epoch == 2);
    EXPECT_GT(sent, std::max(before, last));
    EXPECT_LE(sent, to_ns(BootClock::now()));
    last = sent;
    ASSERT_EQ(::send(guard.get(), "ok", 2, MSG_NOSIGNAL), 2);
  }
}

TEST_F(EngineLinksTest, AGuardThatDiesCostsNothingElse) {
  start_pair();  // there never was one
  serve(a, 1);
  grow(a, 1);
  EXPECT_EQ(qemu_io(a, {"write -P 9 0 4k", "flush"}), 0);
  EXPECT_THAT(a.log(), HasSubstr("guard"));
}

}  // namespace
}  // namespace havm
