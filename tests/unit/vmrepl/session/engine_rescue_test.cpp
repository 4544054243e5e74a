// Two real engines, and a place of the owner's disk that cannot be read until it is written again,
// as a disk with a bad sector behaves.
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/vmrepl/disk/nbdkit.hpp"
#include "tests/unit/vmrepl/session/engine_pair.hpp"

namespace havm {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;
using Words = std::vector<std::string>;

class EngineRescue : public EnginePair {
 protected:
  EngineRescue() : EnginePair(4U << 20) {
    for (EngineProcess* e : {&a, &b})
      e->config["timing"] = {
          {"keepalive_ms", 50}, {"session_timeout_ms", 2000}, {"lease_ms", 6000}};
  }
  void SetUp() override {
    HAVM_NEED_PROGRAM("qemu-io");
    HAVM_NEED_PROGRAM("nbdkit");
  }
  // Reads fail while `bad` exists; a write of the same disk removes it where writing heals.
  void put_bad_place_under(EngineProcess& e, std::optional<Nbdkit>& store, const std::string& bad,
                           bool heals) {
    const std::string file = e.image();
    const std::string in_place =
        " conv=notrunc bs=64k iflag=count_bytes,fullblock count=$3 oflag=seek_bytes seek=$4";
    const std::string healed = heals ? " && rm -f " + bad : "";
    store.emplace(Words{
        "eval", "get_size=echo " + std::to_string(plan.disk_bytes),
        "pread=if [ -e " + bad + " ]; then echo EIO a bad place >&2; exit 1; fi; dd if=" + file +
            " bs=64k iflag=skip_bytes,count_bytes skip=$4 count=$3",
        "can_write=exit 0", "pwrite=dd of=" + file + in_place + healed, "can_zero=exit 0",
        "zero=dd if=/dev/zero of=" + file + in_place, "can_flush=exit 0", "flush=exit 0"});
    e.config["disks"][0]["path"] = store->uri();
  }
  void start_live_with_data() {
    start_pair();
    serve(a, 1);
    grow(a, 1);
    ASSERT_EQ(qemu_io(a, {"write -P 0x11 1M 64k", "flush"}), 0);
  }
  void expect_failed_and_held(std::future<int>& waiting) {
    const Json event = a.wait_for_event("replica-failed");
    EXPECT_EQ(event["error"], "Input/output error");
    EXPECT_TRUE(is_held(a, waiting));
    EXPECT_EQ(a.status()["record"]["state"], "inconsistent");
    EXPECT_EQ(a.status()["disks"][0]["repaired"], 0);
    b.ok("promise", {{"epoch", 3}});
    a.ok("stand-by", {{"epoch", 3}, {"outdated", true}});
    EXPECT_NE(waiting.get(), 0) << "the guest was told success";
  }

  const std::string bad_a = plan.directory + "/bad-a";
  const std::string bad_b = plan.directory + "/bad-b";
  std::optional<Nbdkit> store_a;
  std::optional<Nbdkit> store_b;
};

TEST_F(EngineRescue, ABadPlaceIsReadFromThePartnerAndRepaired) {
  put_bad_place_under(a, store_a, bad_a, true);
  start_live_with_data();
  touch(bad_a);
  EXPECT_EQ(qemu_io(a, {"read -P 0x11 1M 64k"}), 0);
  const Json event = a.wait_for_event("repaired");
  EXPECT_EQ(event["disk"], "vda");
  EXPECT_EQ(event["offset"], 1 << 20);
  EXPECT_EQ(event["length"], 64 << 10);
  EXPECT_EQ(event["error"], "Input/output error");
  EXPECT_FALSE(std::filesystem::exists(bad_a)) << "nothing was written";
  const Json status = a.status();
  EXPECT_EQ(status["disks"][0]["repaired"], 1);
  EXPECT_TRUE(status["disks"][0]["error"].is_null());
  EXPECT_EQ(status["session"]["state"], "live");
  EXPECT_EQ(qemu_io(a, {"read -P 0x11 1M 64k", "write -P 0x22 1M 64k", "flush"}), 0);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineRescue, ManyReadsOfABadPlaceAreAllAnswered) {
  put_bad_place_under(a, store_a, bad_a, true);
  start_live_with_data();
  touch(bad_a);
  std::vector<std::future<int>> guests;
  for (int i = 0; i < 4; ++i)
    guests.push_back(guest(a, {"read -P 0x11 1M 64k", "read -P 0x11 1060864 4k"}));
  for (auto& each : guests)
    EXPECT_EQ(each.get(), 0);
  EXPECT_GE(a.status()["disks"][0]["repaired"], 1);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineRescue, APlaceThatStaysBadFailsTheReplica) {
  put_bad_place_under(a, store_a, bad_a, false);
  start_live_with_data();
  touch(bad_a);
  auto waiting = guest(a, {"read -P 0x11 1M 64k"});
  expect_failed_and_held(waiting);
}

TEST_F(EngineRescue, APlaceThatIsBadOnBothFailsTheReplica) {
  put_bad_place_under(a, store_a, bad_a, true);
  put_bad_place_under(b, store_b, bad_b, true);
  start_live_with_data();
  touch(bad_a);
  touch(bad_b);
  auto waiting = guest(a, {"read -P 0x11 1M 64k"});
  expect_failed_and_held(waiting);
  EXPECT_THAT(b.log(), HasSubstr("can be read neither by the owner nor here"));
  EXPECT_TRUE(std::filesystem::exists(bad_a)) << "something was written";
}

TEST_F(EngineRescue, AnOwnerAloneHasNobodyToAsk) {
  put_bad_place_under(a, store_a, bad_a, true);
  start_pair();
  serve(a, 1);
  ASSERT_EQ(qemu_io(a, {"write -P 0x11 1M 64k", "flush"}), 0);
  touch(bad_a);
  auto waiting = guest(a, {"read -P 0x11 1M 64k"});
  a.wait_for_event("replica-failed");
  EXPECT_TRUE(is_held(a, waiting));
  EXPECT_EQ(a.status()["record"]["state"], "uptodate") << "it is the only copy";
  a.kill();
  EXPECT_NE(waiting.get(), 0);
}

}  // namespace
}  // namespace havm
