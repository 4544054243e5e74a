// The rules of the owner's data path, one test each: failures, the partner's frames, resync, the
// end.
#include "tests/unit/vmrepl/session/primary_core_fixture.hpp"

namespace havm {
namespace {

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
  const auto ended = take();
  ASSERT_EQ(ended.size(), 2U);
  EXPECT_EQ(ended[0].kind, Kind::close_session);
  EXPECT_EQ(ended[1].kind, Kind::session_changed);
  EXPECT_EQ(ended[1].text,
            "the partner could not do a write on its replica: No space left on device");
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

TEST_F(PrimaryCoreTest, CloseDropsAHeldRequestOfNoLengthToo) {
  core.freeze();
  submit(0, request(DiskOp::write, 4096, 0));
  submit(1, request(DiskOp::zero, 4096, 0));
  submit(2, request(DiskOp::write, 4096));
  EXPECT_THAT(take(), IsEmpty());
  core.close(out);
  EXPECT_THAT(take_kinds(),
              ElementsAre(Kind::complete, Kind::complete, Kind::complete, Kind::drained));
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
  core.open(Epoch(9), true);
  flush(0);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::flush_local));
  local_flushed();
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(PrimaryCoreTest, OpenedWithInSyncBothNoSessionMayReattach) {
  live();
  lose();
  EXPECT_DEATH(core.session_opened(SessionId(78), false, out), "never re-attach");
}

}  // namespace
}  // namespace havm
