// Two real engines, and under one of them a disk that fails, is slow, hangs or goes away. The guest
// must never be told success for what is not where the promise says, nor an error (P1, P3, P7), and
// a replica that lost something must not be started from.
#include <filesystem>
#include <future>
#include <optional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/unit/vmrepl/disk/nbdkit.hpp"
#include "tests/unit/vmrepl/session/engine_pair.hpp"
#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;
using Words = std::vector<std::string>;

class EngineDiskFaults : public EnginePair {
 protected:
  EngineDiskFaults() : EnginePair(8U << 20) {
    for (EngineProcess* e : {&a, &b})
      e->config["timing"] = {
          {"keepalive_ms", 50}, {"session_timeout_ms", 1000}, {"lease_ms", 6000}};
  }
  void SetUp() override {
    HAVM_NEED_PROGRAM("qemu-io");
    HAVM_NEED_PROGRAM("nbdkit");
  }
  // The engine's image, through nbdkit with these filters and parameters.
  void put_under(EngineProcess& e, const Words& filters, const Words& parameters = {}) {
    Words words;
    for (const std::string& filter : filters)
      words.push_back("--filter=" + filter);
    words.insert(words.end(), {"file", e.image()});
    words.insert(words.end(), parameters.begin(), parameters.end());
    serve_under(e, words);
  }
  // Requests of this kind fail while `fault` exists.
  void put_errors_under(EngineProcess& e, const std::string& kind, const std::string& error) {
    Words parameters{"error-file=" + fault};
    for (const std::string& each : kind == "write" ? Words{"pwrite", "zero"} : Words{kind}) {
      parameters.push_back("error-" + each + "=" + error);
      parameters.push_back("error-" + each + "-rate=100%");
    }
    put_under(e, {"error"}, parameters);
  }
  void serve_under(EngineProcess& e, const Words& words) {
    backend.emplace(words);
    e.config["disks"][0]["path"] = backend->uri();
  }
  void start_live() {
    start_pair();
    serve(a, 1);
    grow(a, 1);
  }
  void expect_failed(EngineProcess& e, const std::string& error = "Input/output error") {
    const Json event = e.wait_for_event("replica-failed");
    EXPECT_EQ(event["disk"], "vda");
    EXPECT_EQ(event["error"], error);
    EXPECT_EQ(e.status()["disks"][0]["error"], error);
  }
  // The owner's disk has failed with a request of the guest: everything else goes over to b.
  void expect_takeover(std::future<int>& waiting) {
    EXPECT_EQ(a.status()["record"]["state"], "inconsistent");
    b.ok("promise", {{"epoch", 3}});
    b.ok("serve", {{"epoch", 3}});
    EXPECT_EQ(qemu_io(b, {"read -P 0x11 1M 64k"}), 0);
    EXPECT_EQ(qemu_io(b, {"write -P 0x33 2M 64k", "flush"}), 0);
    a.ok("stand-by", {{"epoch", 3}, {"outdated", true}});
    EXPECT_NE(waiting.get(), 0) << "the guest of the old owner was told success";
    EXPECT_EQ(a.status()["record"]["state"], "inconsistent");
  }
  // `operation` of the owner's disk fails under this request of the guest; later the disk is well.
  void expect_not_the_guests(const std::string& operation, const std::string& request) {
    put_errors_under(a, operation, "EIO");
    start_live();
    EXPECT_EQ(qemu_io(a, {"write -P 0x11 1M 64k", "flush"}), 0);
    touch(fault);
    auto waiting = guest(a, {request});
    expect_failed(a);
    EXPECT_TRUE(is_held(a, waiting));
    expect_takeover(waiting);
    std::filesystem::remove(fault);
    grow(b, 3);
    EXPECT_TRUE(same_images());
  }
  // b's disk has failed: the guest waits for the shrink, b is no replica to start from.
  void expect_loss_of_b(std::future<int>& waiting) {
    a.wait_for_session("none");
    EXPECT_TRUE(is_held(a, waiting));
    b.wait_until("an inconsistent replica",
                 [](const Json& s) { return s["record"]["state"] == "inconsistent"; });
    EXPECT_THAT(b.refused("serve", {{"epoch", 3}}), HasSubstr("inconsistent"));
    a.ok("shrink", {{"epoch", 3}});
    EXPECT_EQ(waiting.get(), 0);
    EXPECT_EQ(qemu_io(a, {"read -P 0x22 0 64k"}), 0);
  }
  void pause(char command) {
    const std::string path = plan.directory + "/pause.sock";
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::send(fd.get(), &command, 1, MSG_NOSIGNAL), 1);
    char answer = 0;
    ASSERT_EQ(::recv(fd.get(), &answer, 1, 0), 1);
    ASSERT_EQ(answer, command - 'a' + 'A');
  }

  const std::string fault = plan.directory + "/fault";
  std::optional<Nbdkit> backend;
};

