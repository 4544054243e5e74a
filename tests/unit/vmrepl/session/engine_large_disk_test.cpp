// Disks up to 16 TiB, sparse in nbdkit's memory, since not every filesystem has files so large; and
// how much memory the engine takes for them.
#include <cstdlib>
#include <fstream>
#include <optional>

#include <gtest/gtest.h>

#include "tests/unit/vmrepl/disk/nbdkit.hpp"
#include "tests/unit/vmrepl/session/engine_pair.hpp"

namespace havm {
namespace {

constexpr std::uint64_t mib = 1U << 20;
constexpr std::uint64_t tib = std::uint64_t{1} << 40;

class EngineLargeDisk : public EnginePair {
 protected:
  EngineLargeDisk() : EnginePair(mib) {}
  void SetUp() override {
    HAVM_NEED_PROGRAM("qemu-io");
    HAVM_NEED_PROGRAM("nbdkit");
  }
  static void put_under(EngineProcess& e, std::optional<Nbdkit>& store, std::uint64_t disk_bytes) {
    store.emplace(std::vector<std::string>{"memory", std::to_string(disk_bytes)});
    e.config["disks"][0]["path"] = store->uri();
    e.config["disks"][0]["size"] = disk_bytes;
  }
  void start_alone(std::uint64_t disk_bytes) {
    put_under(a, store_a, disk_bytes);
    ASSERT_EQ(a.create("uptodate"), 0) << a.log();
    a.start();
    serve(a, 1);
  }
  std::uint64_t resident_bytes() {
    std::ifstream status("/proc/" + a.status()["pid"].dump() + "/status");
    for (std::string word; status >> word;) {
      std::uint64_t kib = 0;
      if (word == "VmRSS:" && status >> kib) return kib << 10;
    }
    ADD_FAILURE() << "the engine's memory is not known";
    return 0;
  }

  std::optional<Nbdkit> store_a;
  std::optional<Nbdkit> store_b;
};

TEST_F(EngineLargeDisk, SixteenTebibytesAreServedUpToTheFarEnd) {
  start_alone(16 * tib);
  const std::string far = std::to_string(16 * tib - 65536);
  const std::string beyond_8 = std::to_string(8 * tib);
  EXPECT_EQ(
      qemu_io(a, {"write -P 0x5a " + far + " 64k", "write -P 0x11 0 64k",
                  "write -P 0x22 " + beyond_8 + " 64k", "flush", "read -P 0x5a " + far + " 64k",
                  "read -P 0x11 0 64k", "read -P 0x22 " + beyond_8 + " 64k"}),
      0);
  EXPECT_EQ(qemu_io(a, {"discard " + far + " 64k", "read -P 0 " + far + " 64k"}), 0);
  EXPECT_EQ(a.status()["disks"][0]["size"], 16 * tib);
}

TEST_F(EngineLargeDisk, AResyncOfSixteenTebibytesGoesForwardAndTheGuestToo) {
  put_under(a, store_a, 16 * tib);
  put_under(b, store_b, 16 * tib);
  start_pair();
  serve(a, 1);
  a.ok("connect");
  a.wait_until("a part of the resync", [](const EngineProcess::Json& s) {
    return s["sync"]["done_bytes"].get<std::uint64_t>() >= 64 * mib;
  });
  EXPECT_EQ(a.status()["session"]["state"], "syncing");
  const std::string far = std::to_string(16 * tib - 65536);
  EXPECT_EQ(qemu_io(a, {"write -P 0x5a " + far + " 64k", "flush"}), 0);
  const auto seen = run_program(
      {"qemu-io", "-f", "raw", "-c", "read -P 0x5a " + far + " 64k", nbd_uri(store_b->socket())});
  EXPECT_EQ(seen.exit_code, 0) << seen.errors;
  EXPECT_EQ(seen.output.find("verification failed"), std::string::npos) << seen.output;
}

// The figures are in docs/testing.md. The goal is 64 MiB and 2 MiB for each TiB; HAVM_MEMORY_GOAL=1
// judges by it. Without it the bound is what three bitmaps of a disk (6 MiB for each TiB) and a
// build with sanitizers take.
class EngineMemory : public EngineLargeDisk, public testing::WithParamInterface<std::uint64_t> {
 protected:
  static std::uint64_t bound_mib(std::uint64_t tebibytes) {
    return std::getenv("HAVM_MEMORY_GOAL") != nullptr ? 64 + 2 * tebibytes : 128 + 7 * tebibytes;
  }
};
INSTANTIATE_TEST_SUITE_P(Tebibytes, EngineMemory, testing::Values(1U, 16U));

TEST_P(EngineMemory, GrowsWithTheDiskAsStated) {
  start_alone(GetParam() * tib);
  EXPECT_EQ(qemu_io(a, {"write -P 0x5a 0 64k", "flush"}), 0);
  const std::uint64_t resident = resident_bytes();
  RecordProperty("resident_mib", std::to_string(resident / mib));
  std::printf("disk %llu TiB: engine resident %llu MiB\n",
              static_cast<unsigned long long>(GetParam()),
              static_cast<unsigned long long>(resident / mib));
  EXPECT_LE(resident, bound_mib(GetParam()) * mib);
}

}  // namespace
}  // namespace havm
