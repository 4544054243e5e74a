// The rules of the owner's marks: intent before data, bits that outlive a crash, generations.
#include "tests/unit/vmrepl/session/primary_core_fixture.hpp"

namespace havm {
namespace {

constexpr std::uint64_t extent_bytes = ActivityLogCore::extent_bytes;

// Disks of several extents, and a log with room for two.
class PrimaryMarksTest : public PrimaryCoreTest {
 protected:
  PrimaryMarksTest() { small.open(Epoch(5), true); }

  void write_small(OpId id, std::uint64_t extent, std::uint16_t disk = 0) {
    small.submit(id, request(DiskOp::write, extent * extent_bytes, 4096, false, disk), out);
  }
  LogTransaction take_log() {
    LogTransaction found;
    int count = 0;
    for (auto& a : std::exchange(out, {}))
      if (a.kind == Kind::write_log) {
        found = a.transaction;
        ++count;
      }
    EXPECT_EQ(count, 1);
    return found;
  }
  bool is_among(Kind kind) const {
    return std::ranges::any_of(out, [&](const PrimaryAction& a) { return a.kind == kind; });
  }
  void save_ends() {
    small_marks.save_started();
    small_marks.save_done();
    small.marks_saved(out);
  }

  ReplicaMarks small_marks{{DirtyBitmap(8 * extent_bytes)}, ReplicaMarks::LogTable(2), 1};
  PrimaryCore small{small_marks};
};

TEST_F(PrimaryMarksTest, NeitherLegIsStartedBeforeTheExtentIsInTheLog) {
  write_small(0, 3);
  EXPECT_FALSE(is_among(Kind::submit_local));
  const LogTransaction log = take_log();
  EXPECT_THAT(log.updates, ElementsAre(LogSlot{log.updates.at(0).slot, LogExtent{0, 3}}));
  small.log_written(log.number, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local));
}

TEST_F(PrimaryMarksTest, AReadNeedsNoLog) {
  small.submit(0, request(DiskOp::read), out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local));
}

TEST_F(PrimaryMarksTest, WritesThatCameMeanwhileShareTheNextTransaction) {
  write_small(0, 0);
  const LogTransaction first = take_log();
  write_small(1, 1);
  small.submit(2, request(DiskOp::write, extent_bytes + 65536), out);
  EXPECT_THAT(take_kinds(), IsEmpty());
  small.log_written(first.number, out);
  EXPECT_TRUE(is_among(Kind::submit_local));
  const LogTransaction second = take_log();
  small.log_written(second.number, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local, Kind::submit_local));
}

TEST_F(PrimaryMarksTest, AFullLogFlushesSavesAndGoesOn) {
  for (OpId id = 0; id < 2; ++id) {
    write_small(id, id);
    small.log_written(take_log().number, out);
    small.local_done(id, 0, out);
  }
  take();
  write_small(2, 7);
  // What was written alone leaves the log only flushed and with its bit saved.
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::flush_local));
  small.local_flushed(0, 0, out);
  EXPECT_TRUE(is_among(Kind::save_marks));
  EXPECT_FALSE(is_among(Kind::write_log));
  take();
  save_ends();
  const LogTransaction log = take_log();
  EXPECT_THAT(log.updates, ElementsAre(LogSlot{log.updates.at(0).slot, LogExtent{0, 7}}));
  small.log_written(log.number, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local));
  EXPECT_TRUE(small_marks.dirty(0).any_in(0, 4096));
}

TEST_F(PrimaryMarksTest, ARequestInFlightKeepsItsExtentInAFullLog) {
  for (OpId id = 0; id < 2; ++id) {
    write_small(id, id);
    small.log_written(take_log().number, out);
  }
  take();
  write_small(2, 7);
  small.local_flushed(0, 0, out);
  save_ends();
  EXPECT_FALSE(is_among(Kind::write_log));
  small.local_done(0, 0, out);
  small.local_flushed(0, 0, out);
  save_ends();
  small.local_flushed(0, 0, out);
  save_ends();
  EXPECT_TRUE(is_among(Kind::write_log));
}

TEST_F(PrimaryMarksTest, HeldWhileItWaitsForTheLogItIsLaunchedOnlyAfterTheShrink) {
  write_small(0, 0);
  const LogTransaction log = take_log();
  small.freeze();
  small.log_written(log.number, out);
  EXPECT_THAT(take_kinds(), IsEmpty());
  small.shrink(Epoch(6), out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local));
}

TEST_F(PrimaryMarksTest, ClosedWhileItWaitsForTheLogItIsDroppedAndTheLogIsWaitedFor) {
  write_small(0, 0);
  const LogTransaction log = take_log();
  small.close(out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::complete));
  EXPECT_FALSE(small.is_drained());
  small.log_written(log.number, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::drained));
}

// ---- copies (P6) -----------------------------------------------------------------------------

class PrimaryCopyTest : public PrimaryCoreTest {
 protected:
  PrimaryCopyTest() {
    write(0, 0);
    local(0);
    take();
    stream();
  }
  bool is_sent(FrameType type) const {
    return std::ranges::any_of(
        out, [&](const PrimaryAction& a) { return a.kind == Kind::send && a.frame.type == type; });
  }
  void copy(OpId id, std::uint64_t offset, std::uint32_t length) {
    core.copy(id, 0, offset, length, out);
    core.copy_read(id, 0, false, out);
    ack(sequence_of(id));
  }
};

