#include "vmrepl/bitmap/replica_marks.hpp"

#include <gtest/gtest.h>

namespace havm {
namespace {

constexpr std::uint64_t extent = ActivityLogCore::extent_bytes;
constexpr std::uint64_t disk_bytes = 8 * extent;
using AdmissionKind = ReplicaMarks::Admission::Kind;

// A log with room for one extent: whether the next one is admitted tells whether the first may go.
class ReplicaMarksTest : public testing::Test {
 protected:
  ReplicaMarksTest() {
    EXPECT_EQ(marks.admit(0, 0, 4096).kind, AdmissionKind::pending);
    marks.transaction_done(marks.start_transaction().value().number);
    marks.release(0, 0, 4096);
  }
  bool may_leave() { return marks.admit(0, extent, 4096).kind != AdmissionKind::full; }
  void flush() { marks.flushed(0, marks.flush_started(0)); }
  void save() {
    marks.save_started();
    marks.save_done();
  }

  ReplicaMarks marks{{DirtyBitmap(disk_bytes)}, ReplicaMarks::LogTable(1), 1};
};

TEST_F(ReplicaMarksTest, WhatIsNotFlushedStays) {
  EXPECT_FALSE(may_leave());
}

TEST_F(ReplicaMarksTest, WhatIsFlushedOnBothReplicasMayLeaveAtOnce) {
  flush();
  EXPECT_TRUE(may_leave());
}

TEST_F(ReplicaMarksTest, WhatThePartnerLacksMayLeaveOnlyWhenItsBitIsSaved) {
  marks.set(0, 0, 4096);
  flush();
  EXPECT_TRUE(marks.save_wanted());
  EXPECT_FALSE(may_leave());
  save();
  EXPECT_TRUE(may_leave());
}

TEST_F(ReplicaMarksTest, ASaveThatBeganBeforeTheBitWasSetDoesNotCount) {
  marks.save_started();
  marks.set(0, 0, 4096);
  flush();
  marks.save_done();
  EXPECT_FALSE(may_leave());
  save();
  EXPECT_TRUE(may_leave());
}

TEST_F(ReplicaMarksTest, ASaveAloneMakesNothingFlushed) {
  marks.set(0, 0, 4096);
  save();
  EXPECT_FALSE(may_leave());
}

TEST_F(ReplicaMarksTest, FlushesThatComeWhileASaveRunsDoNotPutOffTheOldOnes) {
  marks.set(0, 0, 4096);
  flush();
  marks.save_started();
  marks.set(0, 3 * extent, 4096);
  flush();
  marks.save_done();
  EXPECT_TRUE(may_leave());
}

TEST_F(ReplicaMarksTest, ASetBitThatIsSetAgainNeedsNoNewSave) {
  marks.set(0, 0, 4096);
  save();
  marks.set(0, 0, 4096);
  EXPECT_TRUE(marks.is_saved());
  marks.clear(0, 0, 65536);
  EXPECT_TRUE(marks.is_saved());
  EXPECT_TRUE(marks.changed());
  marks.set(0, 0, 4096);
  EXPECT_FALSE(marks.is_saved());
}

TEST_F(ReplicaMarksTest, WhatTheLogHeldAtTheStartIsDirty) {
  ReplicaMarks read{{DirtyBitmap(disk_bytes)}, {LogExtent{0, 2}, std::nullopt}, 7};
  EXPECT_EQ(read.dirty_bytes(), extent);
  EXPECT_TRUE(read.dirty(0).any_in(2 * extent, 1));
  EXPECT_FALSE(read.is_saved());
}

TEST_F(ReplicaMarksTest, ForgottenMarksAreEmptyAndAnOldSaveFreesNothingOfTheNewLog) {
  marks.set(0, 0, 4096);
  flush();
  marks.save_started();
  marks.forget(50);
  EXPECT_EQ(marks.dirty_bytes(), 0u);
  EXPECT_EQ(marks.admit(0, 0, 4096).transaction, 50u);
  marks.transaction_done(marks.start_transaction().value().number);
  marks.release(0, 0, 4096);
  marks.save_done();
  EXPECT_FALSE(may_leave());
}

TEST_F(ReplicaMarksTest, AnIdleExtentRetires) {
  flush();
  marks.retire_idle();
  EXPECT_FALSE(marks.start_transaction().has_value());
  marks.retire_idle();
  const auto transaction = marks.start_transaction();
  ASSERT_TRUE(transaction.has_value());
  ASSERT_EQ(transaction->updates.size(), 1u);
  EXPECT_FALSE(transaction->updates[0].extent.has_value());
}

TEST_F(ReplicaMarksTest, AnExtentThatIsNotFlushedDoesNotRetire) {
  marks.retire_idle();
  marks.retire_idle();
  EXPECT_FALSE(marks.start_transaction().has_value());
}

TEST_F(ReplicaMarksTest, APlaceThatRetiredAndIsTakenAgainBeforeItWasWrittenHoldsTheNewExtent) {
  flush();
  marks.retire_idle();
  marks.retire_idle();
  const auto admission = marks.admit(0, 5 * extent, 4096);
  ASSERT_EQ(admission.kind, AdmissionKind::pending);
  const auto transaction = marks.start_transaction();
  ASSERT_TRUE(transaction.has_value());
  EXPECT_EQ(transaction->number, admission.transaction);
  ASSERT_EQ(transaction->updates.size(), 1u);
  EXPECT_EQ(transaction->updates[0].extent, (LogExtent{0, 5}));
}

}  // namespace
}  // namespace havm
