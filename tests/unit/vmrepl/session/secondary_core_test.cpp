// The rules of the partner's side, one test each.
#include "tests/unit/vmrepl/session/secondary_core_fixture.hpp"

namespace havm {
namespace {

// ---- hello -----------------------------------------------------------------------------------

TEST_F(SecondaryCoreTest, AHelloIsAnsweredOnlyAfterItsPromiseIsDurable) {
  hello(1, hello_at(5));
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::persist, Kind::send_hello_ok, Kind::session_changed));
  EXPECT_EQ(record.record().promised_epoch, Epoch(5));
}

TEST_F(SecondaryCoreTest, AHelloAtTheEpochOfThePromiseIsAccepted) {
  hello(1, hello_at(3));
  EXPECT_TRUE(core.has_session());
}

TEST_F(SecondaryCoreTest, AHelloBelowThePromiseIsRefused) {
  hello(1, hello_at(2));
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::refuse));
}

TEST_F(SecondaryCoreTest, AHelloThatDoesNotFitIsRefused) {
  auto wrong = [this](auto change) {
    Hello h = hello_at(5);
    change(h);
    hello(1, h);
    EXPECT_THAT(take_kinds(), ElementsAre(Kind::refuse));
  };
  wrong([](Hello& h) { h.vm_id = "id-2"; });
  wrong([](Hello& h) { h.vm = "web2"; });
  wrong([](Hello& h) { h.node = "c"; });
  wrong([](Hello& h) { h.lease = std::chrono::milliseconds(5000); });
  wrong([](Hello& h) { h.disks.pop_back(); });
  wrong([](Hello& h) { h.disks[0].size_bytes += 512; });
  wrong([](Hello& h) { std::swap(h.disks[0], h.disks[1]); });
  wrong([](Hello& h) { h.epoch = Epoch(0); });
  EXPECT_FALSE(core.has_session());
}

TEST_F(SecondaryCoreTest, AnOwnerRefusesEverySession) {
  core.set_owner(true);
  hello(1, hello_at(3));
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::refuse));
}

TEST_F(SecondaryCoreTest, AnOwnerThatHearsOfAHigherEpochHasBeenDeposed) {
  core.set_owner(true);
  hello(1, hello_at(4));
  const auto actions = take();
  ASSERT_EQ(actions.size(), 2u);
  EXPECT_EQ(actions[0].kind, Kind::refuse);
  EXPECT_EQ(actions[1].kind, Kind::deposed);
  EXPECT_EQ(actions[1].epoch, Epoch(4));
}

TEST_F(SecondaryCoreTest, ASessionThatWasLiveIsNeverReattachedAtItsEpoch) {
  live();
  core.closed(1, out);
  take();
  hello(2, hello_at(6));
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::refuse));
  hello(3, hello_at(7));
  EXPECT_TRUE(core.has_session());
}

TEST_F(SecondaryCoreTest, ANewSessionClosesTheOldOne) {
  stream();
  hello(2, hello_at(5, 78));
  const auto actions = take();
  ASSERT_FALSE(actions.empty());
  EXPECT_EQ(actions[0].kind, Kind::close);
  EXPECT_EQ(actions[0].connection, 1u);
  frame(FrameType::write, 0);  // of the old connection
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::drop));
}

TEST_F(SecondaryCoreTest, ANewSessionWaitsForTheLastWriteOfTheOldOne) {
  stream();
  frame(FrameType::write, 0);
  frame(FrameType::write, 1);  // the same range: waits
  take();
  hello(2, hello_at(5, 78));
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::close, Kind::drop, Kind::session_changed));
  EXPECT_FALSE(core.has_session());
  core.local_done(0, 0, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::persist, Kind::send_hello_ok, Kind::session_changed));
}

TEST_F(SecondaryCoreTest, AWaitingHelloIsJudgedAgainAfterAPromise) {
  stream();
  frame(FrameType::write, 0);
  hello(2, hello_at(5, 78));
  take();
  core.promise(Epoch(9), out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::refuse));
  core.local_done(0, 0, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::flush_all));
}

// ---- data ------------------------------------------------------------------------------------

