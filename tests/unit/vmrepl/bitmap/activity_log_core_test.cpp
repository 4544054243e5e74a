// ActivityLogCore: each rule by hand; random histories are in activity_log_model_test.cpp.
#include "vmrepl/bitmap/activity_log_core.hpp"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

namespace havm {
namespace {

using Kind = ActivityLogCore::Admission::Kind;
using Table = std::vector<std::optional<LogExtent>>;
constexpr std::uint64_t extent = ActivityLogCore::extent_bytes;

// Two disks; the second ends inside an extent.
ActivityLogCore core_of(const Table& table, std::uint64_t next = 1) {
  return ActivityLogCore({1000 * extent, 10 * extent + 512}, table, next);
}
ActivityLogCore empty_core(std::size_t slots) {
  return core_of(Table(slots));
}

Kind admit(ActivityLogCore& core, std::uint32_t index, std::uint16_t disk = 0) {
  return core.admit(disk, index * extent, 4096).kind;
}
void release(ActivityLogCore& core, std::uint32_t index, std::uint16_t disk = 0) {
  core.release(disk, index * extent, 4096);
}
LogTransaction start(ActivityLogCore& core) {
  auto t = core.start_transaction();
  EXPECT_TRUE(t);
  return t ? *t : LogTransaction{};
}
void commit(ActivityLogCore& core) {
  core.transaction_done(start(core).number);
}
void flush(ActivityLogCore& core, std::uint16_t disk = 0) {
  core.flush_done(disk, core.flush_started(disk));
}
// Logged, released, flushed: may leave.
void use(ActivityLogCore& core, std::uint32_t index) {
  EXPECT_EQ(admit(core, index), Kind::pending);
  commit(core);
  release(core, index);
}
std::set<LogExtent> told(const ActivityLogCore& core) {
  std::set<LogExtent> extents;
  core.for_each_extent([&](LogExtent e) { extents.insert(e); });
  return extents;
}

TEST(ActivityLogCore, ANewExtentIsLoggedOnlyWhenItsTransactionIsDone) {
  ActivityLogCore core = empty_core(8);
  EXPECT_FALSE(core.start_transaction());
  EXPECT_EQ(core.durable_transaction(), 0U);
  const auto first = core.admit(0, 3 * extent + 512, 512);
  EXPECT_EQ(first.kind, Kind::pending);
  EXPECT_EQ(first.transaction, 1U);
  const LogTransaction t = start(core);
  EXPECT_EQ(t.number, 1U);
  ASSERT_EQ(t.updates.size(), 1U);
  EXPECT_EQ(t.updates[0].extent, (LogExtent{0, 3}));
  EXPECT_EQ(core.admit(0, 3 * extent, 512).transaction, 1U);  // in flight is not there yet
  EXPECT_EQ(admit(core, 4), Kind::pending);
  EXPECT_FALSE(core.start_transaction()) << "one at a time";
  core.transaction_done(1);
  EXPECT_EQ(core.durable_transaction(), 1U);
  EXPECT_EQ(admit(core, 3), Kind::logged);
  EXPECT_EQ(core.admit(0, 4 * extent, 512).transaction, 2U);
}

TEST(ActivityLogCore, RequestsOfOneTransactionShareIt) {
  ActivityLogCore core = empty_core(100);
  for (std::uint32_t i = 0; i < 50; ++i)
    EXPECT_EQ(core.admit(0, i * extent, 512).transaction, 1U);
  EXPECT_EQ(start(core).updates.size(), 50U);
}

TEST(ActivityLogCore, ALargeRequestTouchesAllItsExtents) {
  ActivityLogCore core = empty_core(8);
  EXPECT_EQ(core.admit(0, 512, 32 << 20).kind, Kind::full) << "nine extents into eight slots";
  EXPECT_EQ(core.extents(), 0U);
  ActivityLogCore larger = empty_core(9);
  EXPECT_EQ(larger.admit(0, 512, 32 << 20).kind, Kind::pending);
  EXPECT_EQ(larger.extents(), 9U);
  EXPECT_EQ(larger.pinned(), 9U);
  larger.release(0, 512, 32 << 20);
  EXPECT_EQ(larger.pinned(), 0U);
  EXPECT_EQ(larger.unflushed(0), 9U);
}

TEST(ActivityLogCore, TheLastShortExtentAndNothingAsLength) {
  ActivityLogCore core = empty_core(8);
  EXPECT_EQ(core.admit(1, 10 * extent, 512).kind, Kind::pending);
  EXPECT_EQ(told(core), (std::set<LogExtent>{{1, 10}}));
  EXPECT_EQ(core.admit(1, 10 * extent + 512, 0).kind, Kind::logged);
  core.release(1, 10 * extent + 512, 0);
}

TEST(ActivityLogCore, MoreThanOneTransactionHoldsGoesIntoTheFollowing) {
  constexpr std::uint32_t most = ActivityLogCore::updates_max;
  ActivityLogCore core = empty_core(1000);
  EXPECT_EQ(core.admit(0, 0, 600 * extent).transaction, 3U);
  EXPECT_EQ(core.admit(0, 0, (most - 1) * extent).transaction, 1U);
  EXPECT_EQ(core.admit(0, most * extent, 1).transaction, 2U);
  EXPECT_EQ(start(core).updates.size(), most);
  EXPECT_EQ(core.admit(0, 700 * extent, 1).transaction, 3U);
  core.transaction_done(1);
  EXPECT_EQ(core.admit(0, 0, most * extent).kind, Kind::logged);
  EXPECT_EQ(core.admit(0, 0, (most + 1) * extent).transaction, 2U);
  EXPECT_EQ(start(core).updates.size(), most);
  core.transaction_done(2);
  EXPECT_EQ(start(core).updates.size(), 600U - 2 * most + 1);
  core.transaction_done(3);
  EXPECT_FALSE(core.start_transaction());
  EXPECT_EQ(core.admit(0, 0, 600 * extent).kind, Kind::logged);
}

TEST(ActivityLogCore, FullMeansThatNothingMayLeave) {
  ActivityLogCore core = empty_core(3);
  use(core, 0);
  use(core, 1);
  EXPECT_EQ(admit(core, 2), Kind::pending);
  commit(core);
  EXPECT_FALSE(core.starved());
  EXPECT_EQ(admit(core, 3), Kind::full);
  EXPECT_TRUE(core.starved());
  EXPECT_EQ(admit(core, 3), Kind::full);
  flush(core);  // covers 0 and 1; 2 is pinned
  EXPECT_FALSE(core.starved());
  EXPECT_EQ(core.evictable(), 2U);
  EXPECT_EQ(admit(core, 3), Kind::pending);
  EXPECT_EQ(admit(core, 4), Kind::pending);
  EXPECT_EQ(admit(core, 5), Kind::full);
  EXPECT_EQ(admit(core, 2), Kind::logged) << "what is there needs no room";
}

TEST(ActivityLogCore, FullChangesNothing) {
  ActivityLogCore core = empty_core(3);
  use(core, 0);
  use(core, 1);
  flush(core);
  EXPECT_EQ(admit(core, 2), Kind::pending);
  commit(core);
  const auto before = told(core);
  // Needs 0 (there), 1 (there), 2 (pinned), 3 (missing): no room for the last.
  EXPECT_EQ(core.admit(0, 0, 4 * extent).kind, Kind::full);
  EXPECT_EQ(told(core), before);
  EXPECT_EQ(core.evictable(), 2U);
  EXPECT_EQ(core.pinned(), 1U);
  EXPECT_FALSE(core.start_transaction());
}

TEST(ActivityLogCore, ARequestNeverEvictsItsOwnExtents) {
  ActivityLogCore core = empty_core(2);
  use(core, 0);
  use(core, 5);
  flush(core);
  EXPECT_EQ(core.admit(0, 0, 2 * extent).kind, Kind::pending);  // 0 stays although it is the oldest
  commit(core);
  EXPECT_EQ(told(core), (std::set<LogExtent>{{0, 0}, {0, 1}}));
}

TEST(ActivityLogCore, AFlushCoversOnlyWhatWasReleasedBeforeItStarted) {
  ActivityLogCore core = empty_core(2);
  use(core, 0);
  EXPECT_EQ(admit(core, 1), Kind::pending);
  commit(core);
  const std::uint64_t mark = core.flush_started(0);
  release(core, 1);  // while the flush runs
  EXPECT_EQ(admit(core, 0), Kind::logged);
  release(core, 0);  // used again
  core.flush_done(0, mark);
  EXPECT_EQ(core.evictable(), 0U);
  EXPECT_EQ(admit(core, 2), Kind::full);
  flush(core);
  EXPECT_EQ(core.evictable(), 2U);
}

TEST(ActivityLogCore, EveryPinCounts) {
  ActivityLogCore core = empty_core(1);
  EXPECT_EQ(admit(core, 0), Kind::pending);
  commit(core);
  EXPECT_EQ(admit(core, 0), Kind::logged);
  release(core, 0);
  flush(core);
  EXPECT_EQ(admit(core, 1), Kind::full);
  release(core, 0);
  EXPECT_EQ(admit(core, 1), Kind::full);
  flush(core);
  EXPECT_EQ(admit(core, 1), Kind::pending);
}

TEST(ActivityLogCore, AFlushOfAnotherDiskHelpsNobody) {
  ActivityLogCore core = empty_core(1);
  use(core, 0);
  flush(core, 1);
  EXPECT_EQ(admit(core, 1), Kind::full);
  EXPECT_EQ(core.unflushed(0), 1U);
  EXPECT_EQ(core.unflushed(1), 0U);
}

TEST(ActivityLogCore, TheLeastRecentlyReleasedLeavesFirst) {
  ActivityLogCore core = empty_core(3);
  for (const std::uint32_t i : {0U, 1U, 2U})
    use(core, i);
  flush(core);
  EXPECT_EQ(admit(core, 0), Kind::logged);
  release(core, 0);
  flush(core);
  EXPECT_EQ(admit(core, 10), Kind::pending);  // in place of 1
  EXPECT_EQ(admit(core, 11), Kind::pending);  // in place of 2
  commit(core);
  EXPECT_EQ(told(core), (std::set<LogExtent>{{0, 0}, {0, 10}, {0, 11}}));
}

TEST(ActivityLogCore, RecencyCountsAcrossDisksInWhateverOrderTheyAreFlushed) {
  ActivityLogCore core = empty_core(2);
  EXPECT_EQ(admit(core, 0, 1), Kind::pending);
  EXPECT_EQ(admit(core, 7, 0), Kind::pending);
  commit(core);
  release(core, 0, 1);  // the older one
  release(core, 7, 0);
  flush(core, 0);
  flush(core, 1);
  EXPECT_EQ(admit(core, 8), Kind::pending);
  commit(core);
  EXPECT_EQ(told(core), (std::set<LogExtent>{{0, 7}, {0, 8}}));
}

TEST(ActivityLogCore, WhatLeavesIsToldUntilThatIsDurable) {
  ActivityLogCore core = empty_core(1);
  use(core, 0);
  flush(core);
  EXPECT_EQ(admit(core, 1), Kind::pending);
  EXPECT_EQ(told(core), (std::set<LogExtent>{{0, 0}, {0, 1}}));
  const LogTransaction t = start(core);
  EXPECT_EQ(told(core), (std::set<LogExtent>{{0, 0}, {0, 1}}));
  core.transaction_done(t.number);
  EXPECT_EQ(told(core), (std::set<LogExtent>{{0, 1}}));
}

TEST(ActivityLogCore, AnEvictedExtentThatComesBackIsANewOne) {
  ActivityLogCore core = empty_core(2);
  use(core, 0);
  use(core, 1);
  flush(core);
  EXPECT_EQ(admit(core, 2), Kind::pending);  // evicts 0, which is still on disk
  EXPECT_EQ(admit(core, 0), Kind::pending);  // evicts 1; must not be taken for logged
  commit(core);
  EXPECT_EQ(told(core), (std::set<LogExtent>{{0, 0}, {0, 2}}));
  EXPECT_EQ(admit(core, 0), Kind::logged);
}

TEST(ActivityLogCore, AnAbandonedRequestMayLeaveBeforeItIsEvenWritten) {
  ActivityLogCore core = empty_core(1);
  EXPECT_EQ(core.admit(0, 0, 512).transaction, 1U);
  core.release(0, 0, 512);
  EXPECT_EQ(admit(core, 1), Kind::full);
  flush(core);
  EXPECT_EQ(core.admit(0, extent, 512).transaction, 1U);  // takes its place in transaction 1
  const LogTransaction t = start(core);
  ASSERT_EQ(t.updates.size(), 1U);
  EXPECT_EQ(t.updates[0].extent, (LogExtent{0, 1}));
  // The same while its transaction is in flight.
  core.release(0, extent, 512);
  flush(core);
  EXPECT_EQ(core.admit(0, 2 * extent, 512).transaction, 2U);
  EXPECT_EQ(told(core), (std::set<LogExtent>{{0, 1}, {0, 2}}));
  core.transaction_done(1);
  EXPECT_EQ(told(core), (std::set<LogExtent>{{0, 1}, {0, 2}}));
  EXPECT_EQ(admit(core, 2), Kind::pending);
  commit(core);
  EXPECT_EQ(told(core), (std::set<LogExtent>{{0, 2}}));
}

TEST(ActivityLogCore, RestoredExtentsAreLoggedAndUnflushed) {
  const Table table{LogExtent{0, 5}, std::nullopt, LogExtent{1, 10}};
  ActivityLogCore core = core_of(table, 40);
  EXPECT_EQ(core.durable_transaction(), 39U);
  EXPECT_EQ(told(core), (std::set<LogExtent>{{0, 5}, {1, 10}}));
  EXPECT_EQ(admit(core, 5), Kind::logged);
  release(core, 5);
  EXPECT_EQ(core.admit(0, 0, 512).transaction, 40U);
  EXPECT_EQ(admit(core, 1), Kind::full);
  flush(core, 1);
  EXPECT_EQ(admit(core, 1), Kind::pending);
  EXPECT_EQ(admit(core, 2), Kind::full);
  flush(core, 0);
  EXPECT_EQ(admit(core, 2), Kind::pending);
}

TEST(ActivityLogCore, ARestoredExtentMayStandTwice) {
  ActivityLogCore core = core_of({LogExtent{0, 5}, LogExtent{0, 5}}, 7);
  EXPECT_EQ(core.extents(), 1U);
  EXPECT_EQ(admit(core, 5), Kind::logged);
  EXPECT_EQ(admit(core, 6), Kind::pending);
  EXPECT_EQ(admit(core, 7), Kind::full);
  commit(core);
  EXPECT_EQ(told(core), (std::set<LogExtent>{{0, 5}, {0, 6}}));
}

TEST(ActivityLogCore, TheContextIsTheTableAfterTheTransactionAndGoesRound) {
  constexpr std::uint32_t slots = 1000;
  constexpr std::uint32_t piece = ActivityLogCore::context_slots(slots);
  ActivityLogCore core = empty_core(slots);
  Table on_disk(slots);
  std::vector<bool> seen(slots);
  for (std::uint32_t i = 0; i < ActivityLogCore::ring_blocks - 1; ++i) {
    EXPECT_EQ(core.admit(0, 15 * i * extent, 15 * extent).kind, Kind::pending);
    const LogTransaction t = start(core);
    for (const LogSlot& update : t.updates)
      on_disk[update.slot] = update.extent;
    EXPECT_EQ(t.context_first, ActivityLogCore::context_first(t.number, slots));
    EXPECT_EQ(t.context.size(), std::min(piece, slots - t.context_first));
    for (std::uint32_t k = 0; k < t.context.size(); ++k) {
      EXPECT_EQ(t.context[k], on_disk[t.context_first + k]);
      seen[t.context_first + k] = true;
    }
    core.transaction_done(t.number);
  }
  EXPECT_TRUE(std::ranges::all_of(seen, [](bool s) { return s; }));
}

TEST(ActivityLogCore, TheDefaultCoversTwentyFiveGigabytes) {
  EXPECT_GE(ActivityLogCore::slots_default * extent, std::uint64_t{25} << 30);
}

TEST(ActivityLogCoreDeathTest, MisuseIsABug) {
  ActivityLogCore core = empty_core(4);
  EXPECT_DEATH(release(core, 0), "without having been admitted");
  EXPECT_DEATH(static_cast<void>(core.admit(2, 0, 1)), "of this VM");
  EXPECT_DEATH(static_cast<void>(core.admit(1, 10 * extent, 513)), "lie on the disk");
  EXPECT_DEATH(static_cast<void>(core.admit(0, 512, UINT64_MAX)), "lie on the disk");
  EXPECT_DEATH(core.transaction_done(1), "in flight");
  EXPECT_DEATH(core.flush_done(0, 9), "not started");
  EXPECT_DEATH(core_of({LogExtent{1, 11}}), "lie on a disk");
  EXPECT_DEATH(core_of({LogExtent{2, 0}}), "lie on a disk");
}

}  // namespace
}  // namespace havm
