// The rules of the owner's data path, one test each: PrimaryCore is driven by hand and every action
// is looked at.
#include "vmrepl/session/primary_core.hpp"

#include <algorithm>
#include <cerrno>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace havm {
namespace {

using Kind = PrimaryAction::Kind;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::uint64_t disk_bytes = 1 << 20;

class PrimaryCoreTest : public testing::Test {
 protected:
  PrimaryCoreTest() { core.open(Epoch(5)); }

  static DiskRequest request(DiskOp op, std::uint64_t offset = 0, std::uint32_t length = 4096,
                             bool fua = false, std::uint16_t disk = 0) {
    DiskRequest r;
    r.op = op;
    r.disk = disk;
    r.offset = offset;
    r.length = op == DiskOp::flush ? 0 : length;
    r.fua = fua;
    return r;
  }
  void submit(OpId id, const DiskRequest& r) { core.submit(id, r, out); }
  void write(OpId id, std::uint64_t offset = 0, bool fua = false) {
    submit(id, request(DiskOp::write, offset, 4096, fua));
  }
  void read(OpId id, std::uint64_t offset = 0) { submit(id, request(DiskOp::read, offset)); }
  void flush(OpId id, std::uint16_t disk = 0) {
    submit(id, request(DiskOp::flush, 0, 0, false, disk));
  }
  void local(OpId id, int error = 0) { core.local_done(id, error, out); }
  void local_flushed(int error = 0, std::uint16_t disk = 0) {
    core.local_flushed(disk, error, out);
  }
  void answer(FrameType type, Sequence sequence, std::uint32_t status = 0) {
    FrameHeader h;
    h.type = type;
    h.session = SessionId(77);
    h.sequence = sequence;
    h.status = status;
    core.frame(h, out);
  }
  void ack(Sequence sequence, std::uint32_t status = 0) {
    answer(FrameType::ack, sequence, status);
  }

  // What was decided since the last look.
  std::vector<PrimaryAction> take() { return std::exchange(out, {}); }
  std::vector<Kind> take_kinds() {
    std::vector<Kind> kinds;
    for (const auto& a : take())
      kinds.push_back(a.kind);
    return kinds;
  }
  std::vector<OpId> take_completed() {
    std::vector<OpId> ids;
    for (const auto& a : take())
      if (a.kind == Kind::complete) {
        EXPECT_EQ(a.error, 0);
        ids.push_back(a.id);
      }
    return ids;
  }
  // The only frame of this type among the actions not yet taken.
  Sequence sent(FrameType type) {
    Sequence found;
    int count = 0;
    for (const auto& a : out)
      if (a.kind == Kind::send && a.frame.type == type) {
        found = a.frame.sequence;
        ++count;
      }
    EXPECT_EQ(count, 1) << "frames of type " << static_cast<int>(type);
    return found;
  }
  Sequence sequence_of(OpId id) {
    for (const auto& a : out)
      if (a.kind == Kind::send && a.id == id) return a.frame.sequence;
    ADD_FAILURE() << "request " << id << " was not sent";
    return {};
  }

  void stream() {
    core.session_opened(SessionId(77), out);
    answer(FrameType::sync_begin_ok, sent(FrameType::sync_begin));
    take();
  }
  void sync() {
    stream();
    core.resync_finished(out);
    answer(FrameType::sync_end_ok, sent(FrameType::sync_end));
    take();
  }
  void prepare() {
    sync();
    core.grow_prepare();
  }
  void live() {
    prepare();
    core.grow_commit(Epoch(6), out);
    answer(FrameType::epoch_ok, sent(FrameType::epoch));
    take();
  }
  void lose() { core.session_lost("test", out); }

  PrimaryCore core{{disk_bytes, disk_bytes}};
  PrimaryCore::Actions out;
};

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
  EXPECT_TRUE(core.dirty(0).any_in(128 << 10, 4096));
  EXPECT_FALSE(core.dirty(0).any_in(0, 64 << 10));
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
  core.session_opened(SessionId(77), out);
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
  EXPECT_TRUE(core.dirty(0).any_in(0, 4096));
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
  ASSERT_EQ(actions.size(), 2u);
  EXPECT_EQ(actions[0].kind, Kind::complete);
  EXPECT_EQ(actions[0].id, 0u);
  EXPECT_EQ(actions[1].kind, Kind::submit_local);
  EXPECT_EQ(actions[1].id, 1u);
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
  EXPECT_TRUE(core.dirty(0).empty());
  lose();
  EXPECT_TRUE(core.dirty(0).any_in(0, 4096));
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
  EXPECT_TRUE(core.dirty(0).empty());
}

