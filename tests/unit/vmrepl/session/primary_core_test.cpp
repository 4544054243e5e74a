// The rules of the owner's data path, one test each: completion, order, durability.
#include "tests/unit/vmrepl/session/primary_core_fixture.hpp"

namespace havm {
namespace {

// ---- alone -----------------------------------------------------------------------------------

TEST_F(PrimaryCoreTest, AloneAWriteNeedsOnlyTheOwnReplica) {
  write(0);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local));
  local(0);
  EXPECT_THAT(take_completed(), ElementsAre(0));
  EXPECT_EQ(core.guest_requests(), 0u);
}

TEST_F(PrimaryCoreTest, AloneEveryWriteIsDirty) {
  write(0, 128 << 10);
  EXPECT_TRUE(marks.dirty(0).any_in(128 << 10, 4096));
  EXPECT_FALSE(marks.dirty(0).any_in(0, 64 << 10));
}

TEST_F(PrimaryCoreTest, ZeroLengthRequestsCompleteAtOnce) {
  submit(0, request(DiskOp::write, 0, 0));
  submit(1, request(DiskOp::read, 0, 0));
  EXPECT_THAT(take_completed(), ElementsAre(0, 1));
}

// ---- both legs (P1) --------------------------------------------------------------------------

TEST_F(PrimaryCoreTest, LiveAWriteIsSentBeforeItIsSubmittedLocally) {
  live();
  write(0);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::send, Kind::submit_local));
}

TEST_F(PrimaryCoreTest, LiveAWriteCompletesOnlyWithTheAckAfterTheLocalLeg) {
  live();
  write(0);
  const Sequence s = sequence_of(0);
  local(0);
  EXPECT_THAT(take_completed(), IsEmpty());
  ack(s);
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(PrimaryCoreTest, LiveAWriteCompletesOnlyWithTheLocalLegAfterTheAck) {
  live();
  write(0);
  ack(sequence_of(0));
  EXPECT_THAT(take_completed(), IsEmpty());
  local(0);
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(PrimaryCoreTest, FromGrowPrepareOnThePartnerIsRequired) {
  prepare();
  write(0);
  local(0);
  lose();
  EXPECT_THAT(take_completed(), IsEmpty());
  EXPECT_TRUE(core.held());
}

TEST_F(PrimaryCoreTest, AcksMayComeInAnyOrder) {
  live();
  write(0, 0);
  write(1, 8192);
  const Sequence s0 = sequence_of(0);
  const Sequence s1 = sequence_of(1);
  local(0);
  local(1);
  ack(s1);
  EXPECT_THAT(take_completed(), ElementsAre(1));
  ack(s0);
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(PrimaryCoreTest, ReadsAreServedByTheOwnReplicaAlone) {
  live();
  read(0);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local));
  local(0);
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(PrimaryCoreTest, FuaAndMayUnmapReachBothLegs) {
  live();
  write(0, 0, true);
  ASSERT_EQ(out.front().kind, Kind::send);
  EXPECT_TRUE(out.front().frame.fua);
  take();
  DiskRequest trim = request(DiskOp::zero, 65536);
  trim.may_unmap = true;
  submit(1, trim);
  ASSERT_EQ(out.front().kind, Kind::send);
  EXPECT_EQ(out.front().frame.type, FrameType::zero);
  EXPECT_TRUE(out.front().frame.may_unmap);
  EXPECT_EQ(out.front().frame.length, 4096u);
}

TEST_F(PrimaryCoreTest, FramesCarryTheNewEpochAfterGrowCommit) {
  live();
  write(0);
  EXPECT_EQ(out.front().frame.epoch, Epoch(6));
  EXPECT_EQ(core.state(), SessionState::live);
}

// ---- syncing and synced (P2) -----------------------------------------------------------------

TEST_F(PrimaryCoreTest, BeforeThePartnerIsReadyNothingIsSentToIt) {
  core.session_opened(SessionId(77), false, out);
  take();
  write(0);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local));
}

TEST_F(PrimaryCoreTest, WhileSyncingAWriteWaitsForBothButALossLetsItCompleteAlone) {
  stream();
  write(0);
  local(0);
  EXPECT_THAT(take_completed(), IsEmpty());
  lose();
  EXPECT_THAT(take_completed(), ElementsAre(0));
  EXPECT_FALSE(core.held());
  EXPECT_TRUE(marks.dirty(0).any_in(0, 4096));
}

