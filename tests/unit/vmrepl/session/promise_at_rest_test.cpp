// A promise flushes everything and leaves nothing open: what a power cut takes after it was never
// acked. A partner that took over and lost its power before it served must not be taken for one
// that lacks something.
#include "tests/unit/vmrepl/session/secondary_core_fixture.hpp"

namespace havm {
namespace {

class PromiseAtRestTest : public testing::Test {
 protected:
  PromiseAtRestTest() : record(in_sync(), "boot-1") {}
  static Record in_sync() {
    Record r = fresh_record();
    r.state = ReplicaState::uptodate;
    r.in_sync = InSync::both;
    r.generation = 7;
    return r;
  }
  void promise(std::uint64_t epoch) {
    core.promise(Epoch(epoch), out);
    std::uint64_t token = 0;
    for (const SecondaryAction& a : out)
      if (a.kind == SecondaryAction::Kind::flush_all) token = a.token;
    ASSERT_NE(token, 0u);
    core.all_flushed(token, 0, out);
    ASSERT_EQ(out.back().kind, SecondaryAction::Kind::promised);
  }
  ReplicaRecord after_power_cut() { return ReplicaRecord(record.record(), "boot-2"); }

  ReplicaRecord record;
  ReplicaMarks marks{{DirtyBitmap(1 << 20), DirtyBitmap(1 << 16)}, ReplicaMarks::LogTable(4), 1};
  SecondaryCore core{context(), record, marks, from_ns(0)};
  SecondaryCore::Actions out;
};

TEST_F(PromiseAtRestTest, APowerCutBetweenPromiseAndServiceLosesNothing) {
  promise(4);
  ReplicaRecord returned = after_power_cut();
  EXPECT_FALSE(returned.suspect());
  returned.serve(Epoch(4));
  EXPECT_EQ(returned.record().lack_epoch, Epoch());
}

TEST_F(PromiseAtRestTest, TheNextSessionEndsTheRestBeforeItIsAccepted) {
  promise(4);
  out.clear();
  core.hello(1, hello_at(5), out);
  ASSERT_TRUE(core.has_session());
  EXPECT_FALSE(record.record().clean);
  ASSERT_FALSE(out.empty());
  EXPECT_EQ(out.front().kind, SecondaryAction::Kind::persist);
  EXPECT_TRUE(after_power_cut().suspect());
}

TEST_F(PromiseAtRestTest, ServiceEndsTheRest) {
  promise(4);
  record.serve(Epoch(4));
  EXPECT_TRUE(after_power_cut().suspect());
}

TEST_F(PromiseAtRestTest, ASessionAtThePromisedEpochIsNoRest) {
  core.hello(1, hello_at(4), out);
  ASSERT_TRUE(core.has_session());
  promise(4);
  ASSERT_TRUE(core.has_session());
  EXPECT_TRUE(after_power_cut().suspect());
}

TEST_F(PromiseAtRestTest, ASessionThatCameAndWentDuringTheFlushIsNoRest) {
  core.promise(Epoch(4), out);
  ASSERT_EQ(out.back().kind, SecondaryAction::Kind::flush_all);
  const std::uint64_t token = out.back().token;
  core.hello(1, hello_at(5), out);
  ASSERT_TRUE(core.has_session());
  core.closed(1, out);
  core.all_flushed(token, 0, out);
  EXPECT_EQ(record.record().promised_epoch, Epoch(5));
  EXPECT_TRUE(after_power_cut().suspect());
}

TEST_F(PromiseAtRestTest, AnOwnerIsNeverAtRest) {
  core.set_owner(true);
  record.serve(Epoch(4));
  promise(5);
  EXPECT_FALSE(record.record().clean);
  EXPECT_TRUE(after_power_cut().suspect());
}

TEST_F(PromiseAtRestTest, OneThatBecomesOwnerDuringTheFlushIsNoRest) {
  core.promise(Epoch(4), out);
  ASSERT_EQ(out.back().kind, SecondaryAction::Kind::flush_all);
  const std::uint64_t token = out.back().token;
  core.set_owner(true);
  record.serve(Epoch(4));
  core.all_flushed(token, 0, out);
  EXPECT_TRUE(after_power_cut().suspect());
}

TEST_F(PromiseAtRestTest, OneThatEndsItsServiceDuringTheFlushIsNoRest) {
  core.set_owner(true);
  core.promise(Epoch(4), out);
  ASSERT_EQ(out.back().kind, SecondaryAction::Kind::flush_all);
  const std::uint64_t token = out.back().token;
  core.set_owner(false);
  core.all_flushed(token, 0, out);
  EXPECT_TRUE(after_power_cut().suspect());
}

TEST_F(PromiseAtRestTest, ASuspectReplicaStaysSuspect) {
  record = after_power_cut();
  ASSERT_TRUE(record.suspect());
  promise(4);
  EXPECT_TRUE(ReplicaRecord(record.record(), "boot-2").suspect());
  EXPECT_TRUE(ReplicaRecord(record.record(), "boot-3").suspect());
}

}  // namespace
}  // namespace havm