TEST_F(PrimaryCoreTest, AnUnfinishedPartnerFlushCoversNothing) {
  live();
  write(0, 0);
  const Sequence s = sequence_of(0);
  local(0);
  ack(s);
  flush(1);
  lose();
  EXPECT_TRUE(core.dirty(0).any_in(0, 4096));
}

TEST_F(PrimaryCoreTest, AFuaAckIsDurability) {
  live();
  write(0, 0, true);
  const Sequence s = sequence_of(0);
  local(0);
  ack(s);
  lose();
  EXPECT_TRUE(core.dirty(0).empty());
}

TEST_F(PrimaryCoreTest, AfterALossWhatWasInFlightIsDirty) {
  live();
  write(0, 512 << 10);
  lose();
  EXPECT_TRUE(core.dirty(0).any_in(512 << 10, 4096));
  EXPECT_FALSE(core.dirty(0).any_in(0, 4096));
}

// ---- failures (P7) ---------------------------------------------------------------------------

TEST_F(PrimaryCoreTest, AFailedLocalWriteIsNeitherSuccessNorErrorButHolds) {
  write(0);
  read(1, 8192);
  take();
  local(0, EIO);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::replica_failed));
  local(1);
  write(2, 65536);
  EXPECT_THAT(take_kinds(), IsEmpty());
  core.shrink(Epoch(6), out);
  EXPECT_THAT(take_kinds(), IsEmpty());
  EXPECT_TRUE(core.failed());
}

TEST_F(PrimaryCoreTest, AFailedLocalFlushHolds) {
  flush(0);
  take();
  local_flushed(EIO);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::replica_failed));
  EXPECT_TRUE(core.held());
}

TEST_F(PrimaryCoreTest, AFailedLocalReadHolds) {
  read(0);
  take();
  local(0, EIO);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::replica_failed));
  EXPECT_TRUE(core.held());
}

TEST_F(PrimaryCoreTest, APartnersWriteErrorEndsTheSessionAndHolds) {
  live();
  write(0);
  const Sequence s = sequence_of(0);
  local(0);
  take();
  ack(s, ENOSPC);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::close_session, Kind::session_changed));
  EXPECT_TRUE(core.held());
  core.shrink(Epoch(7), out);
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(PrimaryCoreTest, APartnersFlushErrorEndsTheSessionAndHolds) {
  live();
  flush(0);
  const Sequence s = sent(FrameType::flush);
  local_flushed();
  take();
  ack(s, EIO);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::close_session, Kind::session_changed));
  EXPECT_TRUE(core.held());
}

// ---- the partner's frames --------------------------------------------------------------------

TEST_F(PrimaryCoreTest, AnAckThatNobodyWaitsForEndsTheSession) {
  live();
  write(0);
  const Sequence s = sequence_of(0);
  ack(s);
  take();
  ack(s);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::close_session, Kind::session_changed));
}

TEST_F(PrimaryCoreTest, AnAckOfTheFutureEndsTheSession) {
  live();
  ack(Sequence(4711));
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::close_session, Kind::session_changed));
}

TEST_F(PrimaryCoreTest, AnAnswerOfAnotherKindEndsTheSession) {
  live();
  write(0);
  answer(FrameType::epoch_ok, sequence_of(0));
  EXPECT_EQ(core.state(), SessionState::none);
}

TEST_F(PrimaryCoreTest, AnAnswerOfAnotherSessionEndsTheSession) {
  live();
  write(0);
  FrameHeader h;
  h.type = FrameType::ack;
  h.session = SessionId(78);
  h.sequence = sequence_of(0);
  take();
  core.frame(h, out);
  EXPECT_EQ(core.state(), SessionState::none);
}

TEST_F(PrimaryCoreTest, AGrantCountsFromWhenItsRequestWasSent) {
  live();
  core.lease_due(from_ns(1000), out);
  const Sequence first = sent(FrameType::lease_request);
  take();
  core.lease_due(from_ns(2000), out);
  take();
  answer(FrameType::lease_grant, first);
  const auto actions = take();
  ASSERT_EQ(actions.size(), 1u);
  EXPECT_EQ(actions[0].kind, Kind::renew_lease);
  EXPECT_EQ(to_ns(actions[0].time), 1000);
}

TEST_F(PrimaryCoreTest, ARefusedLeaseMeansDeposedAndHeld) {
  live();
  core.lease_due(from_ns(1000), out);
  const Sequence s = sent(FrameType::lease_request);
  take();
  answer(FrameType::lease_refused, s);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::deposed, Kind::close_session, Kind::session_changed));
  EXPECT_TRUE(core.held());
}