TEST_F(PrimaryCoreTest, SyncedButNotGrownALossLetsItCompleteAlone) {
  sync();
  EXPECT_EQ(core.state(), SessionState::synced);
  write(0);
  lose();
  local(0);
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(PrimaryCoreTest, GrowIsPossibleOnlyWhenSynced) {
  EXPECT_FALSE(core.can_grow());
  stream();
  EXPECT_FALSE(core.can_grow());
  core.resync_finished(out);
  EXPECT_FALSE(core.can_grow());
  answer(FrameType::sync_end_ok, sent(FrameType::sync_end));
  EXPECT_TRUE(core.can_grow());
  core.freeze();
  EXPECT_FALSE(core.can_grow());
}

// ---- held (P3) -------------------------------------------------------------------------------

TEST_F(PrimaryCoreTest, LossWhileLiveHoldsWhatTheOwnReplicaHasFinished) {
  live();
  write(0);
  local(0);
  lose();
  EXPECT_THAT(take_completed(), IsEmpty());
  EXPECT_EQ(core.held_requests(), 1u);
}

TEST_F(PrimaryCoreTest, LossWhileLiveHoldsNewRequestsOfEveryKind) {
  live();
  lose();
  take();
  write(0);
  read(1, 8192);
  flush(2);
  EXPECT_THAT(take_kinds(), IsEmpty());
  EXPECT_EQ(core.held_requests(), 3u);
}

TEST_F(PrimaryCoreTest, HeldLegsThatFinishLateStayHeld) {
  live();
  write(0);
  read(1, 8192);
  flush(2, 1);
  lose();
  take();
  local(0);
  local(1);
  local_flushed(0, 1);
  EXPECT_THAT(take_completed(), IsEmpty());
}

TEST_F(PrimaryCoreTest, ShrinkCompletesInFlightAndThenRunsTheHeldInOrder) {
  live();
  write(0);
  local(0);
  lose();
  write(1, 65536);
  take();
  core.shrink(Epoch(7), out);
  const auto actions = take();
  ASSERT_EQ(actions.size(), 3u);
  EXPECT_EQ(actions[0].kind, Kind::new_generation);
  EXPECT_EQ(actions[1].kind, Kind::complete);
  EXPECT_EQ(actions[1].id, 0u);
  EXPECT_EQ(actions[2].kind, Kind::submit_local);
  EXPECT_EQ(actions[2].id, 1u);
  local(1);
  EXPECT_THAT(take_completed(), ElementsAre(1));
}

TEST_F(PrimaryCoreTest, AWriteInFlightAtTheShrinkCompletesWithItsLocalLeg) {
  live();
  write(0);
  lose();
  core.shrink(Epoch(7), out);
  EXPECT_THAT(take_completed(), IsEmpty());
  local(0);
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(PrimaryCoreTest, ShrinkEndsASessionThatIsStillUp) {
  live();
  write(0);
  take();
  core.shrink(Epoch(7), out);
  EXPECT_THAT(take_kinds(), testing::Contains(Kind::close_session));
  local(0);
  EXPECT_THAT(take_completed(), ElementsAre(0));
  EXPECT_EQ(core.state(), SessionState::none);
  EXPECT_EQ(core.epoch(), Epoch(7));
}

TEST_F(PrimaryCoreTest, FreezeHoldsWithTheSessionUp) {
  live();
  write(0);
  const Sequence s = sequence_of(0);
  core.freeze();
  local(0);
  ack(s);
  write(1, 8192);
  EXPECT_THAT(take_completed(), IsEmpty());
  EXPECT_EQ(core.held_requests(), 2u);
  core.shrink(Epoch(7), out);
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(PrimaryCoreTest, FreezeHoldsAlsoAlone) {
  write(0);
  core.freeze();
  local(0);
  EXPECT_THAT(take_completed(), IsEmpty());
}

TEST_F(PrimaryCoreTest, GrowCommitAfterALossStaysHeldUntilShrink) {
  prepare();
  write(0);
  local(0);
  lose();
  core.grow_commit(Epoch(6), out);
  EXPECT_THAT(take_completed(), IsEmpty());
  EXPECT_TRUE(core.held());
  core.shrink(Epoch(7), out);
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

// ---- conflicts (P4) --------------------------------------------------------------------------

TEST_F(PrimaryCoreTest, ConflictingWritesRunOneAtATimeInOrder) {
  live();
  write(0);
  const Sequence s = sequence_of(0);
  take();
  write(1);
  write(2);
  EXPECT_THAT(take_kinds(), IsEmpty());
  local(0);
  EXPECT_THAT(take_kinds(), IsEmpty());
  ack(s);
  const auto actions = take();
  ASSERT_EQ(actions.size(), 3u);
  EXPECT_EQ(actions[0].kind, Kind::complete);
  EXPECT_EQ(actions[1].kind, Kind::send);
  EXPECT_EQ(actions[1].id, 1u);
  EXPECT_EQ(actions[2].kind, Kind::submit_local);
}

TEST_F(PrimaryCoreTest, AReadWaitsForTheWriteBeforeIt) {
  live();
  write(0);
  const Sequence s = sequence_of(0);
  read(1);
  take();
  local(0);
  EXPECT_THAT(take_kinds(), IsEmpty());
  ack(s);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::complete, Kind::submit_local));
}

TEST_F(PrimaryCoreTest, WritesElsewhereOrOnAnotherDiskDoNotWait) {
  write(0);
  submit(1, request(DiskOp::write, 0, 4096, false, 1));
  write(2, 4096);
  EXPECT_THAT(take_kinds(),
              ElementsAre(Kind::submit_local, Kind::submit_local, Kind::submit_local));
}

// ---- flush (P5) ------------------------------------------------------------------------------

TEST_F(PrimaryCoreTest, LiveAFlushNeedsBothLegs) {
  live();
  flush(0);
  const Sequence s = sent(FrameType::flush);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::send, Kind::flush_local));
  local_flushed();
  EXPECT_THAT(take_completed(), IsEmpty());
  ack(s);
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(PrimaryCoreTest, LiveAFlushIsNotCompleteWithThePartnerAlone) {
  live();
  flush(0);
  ack(sent(FrameType::flush));
  EXPECT_THAT(take_completed(), IsEmpty());
  local_flushed();
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(PrimaryCoreTest, WhileStreamingAFlushHasBothLegsToo) {
  stream();
  flush(0);
  (void)sent(FrameType::flush);
  local_flushed();
  EXPECT_THAT(take_completed(), IsEmpty());
  lose();
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(PrimaryCoreTest, AFlushWaitsForWritesThatArrivedBefore) {
  write(0);
  flush(1);
  write(2, 8192);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local, Kind::submit_local));
  local(0);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::complete, Kind::flush_local));
}

