// What the partner answers to an owner that cannot read its own disk.
#include "tests/unit/vmrepl/session/secondary_core_fixture.hpp"

namespace havm {
namespace {

TEST_F(SecondaryCoreTest, AReadIsAnsweredWithTheDataOfItsRequest) {
  live();
  frame(FrameType::read, 1, 8192);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::read));
  core.read_done(1, 0, out);
  const auto actions = take();
  ASSERT_EQ(actions.size(), 1U);
  EXPECT_EQ(actions[0].frame.type, FrameType::data);
  EXPECT_EQ(actions[0].id, 1U);
  EXPECT_EQ(actions[0].frame.sequence, Sequence(sequence));
  EXPECT_EQ(actions[0].frame.offset, 8192U);
  EXPECT_EQ(actions[0].frame.length, 4096U);
  EXPECT_EQ(actions[0].frame.status, 0U);
  EXPECT_TRUE(core.is_quiet());
}

TEST_F(SecondaryCoreTest, AReadStandsBetweenTheWritesBeforeAndAfterIt) {
  live();
  frame(FrameType::write, 1);
  frame(FrameType::read, 2);
  frame(FrameType::read, 3);
  frame(FrameType::write, 4);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::apply));
  core.local_done(1, 0, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::send, Kind::read, Kind::read));
  core.read_done(2, 0, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::send));
  core.read_done(3, 0, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::send, Kind::apply));
}

TEST_F(SecondaryCoreTest, AReadOfAReplicaThatIsNotCompleteEndsTheSession) {
  stream();
  frame(FrameType::read, 1);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::drop, Kind::close, Kind::session_changed));
  EXPECT_FALSE(core.has_session());
}

TEST_F(SecondaryCoreTest, AReadOutsideOfTheDiskEndsTheSession) {
  live();
  frame(FrameType::read, 1, (1 << 20) - 512, 4096);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::drop, Kind::close, Kind::session_changed));
}

TEST_F(SecondaryCoreTest, AFailedReadIsTheOwnersToJudge) {
  live();
  frame(FrameType::read, 1);
  take();
  core.read_done(1, EIO, out);
  const auto actions = take();
  ASSERT_EQ(actions.size(), 1U);
  EXPECT_EQ(actions[0].frame.status, static_cast<std::uint32_t>(EIO));
  EXPECT_EQ(record.record().state, ReplicaState::uptodate);
}

TEST_F(SecondaryCoreTest, AReadOfAClosedSessionIsNotAnswered) {
  live();
  frame(FrameType::read, 1);
  take();
  core.closed(1, out);
  take();
  core.read_done(1, 0, out);
  EXPECT_THAT(take(), IsEmpty());
  EXPECT_TRUE(core.is_quiet());
}

// ---- a disk that failed for good -------------------------------------------------------------

TEST_F(SecondaryCoreTest, ABrokenDiskTakesNoSession) {
  live();
  core.set_broken("the disk is broken");
  EXPECT_TRUE(core.has_session()) << "its error is answered in it";
  core.closed(1, out);
  take();
  hello(2, hello_at(7));
  const auto actions = take();
  ASSERT_EQ(actions.size(), 1U);
  EXPECT_EQ(actions[0].kind, Kind::refuse);
  EXPECT_EQ(actions[0].text, "the disk is broken");
  EXPECT_LT(core.promised(), Epoch(7)) << "what is refused promises nothing";
}

}  // namespace
}  // namespace havm
