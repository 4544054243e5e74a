// The state before a resync: kept for all disks or for none, never replaced by half of a newer one,
// wherever the power fails. And its driver.
#include "vmrepl/session/snapshot_set.hpp"

#include <boost/asio/io_context.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/vmrepl/session/fake_snapshot_files.hpp"
#include "vmrepl/session/target_snapshot.hpp"

namespace havm {
namespace {

using testing::HasSubstr;

const std::vector<std::string> images{"/i/vda", "/i/vdb"};

struct Replica {
  FakeSnapshotFiles files;
  SnapshotSet set{files, images};

  explicit Replica(const std::string& content) { write(content); }
  void write(const std::string& content) {
    for (const auto& image : images)
      files.files[image] = content;
  }
  // What the whole set shows; empty: there is none. A mixture fails the test.
  std::string shown() {
    const auto found = set.find();
    if (found.empty()) return {};
    EXPECT_EQ(found.size(), images.size());
    const std::string first = files.files.at(snapshot_path(images[0]));
    for (const auto& image : images)
      EXPECT_EQ(files.files.at(snapshot_path(image)), first);
    return first;
  }
  [[nodiscard]] std::size_t leftovers() const { return files.files.size() - images.size(); }
};

TEST(SnapshotSetTest, KeepsTheStateBeforeUntilItIsRemoved) {
  Replica r("old");
  const auto made = r.set.prepare(true, true);
  EXPECT_TRUE(made.made);
  ASSERT_EQ(made.files.size(), 2U);
  EXPECT_EQ(made.files[1].path, "/i/vdb.havm-before-resync");
  r.write("half");
  const auto again = r.set.prepare(false, true);
  EXPECT_FALSE(again.made);
  EXPECT_EQ(again.files.size(), 2U);
  EXPECT_EQ(r.shown(), "old");
  ASSERT_TRUE(r.set.remove());
  EXPECT_EQ(r.leftovers(), 0U);
}

TEST(SnapshotSetTest, OfAnIncompleteReplicaNothingIsKept) {
  Replica r("half");
  const auto outcome = r.set.prepare(false, true);
  EXPECT_TRUE(outcome.files.empty());
  EXPECT_THAT(outcome.why_not, HasSubstr("incomplete already"));
  EXPECT_EQ(r.files.operations, 0);
}

TEST(SnapshotSetTest, ASetThatLostAFileIsNone) {
  Replica r("old");
  ASSERT_TRUE(r.set.prepare(true, true).made);
  r.files.files.erase(snapshot_path(images[0]));
  EXPECT_TRUE(r.set.prepare(false, true).files.empty());
}

TEST(SnapshotSetTest, AConsistentReplicaReplacesWhatIsLeftFromBefore) {
  Replica r("old");
  ASSERT_TRUE(r.set.prepare(true, true).made);
  r.write("newer");
  ASSERT_TRUE(r.set.prepare(true, false).made);
  EXPECT_EQ(r.shown(), "newer");
}

TEST(SnapshotSetTest, WithoutReflinksNothingIsLeftBehind) {
  for (const auto& image : images) {
    Replica r("old");
    ASSERT_TRUE(r.set.prepare(true, true).made);
    r.files.no_reflink = image;
    const auto outcome = r.set.prepare(true, true);
    EXPECT_THAT(outcome.why_not, HasSubstr("no reflinks"));
    EXPECT_TRUE(outcome.files.empty());
    EXPECT_EQ(r.leftovers(), 0U);
  }
}

TEST(SnapshotSetTest, ItMustNotCostTheSpaceOfTheReplica) {
  Replica r("old");
  r.files.free_bytes = 21ULL << 30;  // both may be overwritten: 20 GiB, and the reserve
  EXPECT_THAT(r.set.prepare(true, true).why_not, HasSubstr("are free"));
  EXPECT_EQ(r.leftovers(), 0U);
  EXPECT_TRUE(r.set.prepare(true, false).made);
  r.files.free_bytes = SnapshotSet::reserve_bytes - 1;
  EXPECT_FALSE(r.set.prepare(true, false).made);
  EXPECT_FALSE(r.set.low_on_space());
  r.files.free_bytes = SnapshotSet::reserve_bytes / 2 - 1;
  EXPECT_TRUE(r.set.low_on_space());
}

// A resync's life with a power cut after each operation: whatever is found afterwards shows one
// moment at which the replica was consistent, and after the return all goes on.
TEST(SnapshotSetTest, WhereverThePowerFails) {
  int cuts = 0;
  for (bool had_one : {false, true}) {
    for (int after = 0; after < 20; ++after) {
      Replica r("older");
      if (had_one) {
        ASSERT_TRUE(r.set.prepare(true, true).made);
      }
      r.write("old");
      r.files.operations = 0;
      r.files.power_fails_after = after;
      const auto outcome = r.set.prepare(true, true);
      if (outcome.made) break;
      ++cuts;
      r.files.power_fails_after = -1;
      const std::string found = r.shown();
      EXPECT_TRUE(found.empty() || found == "old" || (had_one && found == "older")) << found;
      EXPECT_TRUE(r.set.prepare(true, true).made);
      EXPECT_EQ(r.shown(), "old");
      r.write("half");
      EXPECT_FALSE(r.set.prepare(false, true).files.empty());
      EXPECT_EQ(r.shown(), "old");
    }
  }
  EXPECT_GE(cuts, 16);
}

TEST(SnapshotSetTest, APowerCutDuringTheRemovalLeavesNoMixture) {
  for (int after = 0; after < 4; ++after) {
    Replica r("old");
    ASSERT_TRUE(r.set.prepare(true, true).made);
    r.files.operations = 0;
    r.files.power_fails_after = after;
    EXPECT_FALSE(r.set.remove());
    r.files.power_fails_after = -1;
    const std::string found = r.shown();
    EXPECT_TRUE(found.empty() || found == "old");
    EXPECT_TRUE(r.set.remove());
    EXPECT_EQ(r.leftovers(), 0U);
  }
}

class TargetSnapshotTest : public testing::Test {
 protected:
  TargetSnapshotTest() {
    for (const auto& image : images) {
      ConfigDisk disk;
      disk.name = image.substr(3);
      disk.path = image;
      config.disks.push_back(disk);
    }
    config.vm = "web1";
    auto owned = std::make_unique<FakeSnapshotFiles>();
    files = owned.get();
    for (const auto& image : images)
      files->files[image] = "old";
    snapshot = std::make_unique<TargetSnapshot>(io.get_executor(), config, std::move(owned));
  }
  // Runs handlers until it is so, for at most ten seconds.
  testing::AssertionResult until(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition() && std::chrono::steady_clock::now() < deadline) {
      io.restart();
      io.run_one_for(std::chrono::milliseconds(20));
    }
    if (condition()) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "it is " << snapshot->status().dump();
  }
  testing::AssertionResult state_becomes(const std::string& state) {
    return until([&] { return snapshot->status()["state"] == state; });
  }