TEST_F(PrimaryCoreTest, AFlushWaitsForAWriteHeldByAConflict) {
  write(0);
  write(1);
  flush(2);
  local(0);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local, Kind::complete, Kind::submit_local));
  local(1);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::complete, Kind::flush_local));
}

TEST_F(PrimaryCoreTest, FlushesAreCoalesced) {
  flush(0);
  flush(1);
  flush(2);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::flush_local));
  local_flushed();
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::complete, Kind::flush_local));
  local_flushed();
  EXPECT_THAT(take_completed(), ElementsAre(1, 2));
}

TEST_F(PrimaryCoreTest, FlushesOfTwoDisksRunSideBySide) {
  flush(0, 0);
  flush(1, 1);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::flush_local, Kind::flush_local));
  local_flushed(0, 1);
  EXPECT_THAT(take_completed(), ElementsAre(1));
}

// ---- an ack is not durability (P6) -----------------------------------------------------------

TEST_F(PrimaryCoreTest, AfterALossEverythingAckedButNotFlushedIsDirty) {
  live();
  write(0, 0);
  const Sequence s = sequence_of(0);
  local(0);
  ack(s);
  take();
  EXPECT_TRUE(marks.dirty(0).empty());
  lose();
  EXPECT_TRUE(marks.dirty(0).any_in(0, 4096));
}

TEST_F(PrimaryCoreTest, AfterALossWhatThePartnerFlushedIsNotDirty) {
  live();
  write(0, 0);
  const Sequence s = sequence_of(0);
  local(0);
  ack(s);
  flush(1);
  ack(sent(FrameType::flush));
  local_flushed();
  lose();
  EXPECT_TRUE(marks.dirty(0).empty());
}

TEST_F(PrimaryCoreTest, AnUnfinishedPartnerFlushCoversNothing) {
  live();
  write(0, 0);
  const Sequence s = sequence_of(0);
  local(0);
  ack(s);
  flush(1);
  lose();
  EXPECT_TRUE(marks.dirty(0).any_in(0, 4096));
}

TEST_F(PrimaryCoreTest, AFuaAckIsDurability) {
  live();
  write(0, 0, true);
  const Sequence s = sequence_of(0);
  local(0);
  ack(s);
  lose();
  EXPECT_TRUE(marks.dirty(0).empty());
}

TEST_F(PrimaryCoreTest, AfterALossWhatWasInFlightIsDirty) {
  live();
  write(0, 512 << 10);
  lose();
  EXPECT_TRUE(marks.dirty(0).any_in(512 << 10, 4096));
  EXPECT_FALSE(marks.dirty(0).any_in(0, 4096));
}

}  // namespace
}  // namespace havm
