// The rules of comparing by checksums on the owner's side: what is sent of a copy, what may be
// taken for clean, and verify among guest writes.
#include "tests/unit/vmrepl/session/primary_core_fixture.hpp"

namespace havm {
namespace {

constexpr std::uint32_t grain = DirtyBitmap::grain_bytes;

// Some checksums; those of the grains in `changed` differ from those without.
std::vector<GrainHash> hashes(std::size_t count, std::uint32_t changed = 0) {
  std::vector<GrainHash> all;
  for (std::size_t i = 0; i < count; ++i)
    all.push_back({i, (changed >> i) & 1U});
  return all;
}

class PrimaryVerifyTest : public PrimaryCoreTest {
 protected:
  static constexpr OpId check_id = 40;

  // Without looking for the frame of a range that is among the actions.
  void answer_hash(const FrameHeader& asked, const std::vector<GrainHash>& told,
                   std::uint32_t status = 0) {
    FrameHeader h = asked;
    h.type = FrameType::hash_ok;
    h.status = status;
    core.frame(h, out, told);
  }
  FrameHeader sent_hash() {
    for (const auto& a : out)
      if (a.kind == Kind::send && a.frame.type == FrameType::hash) return a.frame;
    ADD_FAILURE() << "no hash was sent";
    return {};
  }
  std::vector<FrameHeader> sent_writes() {
    std::vector<FrameHeader> writes;
    for (const auto& a : out)
      if (a.kind == Kind::send && a.frame.type == FrameType::write) writes.push_back(a.frame);
    return writes;
  }
  // The one copy that ended among the actions not yet taken.
  PrimaryAction ended() {
    for (const auto& a : out)
      if (a.kind == Kind::copy_done) return a;
    ADD_FAILURE() << "nothing ended";
    return PrimaryAction(Kind::copy_done);
  }
  [[nodiscard]] bool has_ended() const {
    return std::ranges::any_of(out, [](const auto& a) { return a.kind == Kind::copy_done; });
  }

  void begin_check(std::uint64_t offset, std::uint32_t length, bool repair = false) {
    core.verify(check_id, {0, offset, length}, repair, out);
  }
  // Until the answer of the partner is due.
  FrameHeader check_to_hash(std::uint64_t offset, std::uint32_t length, bool repair = false) {
    begin_check(offset, length, repair);
    EXPECT_THAT(take_kinds(), ElementsAre(Kind::read_copy));
    core.compare_read(check_id, 0, hashes(grains_of(length)), out);
    const FrameHeader asked = sent_hash();
    take();
    return asked;
  }
  // The same of a copy.
  FrameHeader copy_to_hash(std::uint64_t offset, std::uint32_t length) {
    core.compare_copy(check_id, {0, offset, length}, out);
    core.compare_read(check_id, 0, hashes(grains_of(length)), out);
    const FrameHeader asked = sent_hash();
    take();
    return asked;
  }
  [[nodiscard]] std::uint64_t dirty() const { return marks.dirty(0).set_bytes(); }
};

// ---- a copy of a resync ----------------------------------------------------------------------

TEST_F(PrimaryVerifyTest, OfACopyOnlyTheRunsThatDifferAreSent) {
  stream();
  const FrameHeader asked = copy_to_hash(2 * grain, 5 * grain);
  EXPECT_EQ(asked.offset, 2 * grain);
  EXPECT_EQ(asked.length, 5 * grain);
  answer_hash(asked, hashes(5, 0b10110));
  const auto writes = sent_writes();
  ASSERT_EQ(writes.size(), 2U);
  EXPECT_EQ(writes[0].offset, 3 * grain);
  EXPECT_EQ(writes[0].length, 2 * grain);
  EXPECT_EQ(writes[1].offset, 6 * grain);
  EXPECT_EQ(writes[1].length, grain);
  EXPECT_TRUE(writes[0].resync && writes[1].resync);
  take();
  ack(writes[1].sequence);
  EXPECT_FALSE(has_ended());
  ack(writes[0].sequence);
  EXPECT_EQ(ended().error, 0);
}

TEST_F(PrimaryVerifyTest, AShortLastGrainIsSentAsShortAsItIs) {
  stream();
  const FrameHeader asked = copy_to_hash(grain, grain + 4096);
  answer_hash(asked, hashes(2, 0b10));
  const auto writes = sent_writes();
  ASSERT_EQ(writes.size(), 1U);
  EXPECT_EQ(writes[0].offset, 2 * grain);
  EXPECT_EQ(writes[0].length, 4096U);
}

// An equal grain may be in a volatile cache there: its bit is kept until the partner has flushed.
TEST_F(PrimaryVerifyTest, WhatIsEqualStaysDirtyUntilThePartnerHasFlushed) {
  marks.set(0, 0, grain);
  stream();
  const std::uint64_t before = dirty();
  answer_hash(copy_to_hash(0, grain), hashes(1));
  EXPECT_EQ(ended().error, 0);
  EXPECT_TRUE(sent_writes().empty());
  EXPECT_EQ(dirty(), before);
  take();
  lose();
  EXPECT_EQ(dirty(), before) << "the loss of the session came before any flush";

  stream();
  answer_hash(copy_to_hash(0, grain), hashes(1));
  take();
  core.resync_finished(out);
  EXPECT_EQ(dirty(), before);
  answer(FrameType::sync_end_ok, sent(FrameType::sync_end));
  EXPECT_EQ(dirty(), before - grain);
}

TEST_F(PrimaryVerifyTest, WhatThePartnerCannotReadIsSent) {
  stream();
  answer_hash(copy_to_hash(0, 2 * grain), {}, EIO);
  const auto writes = sent_writes();
  ASSERT_EQ(writes.size(), 1U);
  EXPECT_EQ(writes[0].length, 2 * grain);
}

TEST_F(PrimaryVerifyTest, ACopyThatReadsAsZeroesAsksNothing) {
  stream();
  core.compare_copy(check_id, {0, 0, grain}, out);
  take();
  core.copy_read(check_id, 0, true, out);
  const Sequence zero = sent(FrameType::zero);
  take();
  ack(zero);
  EXPECT_EQ(ended().error, 0);
}

TEST_F(PrimaryVerifyTest, AGuestWriteWaitsForTheAnswerAndForWhatIsSent) {
  stream();
  const FrameHeader asked = copy_to_hash(0, grain);
  write(1, 4096);
  EXPECT_THAT(take_kinds(), IsEmpty());
  answer_hash(asked, hashes(1, 1));
  const auto writes = sent_writes();
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::send));
  ack(writes.at(0).sequence);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::copy_done, Kind::send, Kind::submit_local));
}