TEST_F(SecondaryCoreTest, AWriteIsAppliedAndThenAcked) {
  stream();
  frame(FrameType::write, 0);
  const auto s = sequence;
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::apply));
  core.local_done(0, 0, out);
  const auto actions = take();
  ASSERT_EQ(actions.size(), 1u);
  EXPECT_EQ(actions[0].frame.type, FrameType::ack);
  EXPECT_EQ(actions[0].frame.sequence, Sequence(s));
  EXPECT_EQ(actions[0].frame.status, 0u);
}

TEST_F(SecondaryCoreTest, OverlappingWritesAreAppliedInOrder) {
  stream();
  frame(FrameType::write, 0);
  frame(FrameType::zero, 1);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::apply));
  core.local_done(0, 0, out);
  const auto actions = take();
  ASSERT_EQ(actions.size(), 2u);
  EXPECT_EQ(actions[1].kind, Kind::apply);
  EXPECT_EQ(actions[1].id, 1u);
}

TEST_F(SecondaryCoreTest, AnErrorIsTold) {
  stream();
  frame(FrameType::write, 0);
  take();
  core.local_done(0, ENOSPC, out);
  const auto actions = take();
  ASSERT_EQ(actions.size(), 2u);
  EXPECT_EQ(actions[0].kind, Kind::replica_failed);
  EXPECT_EQ(actions[1].frame.status, static_cast<std::uint32_t>(ENOSPC));
}

TEST_F(SecondaryCoreTest, AfterAFailedFlushTheReplicaIsDurablyInconsistent) {
  live();
  frame(FrameType::flush, 0);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::flush_disk));
  core.local_done(0, EIO, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::replica_failed, Kind::persist, Kind::send));
  EXPECT_EQ(record.record().state, ReplicaState::inconsistent);
}

TEST_F(SecondaryCoreTest, DataOutsideOfTheDiskEndsTheSession) {
  stream();
  frame(FrameType::write, 0, (1 << 20) - 2048, 4096);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::drop, Kind::close, Kind::session_changed));
}

TEST_F(SecondaryCoreTest, DataBeforeTheStartOfTheResyncEndsTheSession) {
  open();
  frame(FrameType::write, 0);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::drop, Kind::close, Kind::session_changed));
}

TEST_F(SecondaryCoreTest, AFrameOfAnotherSessionOrEpochEndsTheSession) {
  stream();
  session = 99;
  frame(FrameType::write, 0);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::close, Kind::session_changed, Kind::drop));
}

TEST_F(SecondaryCoreTest, AFrameOfALowerEpochEndsTheSession) {
  live();
  epoch = 5;
  frame(FrameType::write, 0);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::close, Kind::session_changed, Kind::drop));
}

TEST_F(SecondaryCoreTest, NothingOfAClosedSessionIsAcked) {
  stream();
  frame(FrameType::write, 0);
  core.closed(1, out);
  take();
  core.local_done(0, 0, out);
  EXPECT_THAT(take_kinds(), IsEmpty());
}

// ---- resync ----------------------------------------------------------------------------------

TEST_F(SecondaryCoreTest, InconsistentIsDurableBeforeTheResyncMayStart) {
  open();
  frame(FrameType::sync_begin);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::persist, Kind::send, Kind::session_changed));
  EXPECT_EQ(record.record().state, ReplicaState::inconsistent);
  EXPECT_EQ(record.record().epoch, Epoch(5));
}

TEST_F(SecondaryCoreTest, UptodateIsDurableOnlyAfterAFlushAndBeforeTheAnswer) {
  stream();
  frame(FrameType::sync_end);
  const auto token = flush_token();
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::flush_all));
  EXPECT_EQ(record.record().state, ReplicaState::inconsistent);
  core.all_flushed(token, 0, out);
  EXPECT_THAT(take_kinds(),
              ElementsAre(Kind::persist, Kind::forget_dirty, Kind::send, Kind::session_changed));
  EXPECT_EQ(record.record().state, ReplicaState::uptodate);
}

TEST_F(SecondaryCoreTest, AFailedFlushAtTheEndLeavesItInconsistent) {
  stream();
  frame(FrameType::sync_end);
  const auto token = flush_token();
  take();
  core.all_flushed(token, EIO, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::close, Kind::session_changed));
  EXPECT_EQ(record.record().state, ReplicaState::inconsistent);
}