TEST_F(EngineDiskFaults, WithoutAFaultAnNbdStoreIsLikeAFile) {
  put_under(b, {});
  start_live();
  EXPECT_EQ(qemu_io(a, {"write -P 1 0 1M", "write -z 256k 64k", "discard 512k 64k", "flush"}), 0);
  EXPECT_TRUE(same_images());
  EXPECT_EQ(b.status()["disks"][0]["path"], backend->uri());
}

// ---- the owner's disk ------------------------------------------------------------------------

TEST_F(EngineDiskFaults, AWriteErrorOfTheOwnerIsNotTheGuests) {
  expect_not_the_guests("write", "write -P 0x22 0 64k");
}

TEST_F(EngineDiskFaults, AWriteErrorOfALoneOwnerLeavesTheOnlyCopyTrusted) {
  put_errors_under(a, "write", "ENOSPC");
  start_pair();
  serve(a, 1);
  EXPECT_EQ(qemu_io(a, {"write -P 0x11 1M 64k", "flush"}), 0);
  touch(fault);
  auto waiting = guest(a, {"write -P 0x22 0 64k"});
  expect_failed(a, "No space left on device");
  EXPECT_TRUE(is_held(a, waiting));
  EXPECT_EQ(a.status()["record"]["state"], "uptodate");
  a.kill();
  EXPECT_NE(waiting.get(), 0);
  std::filesystem::remove(fault);
  a.start();
  a.ok("serve", {{"epoch", 1}});
  EXPECT_EQ(qemu_io(a, {"read -P 0x11 1M 64k", "write -P 0x22 0 64k", "flush"}), 0);
  grow(a, 1);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineDiskFaults, AReadErrorOfTheOwnerIsNotTheGuests) {
  expect_not_the_guests("pread", "read -P 0x11 1M 64k");
}

TEST_F(EngineDiskFaults, AReadErrorInTheResyncMakesNoReplica) {
  put_errors_under(a, "pread", "EIO");
  start_pair();
  serve(a, 1);
  EXPECT_EQ(qemu_io(a, {"write -P 0x11 1M 64k", "flush"}), 0);
  touch(fault);
  a.ok("connect");
  expect_failed(a);
  EXPECT_EQ(b.status()["record"]["state"], "inconsistent");
  EXPECT_THAT(a.refused("grow-prepare", {{"epoch", 1}}), HasSubstr("not synced"));
}

TEST_F(EngineDiskFaults, AFlushErrorOfTheOwnerIsNotTheGuests) {
  serve_under(a, eval_with_flush_fault(a.image(), plan.disk_bytes, fault));
  start_live();
  EXPECT_EQ(qemu_io(a, {"write -P 0x11 1M 64k", "flush"}), 0);
  touch(fault);
  auto waiting = guest(a, {"write -P 0x22 0 64k", "flush"});
  expect_failed(a);
  EXPECT_TRUE(is_held(a, waiting));
  std::filesystem::remove(fault);  // what was lost stays lost
  EXPECT_THAT(a.refused("flush"), HasSubstr("Input/output error"));
  expect_takeover(waiting);
  EXPECT_EQ(qemu_io(b, {"read -P 0x22 0 64k"}), 0) << "this write was completed";
}

TEST_F(EngineDiskFaults, TheOwnersStoreMayDieUnderIt) {
  put_under(a, {});
  start_live();
  EXPECT_EQ(qemu_io(a, {"write -P 0x11 1M 64k", "flush"}), 0);
  backend->kill();
  auto waiting = guest(a, {"write -P 0x22 0 64k"});
  expect_failed(a);
  EXPECT_TRUE(is_held(a, waiting));
  expect_takeover(waiting);
  backend->start();
  a.kill();
  a.start();
  grow(b, 3);
  EXPECT_TRUE(same_images());
}

// ---- the secondary's disk --------------------------------------------------------------------

