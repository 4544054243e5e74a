// Verify between two real engines: it finds what was damaged behind an engine's back and nothing
// else, also under guest writes; and a resync after a crash sends only what really differs.
#include <cstdlib>
#include <future>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include "tests/unit/vmrepl/session/engine_pair.hpp"

namespace havm {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

constexpr std::uint64_t mib = 1ULL << 20;
constexpr std::uint64_t grain = 64ULL << 10;
constexpr std::uint64_t unhurried = 1ULL << 40;  // bytes/s: as fast as it can
// Slow enough to be caught at work: 64 MiB take a minute.
constexpr std::uint64_t slow = 1ULL << 20;

// Flips one byte of a file past every cache of ours, as a bad disk would.
void damage(const std::string& path, std::uint64_t at) {
  constexpr std::size_t block = 4096;
  void* memory = nullptr;
  ASSERT_EQ(::posix_memalign(&memory, block, block), 0);
  const int fd = ::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  auto* bytes = static_cast<unsigned char*>(memory);
  const auto begin = static_cast<off_t>(at / block * block);
  ASSERT_EQ(::pread(fd, bytes, block, begin), static_cast<ssize_t>(block));
  bytes[at % block] ^= 1U;
  ASSERT_EQ(::pwrite(fd, bytes, block, begin), static_cast<ssize_t>(block));
  ::close(fd);
  std::free(memory);
}

class EngineVerifyTest : public EnginePair {
 protected:
  void SetUp() override {
    HAVM_NEED_PROGRAM("qemu-io");
    HAVM_NEED_PROGRAM("nbdcopy");
    start_live_and_filled();
  }
  // The status of a verify that was started and has ended.
  Json verify(bool repair = false, std::uint64_t rate = unhurried) {
    const Json started = a.ok("verify", {{"repair", repair}, {"rate_bytes_per_s", rate}});
    return ended(started["id"]);
  }
  Json ended(const Json& id) {
    const Json now = a.wait_until("the end of the verify", [&](const Json& s) {
      return s["verify"]["id"] == id && s["verify"]["running"] == false;
    });
    return now["verify"];
  }
};

TEST_F(EngineVerifyTest, AHealthyPairIsCleanAndEverythingWasCompared) {
  const Json v = verify();
  EXPECT_EQ(v["result"], "clean") << v.dump();
  EXPECT_EQ(v["total_bytes"], pair_disk_bytes);
  EXPECT_EQ(v["done_bytes"], pair_disk_bytes);
  EXPECT_EQ(v["mismatch_bytes"], 0);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineVerifyTest, OneDamagedByteIsFoundInItsGrainAndRepairedWhenAsked) {
  damage(b.image(), 17 * mib + 70000);
  a.forget_events();
  Json v = verify();
  EXPECT_EQ(v["result"], "mismatch");
  EXPECT_THAT(v["reason"].get<std::string>(), HasSubstr("which of them is right is not known"));
  const Json found = {{"disk", "vda"},
                      {"offset", 17 * mib + grain},
                      {"length", grain},
                      {"reason", "different"},
                      {"repaired", false}};
  EXPECT_EQ(v["mismatches"], Json::array({found}));
  EXPECT_EQ(v["mismatch_count"], 1);
  EXPECT_EQ(v["mismatch_bytes"], grain);
  EXPECT_EQ(v["repaired_bytes"], 0);
  EXPECT_FALSE(a.wait_for_event("verify").empty());
  EXPECT_THAT(a.log(), HasSubstr("the replicas are not the same"));
  EXPECT_FALSE(same_images());

  v = verify(true);
  EXPECT_EQ(v["result"], "repaired") << v.dump();
  EXPECT_EQ(v["repaired_bytes"], grain);
  EXPECT_EQ(v["mismatches"][0]["repaired"], true);
  EXPECT_TRUE(same_images());
  EXPECT_EQ(a.status()["session"]["state"], "live");
  EXPECT_EQ(verify()["result"], "clean");
}

TEST_F(EngineVerifyTest, DamageOfTheOwnersImageIsFoundToo) {
  damage(a.image(), 0);
  damage(a.image(), pair_disk_bytes - 1);
  const Json v = verify();
  EXPECT_EQ(v["result"], "mismatch");
  EXPECT_EQ(v["mismatch_count"], 2);
}

TEST_F(EngineVerifyTest, UnderGuestWritesNothingIsReportedThatIsNotThere) {
  HAVM_NEED_PROGRAM("fio");
  // A small, hot area: most checks meet writes under way.
  auto guest = std::async(std::launch::async, [this] {
    return run_program({"fio", "--name=guest", "--ioengine=nbd",
                        "--uri=" + nbd_uri(a.nbd_socket(), "vda"), "--rw=randwrite", "--bs=4k",
                        "--size=4m", "--iodepth=16", "--time_based", "--runtime=6", "--fsync=64"},
                       plan.directory);
  });
  a.wait_until("a client", [](const Json& s) { return s["clients"] > 0; });
  int clean = 0;
  while (guest.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    const Json v = verify();
    ASSERT_EQ(v["result"], "clean") << v.dump();
    ++clean;
  }
  EXPECT_EQ(guest.get().exit_code, 0);
  EXPECT_GE(clean, 2);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineVerifyTest, TheRateIsKept) {
  const auto begin = std::chrono::steady_clock::now();
  verify(false, 32 * mib);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(1800));
}