TEST_F(PrimaryCoreTest, WithoutASessionNoLeaseIsAskedFor) {
  core.lease_due(from_ns(1000), out);
  EXPECT_THAT(take_kinds(), IsEmpty());
}

// ---- resync ----------------------------------------------------------------------------------

TEST_F(PrimaryCoreTest, ACopyReadsThenSendsThenEnds) {
  stream();
  core.copy(0, 0, 0, 65536, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::read_copy));
  core.copy_read(0, 0, false, out);
  const Sequence s = sent(FrameType::write);
  EXPECT_TRUE(out.front().frame.resync);
  take();
  ack(s);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::copy_done));
}

TEST_F(PrimaryCoreTest, ACopyThatReadsAsZeroIsSentAsZero) {
  stream();
  core.copy(0, 0, 0, 65536, out);
  core.copy_read(0, 0, true, out);
  (void)sent(FrameType::zero);
}

TEST_F(PrimaryCoreTest, AWriteWaitsForTheCopyOfItsRangeAndTheCopyForTheWrite) {
  stream();
  write(0);
  const Sequence w = sequence_of(0);
  core.copy(1, 0, 0, 65536, out);
  take();
  local(0);
  ack(w);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::complete, Kind::read_copy));
  write(2);
  EXPECT_THAT(take_kinds(), IsEmpty());
  core.copy_read(1, 0, false, out);
  const Sequence c = sent(FrameType::write);
  take();
  ack(c);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::copy_done, Kind::send, Kind::submit_local));
}

TEST_F(PrimaryCoreTest, ALossEndsCopiesAndLetsWaitingWritesGo) {
  stream();
  core.copy(0, 0, 0, 65536, out);       // is being read
  core.copy(1, 0, 131072, 65536, out);  // was sent
  core.copy_read(1, 0, false, out);
  write(2, 131072);
  core.copy(3, 0, 131072, 65536, out);  // waits
  take();
  lose();
  std::vector<OpId> ended;
  bool launched = false;
  for (const auto& a : take()) {
    if (a.kind == Kind::copy_done) {
      EXPECT_EQ(a.error, ECANCELED);
      ended.push_back(a.id);
    }
    launched = launched || (a.kind == Kind::submit_local && a.id == 2);
  }
  EXPECT_THAT(ended, ElementsAre(1, 3));
  EXPECT_TRUE(launched);
  core.copy_read(0, 0, false, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::copy_done));
}

TEST_F(PrimaryCoreTest, AFailedReadOfACopyFailsTheReplica) {
  stream();
  core.copy(0, 0, 0, 65536, out);
  take();
  core.copy_read(0, EIO, false, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::replica_failed, Kind::copy_done));
  EXPECT_TRUE(core.failed());
}

// ---- the end of the role ---------------------------------------------------------------------

TEST_F(PrimaryCoreTest, CloseDropsWhatIsHeldAndWaitsForLocalLegs) {
  live();
  write(0);
  lose();
  write(1, 8192);
  flush(2);
  take();
  core.close(out);
  std::vector<OpId> dropped;
  for (const auto& a : take()) {
    ASSERT_EQ(a.kind, Kind::complete);
    EXPECT_EQ(a.error, ESHUTDOWN);
    dropped.push_back(a.id);
  }
  EXPECT_THAT(dropped, ElementsAre(1, 2));
  EXPECT_FALSE(core.is_drained());
  local(0);
  const auto last = take();
  ASSERT_EQ(last.size(), 2u);
  EXPECT_EQ(last[0].error, ESHUTDOWN);
  EXPECT_EQ(last[1].kind, Kind::drained);
  EXPECT_TRUE(core.is_drained());
}

TEST_F(PrimaryCoreTest, CloseLaunchesNothingThatWaitedForACopy) {
  stream();
  core.copy(0, 0, 0, 65536, out);
  core.copy_read(0, 0, false, out);
  write(1);
  take();
  core.close(out);
  for (const auto& a : take())
    EXPECT_NE(a.kind, Kind::submit_local);
  EXPECT_TRUE(core.is_drained());
}

TEST_F(PrimaryCoreTest, AfterCloseItCanBeOpenedAgain) {
  flush(0);
  take();
  core.close(out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::complete));
  local_flushed();
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::drained));
  core.open(Epoch(9));
  flush(0);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::flush_local));
  local_flushed();
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(PrimaryCoreTest, OpenedWithInSyncBothNoSessionMayReattach) {
  live();
  lose();
  EXPECT_DEATH(core.session_opened(SessionId(78), out), "never re-attach");
}

}  // namespace
}  // namespace havm
