// P11: a read that failed on the own replica is answered by the partner, and repaired.
#include "tests/unit/vmrepl/session/primary_core_fixture.hpp"

namespace havm {
namespace {

class Rescued : public PrimaryCoreTest {
 protected:
  void start() {
    core.partner_serves_reads(true);
    live();
  }
  // A read of 4096 bytes at 0 that has failed here; the sequence of the question.
  Sequence failed_read(OpId id, int error = EIO) {
    read(id);
    take();
    local(id, error);
    return sent(FrameType::read);
  }
  void data(Sequence sequence, std::uint32_t status = 0, std::uint64_t offset = 0) {
    FrameHeader h;
    h.type = FrameType::data;
    h.session = SessionId(77);
    h.sequence = sequence;
    h.offset = offset;
    h.length = 4096;
    h.status = status;
    core.frame(h, out);
  }
};

TEST_F(Rescued, TheOrderIsAskTakeWriteBackComplete) {
  start();
  const Sequence s = failed_read(0);
  const auto asked = take();
  ASSERT_EQ(asked.size(), 1U);
  EXPECT_EQ(asked[0].frame.offset, 0U);
  EXPECT_EQ(asked[0].frame.length, 4096U);
  data(s);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::take_data, Kind::write_back));
  core.written_back(0, 0, out);
  const auto done = take();
  ASSERT_EQ(done.size(), 2U);
  EXPECT_EQ(done[0].kind, Kind::repaired);
  EXPECT_EQ(done[0].error, EIO);
  EXPECT_EQ(done[0].frame.length, 4096U);
  EXPECT_EQ(done[1].kind, Kind::complete);
  EXPECT_EQ(done[1].error, 0);
  EXPECT_FALSE(core.failed());
  EXPECT_EQ(core.guest_requests(), 0U);
}

TEST_F(Rescued, NoWriteComesBetweenTheReadAndTheRepair) {
  start();
  const Sequence s = failed_read(0);
  write(1);
  take();
  data(s);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::take_data, Kind::write_back));
  core.written_back(0, 0, out);
  EXPECT_THAT(take_kinds(),
              ElementsAre(Kind::repaired, Kind::complete, Kind::send, Kind::submit_local));
}

// Else the partner's data could come here while this side's goes there, and both would be changed.
TEST_F(Rescued, ARescueAndTheRepairOfAVerifyNeverRunOverTheSameBytes) {
  constexpr std::uint32_t grain = DirtyBitmap::grain_bytes;
  start();
  read(0);
  core.verify(1, {0, 0, grain}, false, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local, Kind::read_copy))
      << "a check that repairs nothing is in nobody's way";
  core.compare_read(1, EIO, {}, out);
  take();
  core.verify(1, {0, 0, grain}, true, out);
  EXPECT_THAT(take_kinds(), IsEmpty()) << "the read may have to be rescued";
  local(0, EIO);
  data(sent(FrameType::read));
  take();
  core.written_back(0, 0, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::repaired, Kind::complete, Kind::read_copy));
  read(2);
  EXPECT_THAT(take_kinds(), IsEmpty()) << "this side's data may be on its way";
  core.compare_read(1, 0, {GrainHash{1, 1}}, out);
  FrameHeader equal;
  equal.type = FrameType::hash_ok;
  equal.session = SessionId(77);
  equal.sequence = sent(FrameType::hash);
  equal.length = grain;
  take();
  core.frame(equal, out, {GrainHash{1, 1}});
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::copy_done, Kind::submit_local));
}

TEST_F(Rescued, TheRepairIsAnnouncedInTheActivityLog) {
  ReplicaMarks empty{{DirtyBitmap(disk_bytes)}, ReplicaMarks::LogTable(16), 1};
  PrimaryCore fresh(empty);
  fresh.open(Epoch(5), false);
  fresh.partner_serves_reads(true);
  fresh.session_opened(SessionId(77), false, out);
  const auto answered = [&](FrameType type, Sequence s) {
    FrameHeader h;
    h.type = type;
    h.session = SessionId(77);
    h.sequence = s;
    h.length = 4096;
    fresh.frame(h, out);
  };
  answered(FrameType::sync_begin_ok, sent(FrameType::sync_begin));
  fresh.resync_finished(out);
  answered(FrameType::sync_end_ok, sent(FrameType::sync_end));
  fresh.submit(0, request(DiskOp::read), out);
  take();
  fresh.local_done(0, EIO, out);
  const Sequence s = sent(FrameType::read);
  take();
  answered(FrameType::data, s);
  const auto before = take();
  ASSERT_EQ(before.size(), 2U);
  EXPECT_EQ(before[0].kind, Kind::take_data);
  ASSERT_EQ(before[1].kind, Kind::write_log);
  fresh.log_written(before[1].transaction.number, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::write_back));
  fresh.written_back(0, 0, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::repaired, Kind::complete));
}