TEST_F(EngineVerifyTest, TheLossOfThePartnerEndsItAndSaysSo) {
  const Json started = a.ok("verify", {{"rate_bytes_per_s", slow}});
  EXPECT_THAT(a.refused("verify"), HasSubstr("running already"));
  b.kill();
  const Json v = ended(started["id"]);
  EXPECT_EQ(v["result"], "interrupted");
  EXPECT_THAT(v["reason"].get<std::string>(), HasSubstr("the session with the partner ended"));
  EXPECT_THAT(a.refused("verify"), HasSubstr("in sync"));
  // The guest gets no less than without a verify.
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_EQ(qemu_io(a, {"write -P 0x11 1M 1M", "flush"}), 0);
  b.start();
  grow(a, 3);
  EXPECT_EQ(verify()["result"], "clean");
}

TEST_F(EngineVerifyTest, ItCanBeCancelledAndBegunAgain) {
  const Json started = a.ok("verify", {{"rate_bytes_per_s", slow}});
  a.ok("verify-cancel");
  EXPECT_EQ(ended(started["id"])["result"], "cancelled");
  EXPECT_EQ(verify()["result"], "clean");
}

TEST_F(EngineVerifyTest, WhatItIsAskedIsChecked) {
  EXPECT_THAT(b.refused("verify"), HasSubstr("owner role"));
  EXPECT_THAT(a.refused("verify", {{"repair", 1}}), HasSubstr("'repair'"));
  EXPECT_THAT(a.refused("verify", {{"rate_bytes_per_s", 0}}), HasSubstr("'rate_bytes_per_s'"));
  EXPECT_THAT(a.refused("verify", {{"fix", true}}), HasSubstr("unknown argument 'fix'"));
  EXPECT_TRUE(a.status()["verify"].is_null());
}

TEST_F(EngineVerifyTest, AfterACrashOfTheOwnerOnlyWhatDiffersIsSent) {
  b.kill();
  a.wait_for_session("none");
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_EQ(qemu_io(a, {"write -P 0x5a 33M 4k", "flush"}), 0);
  a.kill();
  a.start();
  b.start();
  a.ok("serve", {{"epoch", 4}});
  grow(a, 4);
  const Json sync = a.status()["sync"];
  // The extents of the log are compared; one grain of them was written.
  EXPECT_GE(sync["done_bytes"].get<std::uint64_t>(), 4 * mib);
  EXPECT_EQ(sync["sent_bytes"], grain);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineVerifyTest, AFirstResyncSendsEverythingWithoutAsking) {
  EXPECT_EQ(a.status()["sync"]["sent_bytes"], pair_disk_bytes);
}

}  // namespace
}  // namespace havm