TEST_F(SecondaryCoreTest, AFlushThatEndsAfterTheSessionDoesNotMakeItUptodate) {
  stream();
  frame(FrameType::sync_end);
  const auto token = flush_token();
  core.closed(1, out);
  take();
  core.all_flushed(token, 0, out);
  EXPECT_THAT(take_kinds(), IsEmpty());
  EXPECT_EQ(record.record().state, ReplicaState::inconsistent);
}

TEST_F(SecondaryCoreTest, ANewEpochIsDurableBeforeItsAnswer) {
  sync();
  epoch = 6;
  frame(FrameType::epoch);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::persist, Kind::send, Kind::session_changed));
  EXPECT_EQ(record.record().epoch, Epoch(6));
  EXPECT_EQ(record.record().in_sync, InSync::both);
}

TEST_F(SecondaryCoreTest, ANewEpochBeforeTheEndOfTheResyncEndsTheSession) {
  stream();
  epoch = 6;
  frame(FrameType::epoch);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::close, Kind::session_changed));
  EXPECT_EQ(record.record().epoch, Epoch(5));
}

// ---- leases and promises ---------------------------------------------------------------------

TEST_F(SecondaryCoreTest, ALeaseIsGrantedAndItsTimeRemembered) {
  live();
  frame(FrameType::lease_request);
  EXPECT_THAT(take_sent(), ElementsAre(FrameType::lease_grant));
  EXPECT_EQ(core.last_grant(), from_ns(now));
  EXPECT_EQ(core.grant_age(from_ns(now + 5)), Duration(5));
}

TEST_F(SecondaryCoreTest, WithoutAGrantTheAgeCountsFromTheStart) {
  EXPECT_EQ(core.grant_age(from_ns(700)), Duration(700));
}

TEST_F(SecondaryCoreTest, APromiseEndsTheSessionFlushesAndIsThenDurable) {
  live();
  core.promise(Epoch(7), out);
  const auto token = flush_token();
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::refuse, Kind::session_changed, Kind::flush_all));
  EXPECT_EQ(record.record().promised_epoch, Epoch(6));
  core.all_flushed(token, 0, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::persist, Kind::promised));
  EXPECT_EQ(record.record().promised_epoch, Epoch(7));
}

TEST_F(SecondaryCoreTest, FromThePromiseOnNoLeaseIsGranted) {
  live();
  core.promise(Epoch(7), out);
  take();
  frame(FrameType::lease_request);
  EXPECT_THAT(take_kinds(), IsEmpty());
  EXPECT_EQ(core.last_grant(), std::nullopt);
}

TEST_F(SecondaryCoreTest, FromThePromiseOnALowerHelloIsRefusedEvenBeforeItIsDurable) {
  core.promise(Epoch(7), out);
  take();
  hello(2, hello_at(6));
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::refuse));
}

TEST_F(SecondaryCoreTest, TheFlushOfAPromiseWaitsForTheLastWriteOfTheSession) {
  live();
  frame(FrameType::write, 0);
  take();
  core.promise(Epoch(7), out);
  EXPECT_THAT(take_kinds(), Not(Contains(Kind::flush_all)));
  core.local_done(0, 0, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::flush_all));
}

TEST_F(SecondaryCoreTest, APromiseAtTheSessionsEpochLeavesItOpen) {
  live();
  core.promise(Epoch(6), out);
  const auto token = flush_token();
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::flush_all));
  core.all_flushed(token, 0, out);
  EXPECT_TRUE(core.has_session());
}

TEST_F(SecondaryCoreTest, APromiseNeverFalls) {
  core.promise(Epoch(2), out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::promise_failed));
  EXPECT_EQ(record.record().promised_epoch, Epoch(3));
}

TEST_F(SecondaryCoreTest, APromiseWhoseFlushFailsIsNotGiven) {
  core.promise(Epoch(7), out);
  const auto token = flush_token();
  take();
  core.all_flushed(token, EIO, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::promise_failed));
  EXPECT_EQ(record.record().promised_epoch, Epoch(3));
}