TEST_F(PrimaryVerifyTest, AFailedReadOfACopyHoldsAsWithoutChecksums) {
  stream();
  core.compare_copy(check_id, {0, 0, grain}, out);
  take();
  core.compare_read(check_id, EIO, {}, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::replica_failed, Kind::copy_done));
  EXPECT_TRUE(core.failed());
}

TEST_F(PrimaryVerifyTest, ChecksumsThatNobodyAskedForEndTheSession) {
  for (int wrong = 0; wrong < 4; ++wrong) {
    stream();
    FrameHeader asked = copy_to_hash(0, 2 * grain);
    if (wrong == 0) asked.offset += grain;
    if (wrong == 1) asked.length = grain;
    if (wrong == 2) asked.disk = 1;
    answer_hash(asked, hashes(wrong == 3 ? 1 : 2));
    EXPECT_THAT(take_kinds(),
                ElementsAre(Kind::close_session, Kind::copy_done, Kind::session_changed))
        << wrong;
  }
}

// ---- verify ----------------------------------------------------------------------------------

TEST_F(PrimaryVerifyTest, EqualRangesEndWithoutADifference) {
  live();
  answer_hash(check_to_hash(0, 3 * grain), hashes(3));
  EXPECT_EQ(ended().error, 0);
  EXPECT_EQ(ended().check.differing, 0U);
  EXPECT_EQ(dirty(), 0U);
}

TEST_F(PrimaryVerifyTest, WhatDiffersIsToldGrainByGrainAndNotTouched) {
  live();
  answer_hash(check_to_hash(0, 3 * grain), hashes(3, 0b101));
  EXPECT_EQ(ended().check.differing, 0b101U);
  EXPECT_FALSE(ended().check.repaired);
  EXPECT_TRUE(sent_writes().empty());
}

// The lock is what keeps a verify from seeing half of a write: without it this test fails.
TEST_F(PrimaryVerifyTest, ARangeIsReadOnlyWhenNoWriteIsUnderWayOnEitherLeg) {
  live();
  write(1, 4096);
  const Sequence s = sequence_of(1);
  take();
  begin_check(0, grain);
  EXPECT_THAT(take_kinds(), IsEmpty());
  ack(s);
  EXPECT_THAT(take_kinds(), IsEmpty()) << "the local leg is still under way";
  local(1);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::complete, Kind::read_copy));
  write(2, 8192);
  EXPECT_THAT(take_kinds(), IsEmpty()) << "a write began in a range that is being compared";
  core.compare_read(check_id, 0, hashes(1), out);
  const FrameHeader asked = sent_hash();
  take();
  answer_hash(asked, hashes(1));
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::copy_done, Kind::send, Kind::submit_local));
}

TEST_F(PrimaryVerifyTest, GuestReadsGoOnMeanwhile) {
  live();
  begin_check(0, grain);
  take();
  read(1, 4096);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local));
}

