// What the partner's side does about a resync that is not of a fresh replica.
#include "tests/unit/vmrepl/session/secondary_core_fixture.hpp"

namespace havm {
namespace {

// A replica that was owner of generation 10 until its host lost its power, with marks of its own.
class SecondaryResyncTest : public SecondaryCoreTest {
 protected:
  SecondaryResyncTest() {
    Record r = fresh_record();
    r.generation = 10;
    r.generation_shared = true;
    r.owner_epoch = Epoch(3);
    own_record = ReplicaRecord(r, "boot-1");
    marks.set(1, 0, 4096);
  }
  static Hello owner_that_went_on_from(std::uint64_t base) {
    Hello h = hello_at(5);
    h.generation = 20;
    h.base_generation = base;
    h.history = {base};
    h.generation_shared = false;
    h.owner_epoch = Epoch(4);
    h.dirty_known = true;
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
  EXPECT_EQ(own_record.record().owner_epoch, Epoch());
}

}  // namespace
}  // namespace havm