TEST_F(Rescued, OnlyASyncedPartnerThatServesReadsIsAsked) {
  core.partner_serves_reads(true);
  stream();  // its replica is not complete
  read(0);
  take();
  local(0, EIO);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::replica_failed));
  EXPECT_TRUE(core.held());
}

TEST_F(Rescued, APartnerOfAnOlderProtocolIsNotAsked) {
  live();
  read(0);
  take();
  local(0, EIO);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::replica_failed));
}

TEST_F(Rescued, WhatIsNoBadPlaceIsNotWrittenAgain) {
  start();
  for (const int error : {ESTALE, ENOSPC, EINVAL}) {
    read(0);
    take();
    local(0, error);
    EXPECT_THAT(take_kinds(), ElementsAre(Kind::replica_failed)) << error;
    core.close(out);
    take();
    core.open(Epoch(5), true);
    core.partner_serves_reads(true);
    live();
  }
}

TEST_F(Rescued, AWriteThatFailsIsNotRescued) {
  start();
  write(0);
  take();
  local(0, EIO);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::replica_failed));
}

TEST_F(Rescued, APartnerThatCannotReadEitherLeavesTheReplicaFailed) {
  start();
  data(failed_read(0), EIO);
  take();
  EXPECT_TRUE(core.failed());
  EXPECT_TRUE(core.held());
  EXPECT_EQ(core.guest_requests(), 1U);
}

TEST_F(Rescued, ARepairThatFailsLeavesTheReplicaFailed) {
  start();
  data(failed_read(0));
  take();
  core.written_back(0, EIO, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::replica_failed));
  EXPECT_EQ(core.guest_requests(), 1U);
}

TEST_F(Rescued, ALossBeforeTheAnswerLeavesTheReplicaFailed) {
  start();
  failed_read(0);
  take();
  lose();
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::replica_failed, Kind::session_changed));
  core.shrink(Epoch(7), out);
  EXPECT_TRUE(core.held());
  EXPECT_THAT(take_completed(), IsEmpty());
}

// It is on the own replica by then; the guest waits for the shrink like everything else.
TEST_F(Rescued, ALossAfterTheAnswerIsNone) {
  start();
  data(failed_read(0));
  take();
  lose();
  take();
  core.written_back(0, 0, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::repaired));
  EXPECT_FALSE(core.failed());
  core.shrink(Epoch(7), out);
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(Rescued, AnAnswerWhileFrozenIsRepairedAfterTheShrink) {
  start();
  const Sequence s = failed_read(0);
  take();
  core.freeze();
  data(s);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::take_data));
  core.shrink(Epoch(7), out);
  bool written = false;
  for (const auto& a : take())
    written = written || a.kind == Kind::write_back;
  EXPECT_TRUE(written);
  core.written_back(0, 0, out);
  EXPECT_THAT(take_completed(), ElementsAre(0));
}

TEST_F(Rescued, AnAnswerOfAnotherRangeEndsTheSession) {
  start();
  data(failed_read(0), 0, 8192);
  EXPECT_EQ(core.state(), SessionState::none);
  EXPECT_TRUE(core.failed()) << "nobody has the data any more";
}

TEST_F(Rescued, CloseDropsWhatWaitsForThePartner) {
  start();
  failed_read(0);
  take();
  core.close(out);
  const auto actions = take();
  EXPECT_EQ(std::count_if(actions.begin(), actions.end(),
                          [](const auto& a) { return a.kind == Kind::complete; }),
            1);
  EXPECT_TRUE(core.is_drained());
  EXPECT_FALSE(core.failed());
}

TEST_F(Rescued, CloseWaitsForARepair) {
  start();
  data(failed_read(0));
  take();
  core.close(out);
  take();
  EXPECT_FALSE(core.is_drained());
  core.written_back(0, 0, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::complete, Kind::drained));
}

}  // namespace
}  // namespace havm