TEST_F(PrimaryVerifyTest, ARepairSendsWhatDiffersUnderTheSameLock) {
  live();
  answer_hash(check_to_hash(0, 2 * grain, true), hashes(2, 0b10));
  const auto writes = sent_writes();
  ASSERT_EQ(writes.size(), 1U);
  EXPECT_EQ(writes[0].offset, grain);
  take();
  write(1, grain + 4096);
  EXPECT_THAT(take_kinds(), IsEmpty());
  ack(writes[0].sequence);
  EXPECT_TRUE(ended().check.repaired);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::copy_done, Kind::send, Kind::submit_local));
}

TEST_F(PrimaryVerifyTest, ARepairThatNoFlushCoversIsDirtyAfterALoss) {
  live();
  answer_hash(check_to_hash(0, 2 * grain, true), hashes(2, 0b10));
  const auto writes = sent_writes();
  ack(writes.at(0).sequence);
  EXPECT_EQ(dirty(), 0U);
  lose();
  EXPECT_EQ(dirty(), grain);
}

TEST_F(PrimaryVerifyTest, ARepairThatIsUnderWayIsDirtyAfterALoss) {
  live();
  answer_hash(check_to_hash(0, 2 * grain, true), hashes(2, 0b10));
  take();
  lose();
  EXPECT_EQ(ended().error, ECANCELED);
  EXPECT_EQ(dirty(), grain);
}

TEST_F(PrimaryVerifyTest, ADifferenceThatWasOnlySeenIsNotDirtyAfterALoss) {
  live();
  const FrameHeader asked = check_to_hash(0, grain, true);
  lose();
  EXPECT_EQ(ended().error, ECANCELED);
  EXPECT_EQ(dirty(), 0U);
  take();
  answer_hash(asked, hashes(1, 1));
  EXPECT_THAT(take_kinds(), IsEmpty());
}

TEST_F(PrimaryVerifyTest, TheFlushAtTheEndIsOnBothReplicasAndCoversTheRepair) {
  live();
  answer_hash(check_to_hash(0, grain, true), hashes(1, 1));
  ack(sent_writes().at(0).sequence);
  take();
  core.verify_flush(41, 0, out);
  const Sequence flush = sent(FrameType::flush);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::send, Kind::flush_local));
  local_flushed();
  EXPECT_FALSE(has_ended());
  ack(flush);
  EXPECT_EQ(ended().id, 41U);
  EXPECT_EQ(ended().error, 0);
  EXPECT_EQ(core.guest_requests(), 0U);
  lose();
  EXPECT_EQ(dirty(), 0U);
}

TEST_F(PrimaryVerifyTest, TheFlushAtTheEndFallsWithTheSessionInEveryStage) {
  live();
  core.verify_flush(41, 0, out);
  core.verify_flush(42, 0, out);  // waits for the round of the first
  take();
  lose();
  std::vector<OpId> cancelled;
  for (const auto& a : take())
    if (a.kind == Kind::copy_done && a.error == ECANCELED) cancelled.push_back(a.id);
  EXPECT_THAT(cancelled, ElementsAre(41, 42));
  local_flushed();
  core.shrink(Epoch(7), out);
  flush(1);
  local_flushed();
  EXPECT_THAT(take_completed(), ElementsAre(1));
}

TEST_F(PrimaryVerifyTest, WhatCannotBeReadHereIsToldAndTheGuestGoesOn) {
  live();
  begin_check(0, grain);
  take();
  core.compare_read(check_id, EIO, {}, out);
  EXPECT_EQ(ended().check.local_error, EIO);
  EXPECT_FALSE(core.failed());
  take();
  write(1);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::send, Kind::submit_local));
}

TEST_F(PrimaryVerifyTest, WhatThePartnerCannotReadDiffersInEveryGrain) {
  live();
  answer_hash(check_to_hash(0, 2 * grain + 512), {}, EIO);
  EXPECT_EQ(ended().check.differing, 0b111U);
  EXPECT_EQ(ended().check.partner_error, EIO);
}

TEST_F(PrimaryVerifyTest, ALossWhileItIsReadEndsItWhenTheReadHasEnded) {
  live();
  begin_check(0, grain);
  lose();
  EXPECT_FALSE(has_ended());
  core.compare_read(check_id, 0, hashes(1), out);
  EXPECT_EQ(ended().error, ECANCELED);
}

TEST_F(PrimaryVerifyTest, TheEndOfTheRoleWaitsForTheRead) {
  live();
  begin_check(0, grain);
  take();
  core.close(out);
  EXPECT_FALSE(core.is_drained());
  core.compare_read(check_id, 0, hashes(1), out);
  EXPECT_EQ(ended().error, ECANCELED);
  EXPECT_TRUE(core.is_drained());
}