TEST_F(EngineDiskFaults, AFullSecondaryIsLostAndNotStartedFrom) {
  put_errors_under(b, "write", "ENOSPC");
  start_live();
  touch(fault);
  auto waiting = guest(a, {"write -P 0x22 0 64k"});
  expect_loss_of_b(waiting);
  expect_failed(b, "No space left on device");
  std::filesystem::remove(fault);
  grow(a, 3);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineDiskFaults, ASecondaryThatIsFullInTheResyncDisturbsNobody) {
  put_errors_under(b, "write", "ENOSPC");
  touch(fault);
  start_pair();
  serve(a, 1);
  a.ok("connect");
  expect_failed(b, "No space left on device");
  EXPECT_EQ(qemu_io(a, {"write -P 0x22 0 64k", "flush", "read -P 0x22 0 64k"}), 0);
  EXPECT_EQ(b.status()["record"]["state"], "inconsistent");
  EXPECT_FALSE(a.status()["held"]["frozen"].get<bool>());
  std::filesystem::remove(fault);
  grow(a, 1);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineDiskFaults, AFlushErrorOfTheSecondaryIsNotTakenForDurable) {
  serve_under(b, eval_with_flush_fault(b.image(), plan.disk_bytes, fault));
  start_live();
  touch(fault);
  auto waiting = guest(a, {"write -P 0x22 0 64k", "flush"});
  expect_loss_of_b(waiting);
  expect_failed(b);
  std::filesystem::remove(fault);
  // The disk's error stays until its engine has been started again: no resync comes to an end.
  a.ok("connect");
  a.wait_until("a resync that failed", [this](const Json&) {
    return b.log().find("the flush at the end of the resync failed") != std::string::npos;
  });
  EXPECT_EQ(b.status()["record"]["state"], "inconsistent");
  b.kill();
  b.start();
  grow(a, 3);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineDiskFaults, AFuaWriteWaitsForTheSecondarysDiskToo) {
  put_errors_under(b, "write", "EIO");
  start_live();
  touch(fault);
  auto waiting = guest(a, {"write -f -P 0x22 0 64k"});
  expect_loss_of_b(waiting);
}

TEST_F(EngineDiskFaults, ASlowSecondaryIsWaitedFor) {
  put_under(b, {"delay"}, {"wdelay=400ms"});
  start_live();
  const auto began = BootClock::now();
  EXPECT_EQ(qemu_io(a, {"write -P 0x22 0 64k"}), 0);
  EXPECT_GE(to_ms(BootClock::now() - began), 400);
  EXPECT_TRUE(same_images());
  EXPECT_EQ(a.status()["session"]["state"], "live");
}

// A disk that hangs is no silence: the engine above it answers, so the session stays.
TEST_F(EngineDiskFaults, AStalledSecondaryHoldsTheGuestUntilItGoesOn) {
  put_under(b, {"pause"}, {"pause-control=" + plan.directory + "/pause.sock"});
  start_live();
  pause('p');
  auto waiting = guest(a, {"write -P 0x22 0 64k", "flush"});
  const Json first = a.status();
  // Longer than the session timeout: leases go on.
  a.wait_until("leases", [&](const Json& s) {
    return s["grant"]["received_sent_ns"].get<long long>() >
           first["grant"]["received_sent_ns"].get<long long>() + 1'500'000'000;
  });
  EXPECT_EQ(a.status()["session"]["state"], "live");
  EXPECT_EQ(waiting.wait_for(std::chrono::milliseconds(0)), std::future_status::timeout);
  pause('r');
  EXPECT_EQ(waiting.get(), 0);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineDiskFaults, AStalledSecondaryCanBeLeftBehind) {
  put_under(b, {"pause"}, {"pause-control=" + plan.directory + "/pause.sock"});
  start_live();
  pause('p');
  auto waiting = guest(a, {"write -P 0x22 0 64k", "flush"});
  a.ok("freeze");
  EXPECT_TRUE(is_held(a, waiting));
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_EQ(waiting.get(), 0);
  EXPECT_EQ(qemu_io(a, {"write -P 0x44 0 64k", "flush"}), 0);
  pause('r');  // what was stalled is done now, and then overwritten by the resync
  grow(a, 3);
  EXPECT_TRUE(same_images());
  EXPECT_EQ(qemu_io(a, {"read -P 0x44 0 64k"}), 0);
}

TEST_F(EngineDiskFaults, TheSecondarysStoreMayDieUnderIt) {
  put_under(b, {});
  start_live();
  backend->kill();
  auto waiting = guest(a, {"write -P 0x22 0 64k"});
  expect_loss_of_b(waiting);
  backend->start();
  b.kill();
  b.start();
  grow(a, 3);
  EXPECT_TRUE(same_images());
}

}  // namespace
}  // namespace havm
