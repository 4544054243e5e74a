// Two real engines, and images that are cut, deleted or replaced under a running engine or while
// none runs. Their bytes are not what the record speaks of: no write may be told to be there.
#include <filesystem>
#include <future>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/vmrepl/session/engine_pair.hpp"

namespace havm {
namespace {

using Json = nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

class EngineImage : public EnginePair {
 protected:
  EngineImage() : EnginePair(4U << 20) {
    for (EngineProcess* e : {&a, &b})
      e->config["timing"] = {
          {"keepalive_ms", 50}, {"session_timeout_ms", 2000}, {"lease_ms", 6000}};
  }
  void SetUp() override { HAVM_NEED_PROGRAM("qemu-io"); }
  void start_live_with_data() {
    start_pair();
    serve(a, 1);
    grow(a, 1);
    ASSERT_EQ(qemu_io(a, {"write -P 0x11 1M 64k", "flush"}), 0);
  }
  // The replica of a has failed with a request of the guest; everything goes over to b.
  void expect_takeover(std::future<int>& waiting, const std::string& what) {
    const Json event = a.wait_for_event("replica-failed");
    EXPECT_THAT(event["error"].get<std::string>(), HasSubstr(what));
    EXPECT_TRUE(is_held(a, waiting));
    const Json status = a.status();
    EXPECT_EQ(status["record"]["state"], "inconsistent");
    EXPECT_EQ(status["disks"][0]["repaired"], 0);
    b.ok("promise", {{"epoch", 3}});
    b.ok("serve", {{"epoch", 3}});
    EXPECT_EQ(qemu_io(b, {"read -P 0x11 1M 64k"}), 0);
    a.ok("stand-by", {{"epoch", 3}, {"outdated", true}});
    EXPECT_NE(waiting.get(), 0) << "the guest of the old owner was told success";
  }
  // What the engine says when it refuses to start.
  std::string refusal(EngineProcess& e, const std::vector<std::string>& arguments = {}) {
    std::vector<std::string> words{"timeout", "20", HAVM_REPL_PROGRAM, "--config",
                                   e.directory() + "/config.json"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const ProgramRun run = run_program(words);
    EXPECT_EQ(run.exit_code, 1) << "it did not refuse: " << run.errors;
    return run.errors;
  }
  int adopt(EngineProcess& e, const std::string& what) {
    return run_program({HAVM_REPL_PROGRAM, "--config", e.directory() + "/config.json",
                        "--adopt-images", what})
        .exit_code;
  }
  // Another file at the path, with a copy of what was there or with zeroes.
  void replace_image(EngineProcess& e, bool copied) {
    const std::string other = e.directory() + "/other";
    if (copied)
      std::filesystem::copy_file(e.image(), other);
    else
      touch(other);
    std::filesystem::resize_file(other, plan.disk_bytes);
    std::filesystem::rename(other, e.image());
  }
};

// ---- under a running engine ------------------------------------------------------------------

TEST_F(EngineImage, ACutImageIsNotGrownByTheGuestsWrites) {
  start_live_with_data();
  std::filesystem::resize_file(a.image(), 1 << 20);
  auto waiting = guest(a, {"write -P 0x22 2M 64k"});
  expect_takeover(waiting, "was cut to 1048576 of 4194304 bytes");
  EXPECT_EQ(std::filesystem::file_size(a.image()), 1U << 20);
}

TEST_F(EngineImage, ACutImageIsNotRepairedByAReadBehindItsEnd) {
  start_live_with_data();
  std::filesystem::resize_file(a.image(), 1 << 20);
  auto waiting = guest(a, {"read -P 0x11 1M 64k"});
  expect_takeover(waiting, "was cut to");
  EXPECT_EQ(std::filesystem::file_size(a.image()), 1U << 20);
}

TEST_F(EngineImage, ADeletedImageTakesNoWritesOfTheGuest) {
  start_live_with_data();
  std::filesystem::remove(a.image());
  auto waiting = guest(a, {"write -P 0x22 2M 64k"});
  expect_takeover(waiting, "was deleted");
}

TEST_F(EngineImage, AnImageWithAnotherFileInItsPlaceIsNoticed) {
  start_live_with_data();
  std::filesystem::rename(a.image(), a.directory() + "/moved");
  replace_image(a, false);
  // Flushes look for it, at most once a second.
  auto waiting = std::async(std::launch::async, [this] {
    int code = 0;
    for (int i = 0; code == 0 && i < 1000; ++i)
      code = qemu_io(a, {"flush"});
    return code;
  });
  expect_takeover(waiting, "is another file now");
}

TEST_F(EngineImage, ACutImageOfTheSecondaryIsALoss) {
  start_live_with_data();
  std::filesystem::resize_file(b.image(), 1 << 20);
  auto waiting = guest(a, {"write -P 0x22 2M 64k"});
  const Json event = b.wait_for_event("replica-failed");
  EXPECT_THAT(event["error"].get<std::string>(), HasSubstr("was cut to"));
  a.wait_for_session("none");
  EXPECT_TRUE(is_held(a, waiting));
  EXPECT_EQ(b.status()["record"]["state"], "inconsistent");
  EXPECT_THAT(a.log(), HasSubstr("could not do a write on its replica"));
  EXPECT_THAT(b.refused("serve", {{"epoch", 3}}), HasSubstr("inconsistent"));
  a.ok("shrink", {{"epoch", 3}});
  EXPECT_EQ(waiting.get(), 0);
  a.ok("connect");  // no resync goes onto it
  a.wait_until("a refusal", [this](const Json&) {
    return a.log().find("the partner refuses the session: disk image") != std::string::npos;
  });
  b.kill();
  EXPECT_THAT(refusal(b), AllOf(HasSubstr("VM web1 on b, disk vda"), HasSubstr(b.image()),
                                HasSubstr("truncate -s 4194304")));
  std::filesystem::resize_file(b.image(), plan.disk_bytes);
  b.start();
  grow(a, 3);
  EXPECT_TRUE(same_images());
}

// ---- while no engine runs --------------------------------------------------------------------

// Its length alone makes it no replica again.
TEST_F(EngineImage, AnImageThatWasCutWhileDownIsCopiedAnew) {
  start_live_with_data();
  b.kill();
  a.wait_for_session("none");
  a.ok("shrink", {{"epoch", 3}});
  std::filesystem::resize_file(b.image(), 1 << 20);
  EXPECT_THAT(refusal(b), HasSubstr("this replica is marked as damaged"));
  std::filesystem::resize_file(b.image(), plan.disk_bytes);
  b.start();
  EXPECT_EQ(b.status()["record"]["state"], "inconsistent");
  grow(a, 3);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineImage, TheOnlyCompleteReplicaIsNotGivenUp) {
  start_pair();
  serve(a, 1);
  ASSERT_EQ(qemu_io(a, {"write -P 0x11 1M 64k", "flush"}), 0);
  a.kill();
  const std::string good = plan.directory + "/good";
  std::filesystem::copy_file(a.image(), good);
  std::filesystem::resize_file(a.image(), 1 << 20);
  EXPECT_THAT(refusal(a), HasSubstr("the only complete replica: restore the image"));
  std::filesystem::copy_file(good, a.image(), std::filesystem::copy_options::overwrite_existing);
  a.start();
  a.ok("serve", {{"epoch", 1}});
  EXPECT_EQ(qemu_io(a, {"read -P 0x11 1M 64k"}), 0);
}

TEST_F(EngineImage, AnotherFileIsRefusedUntilAPersonSaysWhatItIs) {
  start_live_with_data();
  b.kill();
  a.wait_for_session("none");
  a.ok("shrink", {{"epoch", 3}});
  replace_image(b, false);
  EXPECT_THAT(refusal(b), AllOf(HasSubstr("VM web1 on b, disk vda"), HasSubstr(b.image()),
                                HasSubstr("another file"), HasSubstr("--adopt-images other")));
  EXPECT_THAT(refusal(b), HasSubstr("another file")) << "asking again is no consent";
  EXPECT_EQ(adopt(b, "other"), 0);
  b.start();
  EXPECT_EQ(b.status()["record"]["state"], "inconsistent");
  grow(a, 3);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineImage, ACopyIsTakenForTheSameByAPersonsWord) {
  start_live_with_data();
  b.kill();
  a.wait_for_session("none");
  a.ok("shrink", {{"epoch", 3}});
  replace_image(b, true);
  EXPECT_THAT(refusal(b), HasSubstr("--adopt-images same"));
  EXPECT_EQ(adopt(b, "same"), 0);
  b.start();
  EXPECT_EQ(b.status()["record"]["state"], "uptodate");
  grow(a, 3);
  EXPECT_TRUE(same_images());
}

TEST_F(EngineImage, TheOnlyCompleteReplicaIsNotReplacedByJustAnything) {
  start_pair();
  serve(a, 1);
  ASSERT_EQ(qemu_io(a, {"write -P 0x11 1M 64k", "flush"}), 0);
  a.kill();
  replace_image(a, false);
  EXPECT_THAT(refusal(a, {"--adopt-images", "other"}), HasSubstr("the only complete one"));
  EXPECT_THAT(refusal(a), HasSubstr("another file"));
}

TEST_F(EngineImage, NothingIsAdoptedUnderARunningEngine) {
  start_pair();
  EXPECT_THAT(refusal(b, {"--adopt-images", "same"}), HasSubstr("record"));
}

}  // namespace
}  // namespace havm