TEST_F(SecondaryCoreTest, AHigherHelloDuringAPromiseDoesNotLowerIt) {
  core.promise(Epoch(7), out);
  const auto token = flush_token();
  hello(2, hello_at(8));
  take();
  core.all_flushed(token, 0, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::persist, Kind::promised));
  EXPECT_EQ(record.record().promised_epoch, Epoch(8));
}

// ---- the record ------------------------------------------------------------------------------

Record record_of_boot(const std::string& boot_id, bool clean) {
  Record r = fresh_record();
  r.state = ReplicaState::uptodate;
  r.boot_id = boot_id;
  r.clean = clean;
  return r;
}

TEST(ReplicaRecordTest, SuspectIsAnotherBootWithoutTheCleanFlag) {
  EXPECT_FALSE(ReplicaRecord(record_of_boot("boot-1", false), "boot-1").suspect());
  EXPECT_FALSE(ReplicaRecord(record_of_boot("boot-0", true), "boot-1").suspect());
  EXPECT_TRUE(ReplicaRecord(record_of_boot("boot-0", false), "boot-1").suspect());
}

TEST(ReplicaRecordTest, SuspicionOutlivesARestartOfTheEngine) {
  ReplicaRecord first(record_of_boot("boot-0", false), "boot-1");
  first.promise(Epoch(4));
  first.ended_cleanly();
  EXPECT_TRUE(ReplicaRecord(first.record(), "boot-1").suspect());
}

TEST(ReplicaRecordTest, ACompletedResyncEndsSuspicion) {
  ReplicaRecord r(record_of_boot("boot-0", false), "boot-1");
  r.promise(Epoch(4));
  r.begin_sync(Epoch(4));
  EXPECT_TRUE(r.suspect());
  r.end_sync(Epoch(4));
  EXPECT_FALSE(r.suspect());
  EXPECT_FALSE(ReplicaRecord(r.record(), "boot-1").suspect());
}

TEST(ReplicaRecordTest, ServingEndsSuspicion) {
  ReplicaRecord r(record_of_boot("boot-0", false), "boot-1");
  r.serve(Epoch(4));
  EXPECT_FALSE(r.suspect());
  EXPECT_EQ(r.record().boot_id, "boot-1");
  EXPECT_FALSE(r.record().clean);
}

TEST(ReplicaRecordTest, ARebootAfterServingWithoutACleanEndIsSuspect) {
  ReplicaRecord r(record_of_boot("boot-0", true), "boot-1");
  r.serve(Epoch(4));
  EXPECT_TRUE(ReplicaRecord(r.record(), "boot-2").suspect());
  r.ended_cleanly();
  EXPECT_FALSE(ReplicaRecord(r.record(), "boot-2").suspect());
}

TEST(ReplicaRecordTest, GrowAndShrinkKeepTheMarkRight) {
  ReplicaRecord r(record_of_boot("boot-1", false), "boot-1");
  r.serve(Epoch(4));
  EXPECT_FALSE(r.may_be_both());
  r.grow_prepare();
  EXPECT_TRUE(r.may_be_both());
  EXPECT_EQ(r.record().grow_mark, Epoch(5));
  r.grow_commit(Epoch(5));
  EXPECT_TRUE(r.may_be_both());
  EXPECT_EQ(r.record().grow_mark, std::nullopt);
  r.shrink(Epoch(6));
  EXPECT_FALSE(r.may_be_both());
  EXPECT_TRUE(r.record().partner_outdated);
}

TEST(ReplicaRecordTest, StandingByKeepsTheDoubtUnlessOutdated) {
  ReplicaRecord r(record_of_boot("boot-1", false), "boot-1");
  r.serve(Epoch(4));
  r.grow_prepare();
  r.stand_by(false);
  EXPECT_TRUE(r.may_be_both());
  r.stand_by(true);
  EXPECT_FALSE(r.may_be_both());
  EXPECT_EQ(r.record().state, ReplicaState::outdated);
}

TEST(ReplicaRecordTest, AnUnfinishedResyncIsNotMerelyOutdated) {
  ReplicaRecord r(record_of_boot("boot-1", false), "boot-1");
  r.begin_sync(Epoch(4));
  r.stand_by(true);
  EXPECT_EQ(r.record().state, ReplicaState::inconsistent);
}

}  // namespace
}  // namespace havm