TEST_F(PrimaryCopyTest, ACopiedGrainStaysDirtyUntilThePartnerHasFlushed) {
  copy(1, 0, 65536);
  EXPECT_TRUE(marks.dirty(0).any_in(0, 4096));
  take();
  core.resync_finished(out);
  answer(FrameType::sync_end_ok, sent(FrameType::sync_end));
  EXPECT_TRUE(marks.dirty(0).empty());
}

TEST_F(PrimaryCopyTest, ASessionLostBeforeTheFlushLeavesItDirty) {
  copy(1, 0, 65536);
  lose();
  EXPECT_TRUE(marks.dirty(0).any_in(0, 4096));
}

TEST_F(PrimaryCopyTest, AfterEnoughCopiesThePartnerFlushesAndOnlyTheFlushedOnesAreClean) {
  std::uint64_t copied = 0;
  OpId id = 1;
  while (copied < PrimaryCore::copy_flush_bytes) {
    take();
    copy(id, 0, disk_bytes);
    copied += disk_bytes;
  }
  const Sequence flush = sent(FrameType::flush);
  EXPECT_TRUE(marks.dirty(0).any_in(0, 4096));
  ack(flush);
  EXPECT_TRUE(marks.dirty(0).empty());
  lose();
  EXPECT_TRUE(marks.dirty(0).empty());
}

TEST_F(PrimaryCopyTest, AFullResyncMarksEverythingFirst) {
  lose();
  core.session_opened(SessionId(77), true, out);
  EXPECT_EQ(marks.dirty(0).set_bytes(), disk_bytes);
  EXPECT_EQ(marks.dirty(1).set_bytes(), disk_bytes);
}

TEST_F(PrimaryCopyTest, AFullResyncIsAskedForOnlyWhenEveryBitIsDurable) {
  marks.save_started();  // an older save
  lose();
  core.session_opened(SessionId(77), true, out);
  EXPECT_FALSE(is_sent(FrameType::sync_begin));
  marks.save_done();
  core.marks_saved(out);
  EXPECT_FALSE(is_sent(FrameType::sync_begin));
  marks.save_started();
  marks.save_done();
  core.marks_saved(out);
  EXPECT_TRUE(is_sent(FrameType::sync_begin));
}

TEST_F(PrimaryCopyTest, TheEndOfAResyncIsAskedForOnlyWhenTheGenerationIsDurablyShared) {
  core.resync_finished(out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::share_generation, Kind::send));
}

TEST_F(PrimaryCopyTest, ThePartnersOwnMarksAreCopiedTooIfTheyComeBeforeTheResync) {
  core.partner_dirty(0, 0, 4096, out);
  EXPECT_EQ(core.state(), SessionState::none);
  take();
  core.session_opened(SessionId(77), false, out);
  core.partner_dirty(1, 512 << 10, 16 << 20, out);
  EXPECT_TRUE(marks.dirty(1).any_in(512 << 10, 4096));
  EXPECT_EQ(core.state(), SessionState::syncing);
}

// ---- generations (P9) ------------------------------------------------------------------------

TEST_F(PrimaryCoreTest, TheFirstWriteCompletedAloneAfterAShrinkBeginsAGeneration) {
  live();
  write(0);
  local(0);
  lose();
  core.shrink(Epoch(7), out);
  std::vector<Kind> kinds = take_kinds();
  const auto begun = std::ranges::find(kinds, Kind::new_generation);
  const auto completed = std::ranges::find(kinds, Kind::complete);
  ASSERT_NE(begun, kinds.end());
  EXPECT_LT(begun, completed);
  write(1, 8192);
  local(1);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local, Kind::complete));
}

// What the flush protects and the partner loses is known by the partner's unclean end
// (docs/decisions/0009).
TEST_F(PrimaryCoreTest, AFlushCompletedAloneBeginsNoGeneration) {
  live();
  lose();
  core.shrink(Epoch(7), out);
  flush(0);
  local_flushed();
  const auto kinds = take_kinds();
  EXPECT_THAT(kinds, testing::Contains(Kind::complete));
  EXPECT_THAT(kinds, testing::Not(testing::Contains(Kind::new_generation)));
}

TEST_F(PrimaryCoreTest, ReadsBeginNoGeneration) {
  live();
  lose();
  core.shrink(Epoch(7), out);
  read(0);
  local(0);
  for (const Kind kind : take_kinds())
    EXPECT_NE(kind, Kind::new_generation);
}

TEST_F(PrimaryCoreTest, AfterTheEndOfAResyncWasAskedForAWriteAloneBeginsAGeneration) {
  stream();
  write(0);
  local(0);
  ack(sequence_of(0));
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::send, Kind::submit_local, Kind::complete));
  core.resync_finished(out);
  take();
  lose();
  take();
  write(1);
  local(1);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local, Kind::new_generation, Kind::complete));
}

}  // namespace
}  // namespace havm