  EngineConfig config;
  boost::asio::io_context io;
  FakeSnapshotFiles* files = nullptr;
  std::unique_ptr<TargetSnapshot> snapshot;
};

TEST_F(TargetSnapshotTest, ReadyComesOnceAndLaterAndStatusTellsTheFiles) {
  int ready = 0;
  snapshot->prepare(true, true, [&ready] { ++ready; });
  EXPECT_EQ(ready, 0);
  EXPECT_EQ(snapshot->status()["state"], "making");
  EXPECT_TRUE(until([&ready] { return ready == 1; }));
  const auto status = snapshot->status();
  EXPECT_EQ(status["state"], "kept");
  EXPECT_TRUE(status["reason"].is_null());
  EXPECT_EQ(status["files"][0]["disk"], "vda");
  EXPECT_EQ(status["files"][0]["path"], "/i/vda.havm-before-resync");
  EXPECT_EQ(status["files"][0]["taken"], "2023-11-14T22:13:20Z");
  snapshot->drop("the replica is in sync again");
  EXPECT_TRUE(state_becomes("none"));
  EXPECT_TRUE(snapshot->status()["files"].empty());
  EXPECT_EQ(ready, 1);
}

TEST_F(TargetSnapshotTest, WhatCannotBeKeptStopsNoResync) {
  files->no_reflink = images[1];
  bool ready = false;
  snapshot->prepare(true, true, [&ready] { ready = true; });
  EXPECT_TRUE(until([&ready] { return ready; }));
  EXPECT_EQ(snapshot->status()["state"], "impossible");
  EXPECT_THAT(snapshot->status()["reason"].get<std::string>(), HasSubstr("no reflinks"));
}

TEST_F(TargetSnapshotTest, AFileSystemThatFillsUpGetsTheSpaceBack) {
  snapshot = nullptr;
  auto fuller = std::make_unique<FakeSnapshotFiles>();
  fuller->free_bytes = SnapshotSet::reserve_bytes / 4;
  for (const auto& image : images) {
    fuller->files[image] = "half";
    fuller->files[snapshot_path(image)] = "old";
  }
  snapshot = std::make_unique<TargetSnapshot>(io.get_executor(), config, std::move(fuller));
  snapshot->look();
  EXPECT_TRUE(state_becomes("dropped"));
  EXPECT_THAT(snapshot->status()["reason"].get<std::string>(), HasSubstr("nearly full"));
}

TEST_F(TargetSnapshotTest, WhatAnEarlierEngineLeftIsFound) {
  snapshot = nullptr;
  auto left = std::make_unique<FakeSnapshotFiles>();
  for (const auto& image : images) {
    left->files[image] = "half";
    left->files[snapshot_path(image)] = "old";
  }
  snapshot = std::make_unique<TargetSnapshot>(io.get_executor(), config, std::move(left));
  snapshot->look();
  EXPECT_TRUE(state_becomes("kept"));
}

TEST_F(TargetSnapshotTest, NothingIsCalledAfterItsEnd) {
  bool ready = false;
  snapshot->prepare(true, true, [&ready] { ready = true; });
  snapshot = nullptr;
  io.restart();
  io.poll();
  EXPECT_FALSE(ready);
}

}  // namespace
}  // namespace havm
