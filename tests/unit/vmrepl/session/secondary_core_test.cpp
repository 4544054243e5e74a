// The rules of the partner's side, one test each: SecondaryCore is driven by hand and every action
// is looked at.
#include "vmrepl/session/secondary_core.hpp"

#include <cerrno>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace havm {
namespace {

using Kind = SecondaryAction::Kind;
using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;

Record fresh_record() {
  Record r;
  r.vm = "web1";
  r.vm_id = "id-1";
  r.node = "b";
  r.disks = {{"vda", 1 << 20}, {"vdb", 1 << 16}};
  r.epoch = r.promised_epoch = Epoch(3);
  r.state = ReplicaState::outdated;
  r.boot_id = "boot-1";
  return r;
}

HelloContext context() {
  HelloContext c;
  c.vm = "web1";
  c.vm_id = "id-1";
  c.partner = "a";
  c.disks = fresh_record().disks;
  c.lease = std::chrono::milliseconds(6000);
  return c;
}

Hello hello_at(std::uint64_t epoch, std::uint64_t session = 77) {
  Hello h;
  h.vm = "web1";
  h.vm_id = "id-1";
  h.node = "a";
  h.boot_id = "boot-a";
  h.epoch = Epoch(epoch);
  h.session = SessionId(session);
  h.lease = std::chrono::milliseconds(6000);
  h.disks = fresh_record().disks;
  return h;
}

class SecondaryCoreTest : public testing::Test {
 protected:
  void hello(ConnectionId c, const Hello& h) { core.hello(c, h, out); }
  void frame(FrameType type, OpId id = no_op, std::uint64_t offset = 0,
             std::uint32_t length = 4096) {
    FrameHeader h;
    h.type = type;
    h.session = SessionId(session);
    h.epoch = Epoch(epoch);
    h.sequence = Sequence(++sequence);
    h.offset = offset;
    h.length = length;
    core.frame(connection, h, id, from_ns(now), out);
  }
  std::vector<SecondaryAction> take() { return std::exchange(out, {}); }
  std::vector<Kind> take_kinds() {
    std::vector<Kind> kinds;
    for (const auto& a : take())
      kinds.push_back(a.kind);
    return kinds;
  }
  std::vector<FrameType> take_sent() {
    std::vector<FrameType> types;
    for (const auto& a : take())
      if (a.kind == Kind::send) types.push_back(a.frame.type);
    return types;
  }
  void open() {
    hello(1, hello_at(5));
    take();
  }
  void stream() {
    open();
    frame(FrameType::sync_begin);
    take();
  }
  std::uint64_t flush_token() {
    for (const auto& a : out)
      if (a.kind == Kind::flush_all) return a.token;
    ADD_FAILURE() << "no flush of all disks was asked for";
    return 0;
  }
  void sync() {
    stream();
    frame(FrameType::sync_end);
    core.all_flushed(flush_token(), 0, out);
    take();
  }
  void live() {
    sync();
    epoch = 6;
    frame(FrameType::epoch);
    take();
  }

  ReplicaRecord record{fresh_record(), "boot-1"};
  ReplicaMarks marks{{DirtyBitmap(1 << 20), DirtyBitmap(1 << 16)}, ReplicaMarks::LogTable(4), 1};
  SecondaryCore core{context(), record, marks, from_ns(0)};
  SecondaryCore::Actions out;
  ConnectionId connection = 1;
  std::uint64_t session = 77;
  std::uint64_t epoch = 5;
  std::uint64_t sequence = 1;
  long long now = 1'000'000;
};

// ---- the resync --------------------------------------------------------------------------------

// A replica that was owner of generation 10 until its host lost its power, with marks of its own.
class SecondaryResyncTest : public SecondaryCoreTest {
 protected:
  SecondaryResyncTest() {
    Record r = fresh_record();
    r.generation = 10;
    r.generation_shared = true;
    r.was_owner = true;
    own_record = ReplicaRecord(r, "boot-1");
    marks.set(1, 0, 4096);
  }
  static Hello owner_that_went_on_from(std::uint64_t base) {
    Hello h = hello_at(5);
    h.generation = 20;
    h.base_generation = base;
    h.history = {base};
    h.generation_shared = false;
    h.was_owner = h.dirty_known = true;
    return h;
  }
  void begin(const Hello& owner, SyncMode mode) {
    own.hello(1, owner, out);
    take();
    FrameHeader h;
    h.type = FrameType::sync_begin;
    h.session = SessionId(77);
    h.epoch = Epoch(5);
    h.sequence = Sequence(2);
    own.frame(1, h, no_op, from_ns(1), out, SyncBegin{mode, owner.generation});
  }

  ReplicaRecord own_record{fresh_record(), "boot-1"};
  SecondaryCore own{context(), own_record, marks, from_ns(0)};
};

TEST_F(SecondaryResyncTest, ItsOwnMarksAreToldBeforeAPartialResyncAndAfterInconsistentIsDurable) {
  begin(owner_that_went_on_from(10), SyncMode::partial);
  EXPECT_THAT(take_kinds(),
              ElementsAre(Kind::persist, Kind::send_dirty, Kind::send, Kind::session_changed));
  EXPECT_EQ(own_record.record().state, ReplicaState::inconsistent);
  EXPECT_EQ(own_record.record().generation, 20u);
}

TEST_F(SecondaryResyncTest, AFullResyncNeedsNoMarks) {
  begin(owner_that_went_on_from(10), SyncMode::full);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::persist, Kind::send, Kind::session_changed));
}

TEST_F(SecondaryResyncTest, AShorterResyncThanNecessaryIsRefused) {
  Hello owner = owner_that_went_on_from(10);
  owner.dirty_known = false;
  begin(owner, SyncMode::partial);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::close, Kind::session_changed));
  EXPECT_EQ(own_record.record().state, ReplicaState::outdated);
}

TEST_F(SecondaryResyncTest, AnotherHistoryIsNeverOverwritten) {
  begin(owner_that_went_on_from(11), SyncMode::full);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::close, Kind::session_changed));
  EXPECT_EQ(own_record.record().state, ReplicaState::outdated);
  EXPECT_EQ(own_record.record().generation, 10u);
}

TEST_F(SecondaryResyncTest, ItsOwnMarksAreVoidOnlyWhenUptodateIsDurable) {
  begin(owner_that_went_on_from(10), SyncMode::partial);
  take();
  FrameHeader h;
  h.type = FrameType::sync_end;
  h.session = SessionId(77);
  h.epoch = Epoch(5);
  h.sequence = Sequence(3);
  own.frame(1, h, no_op, from_ns(1), out, SyncEnd{20, {10}});
  own.all_flushed(flush_token(), 0, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::flush_all, Kind::persist, Kind::forget_dirty,
                                        Kind::send, Kind::session_changed));
  EXPECT_EQ(own_record.record().state, ReplicaState::uptodate);
  EXPECT_FALSE(own_record.record().was_owner);
}

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