// ---- a repair and the marks ------------------------------------------------------------------

// A disk of several extents, none of them in the log yet.
class PrimaryRepairTest : public PrimaryVerifyTest {
 protected:
  PrimaryRepairTest() {
    cold.open(Epoch(5), false);
    cold.session_opened(SessionId(77), false, out);
    tell(FrameType::sync_begin_ok, sent(FrameType::sync_begin));
    cold.resync_finished(out);
    tell(FrameType::sync_end_ok, sent(FrameType::sync_end));
    cold.grow_prepare();
    cold.grow_commit(Epoch(6), out);
    tell(FrameType::epoch_ok, sent(FrameType::epoch));
    take();
    EXPECT_EQ(cold.state(), SessionState::live);
  }
  void tell(FrameType type, Sequence sequence) {
    FrameHeader h;
    h.type = type;
    h.session = SessionId(77);
    h.sequence = sequence;
    cold.frame(h, out);
  }
  // Of one grain, which differs; what that leads to is among the actions.
  void find_difference() {
    cold.verify(check_id, {0, place, grain}, true, out);
    cold.compare_read(check_id, 0, hashes(1), out);
    FrameHeader answer = sent_hash();
    take();
    answer.type = FrameType::hash_ok;
    cold.frame(answer, out, hashes(1, 1));
  }
  std::uint64_t log_number() {
    for (const auto& a : out)
      if (a.kind == Kind::write_log) return a.transaction.number;
    ADD_FAILURE() << "nothing goes to the log";
    return 0;
  }

  static constexpr std::uint64_t place = 3 * ActivityLogCore::extent_bytes;
  ReplicaMarks cold_marks{
      {DirtyBitmap(8 * ActivityLogCore::extent_bytes)}, ReplicaMarks::LogTable(2), 1};
  PrimaryCore cold{cold_marks};
};

// A crash in the middle of a repair may leave anything at the partner: the log must tell.
TEST_F(PrimaryRepairTest, NothingIsSentBeforeTheLogNamesTheExtent) {
  find_difference();
  const std::uint64_t number = log_number();
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::write_log));
  cold.log_written(number, out);
  const auto writes = sent_writes();
  ASSERT_EQ(writes.size(), 1U);
  EXPECT_EQ(writes[0].offset, place);
  EXPECT_EQ(cold_marks.log().pinned(), 1U);
  take();
  tell(FrameType::ack, writes[0].sequence);
  EXPECT_TRUE(ended().check.repaired);
  // There it stays until a flush on both sides covers it.
  EXPECT_EQ(cold_marks.log().pinned(), 0U);
  EXPECT_EQ(cold_marks.log().unflushed(0), 1U);
}

TEST_F(PrimaryRepairTest, AGuestWriteToTheRangeWaitsForTheLogAndTheRepair) {
  find_difference();
  const std::uint64_t number = log_number();
  take();
  cold.submit(1, request(DiskOp::write, place), out);
  EXPECT_THAT(take_kinds(), IsEmpty());
  cold.log_written(number, out);
  const auto writes = sent_writes();
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::send));
  tell(FrameType::ack, writes.at(0).sequence);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::copy_done, Kind::send, Kind::submit_local));
}

TEST_F(PrimaryRepairTest, ALossWhileItWaitsForTheLogLeavesNothingBehind) {
  find_difference();
  const std::uint64_t number = log_number();
  take();
  cold.session_lost("test", out);
  EXPECT_EQ(ended().error, ECANCELED);
  EXPECT_EQ(cold_marks.dirty(0).set_bytes(), 0U) << "nothing was sent";
  EXPECT_EQ(cold_marks.log().pinned(), 0U);
  take();
  cold.log_written(number, out);
  EXPECT_THAT(take_kinds(), IsEmpty());
  cold.shrink(Epoch(7), out);
  cold.submit(check_id, request(DiskOp::write, place), out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::submit_local));
}

TEST_F(PrimaryRepairTest, NoneIsBegunWhileEverythingIsHeld) {
  cold.freeze();
  find_difference();
  EXPECT_THAT(sent_writes(), IsEmpty());
  EXPECT_EQ(ended().check.differing, 1U);
  EXPECT_FALSE(ended().check.repaired);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::copy_done));
}

// Data of a replica that has failed is copied over nothing.
TEST_F(PrimaryRepairTest, NoneIsBegunFromAReplicaThatFailedMeanwhile) {
  find_difference();
  const std::uint64_t number = log_number();
  cold.submit(1, request(DiskOp::read), out);
  cold.local_done(1, EIO, out);
  ASSERT_TRUE(cold.failed());
  take();
  cold.log_written(number, out);
  EXPECT_THAT(sent_writes(), IsEmpty());
  EXPECT_FALSE(ended().check.repaired);
}

}  // namespace
}  // namespace havm
