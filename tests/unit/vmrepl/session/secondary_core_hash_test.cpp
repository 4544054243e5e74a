// How the partner's side answers a hash: in the order of the writes, and whatever it finds.
#include "tests/unit/vmrepl/session/secondary_core_fixture.hpp"

namespace havm {
namespace {

constexpr std::uint32_t grain = DirtyBitmap::grain_bytes;

class SecondaryHashTest : public SecondaryCoreTest {
 protected:
  SecondaryHashTest() { stream(); }
};

TEST_F(SecondaryHashTest, AHashIsAnsweredWithItsRangeAndItsChecksums) {
  frame(FrameType::hash, 0, grain, 2 * grain);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::hash));
  core.hash_done(0, 0, {{1, 2}, {3, 4}}, out);
  const auto answer = take();
  ASSERT_EQ(answer.size(), 1U);
  EXPECT_EQ(answer[0].frame.type, FrameType::hash_ok);
  EXPECT_EQ(answer[0].frame.sequence, Sequence(sequence));
  EXPECT_EQ(answer[0].frame.offset, grain);
  EXPECT_EQ(answer[0].frame.length, 2 * grain);
  EXPECT_EQ(answer[0].frame.status, 0U);
  EXPECT_THAT(answer[0].hashes, ElementsAre(GrainHash{1, 2}, GrainHash{3, 4}));
  EXPECT_TRUE(core.is_quiet());
}

TEST_F(SecondaryHashTest, AHashIsTakenBetweenTheWritesBeforeAndThoseAfter) {
  frame(FrameType::write, 0, 4096, 4096);
  frame(FrameType::hash, 1, 0, grain);
  frame(FrameType::write, 2, 8192, 4096);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::apply));
  core.local_done(0, 0, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::send, Kind::hash));
  core.hash_done(1, 0, {{1, 2}}, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::send, Kind::apply));
}

TEST_F(SecondaryHashTest, HashesOfOneRangeDoNotWaitForEachOther) {
  frame(FrameType::hash, 0, 0, grain);
  frame(FrameType::hash, 1, 0, grain);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::hash, Kind::hash));
}

TEST_F(SecondaryHashTest, AFailedReadIsToldAndCostsTheReplicaNothing) {
  const ReplicaState before = record.record().state;
  frame(FrameType::hash, 0, 0, grain);
  take();
  core.hash_done(0, EIO, {}, out);
  const auto answer = take();
  ASSERT_EQ(answer.size(), 1U) << "no replica_failed, nothing to persist";
  EXPECT_EQ(answer[0].frame.type, FrameType::hash_ok);
  EXPECT_EQ(answer[0].frame.status, static_cast<std::uint32_t>(EIO));
  EXPECT_THAT(answer[0].hashes, IsEmpty());
  EXPECT_EQ(record.record().state, before);
}

TEST_F(SecondaryHashTest, ARangeOutsideOfTheDiskEndsTheSession) {
  frame(FrameType::hash, 0, (1 << 20) - grain, 2 * grain);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::drop, Kind::close, Kind::session_changed));
}

TEST_F(SecondaryHashTest, NothingOfAClosedSessionIsAnswered) {
  frame(FrameType::hash, 0, 0, grain);
  frame(FrameType::write, 1, 0, 4096);
  take();
  core.closed(1, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::drop, Kind::session_changed));
  EXPECT_FALSE(core.is_quiet());
  core.hash_done(0, 0, {{1, 2}}, out);
  EXPECT_THAT(take_kinds(), IsEmpty());
  EXPECT_TRUE(core.is_quiet());
}

TEST_F(SecondaryHashTest, TheFlushOfAPromiseWaitsForTheLastHash) {
  frame(FrameType::hash, 0, 0, grain);
  take();
  core.promise(Epoch(6), out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::refuse, Kind::session_changed));
  core.hash_done(0, 0, {{1, 2}}, out);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::flush_all));
}

}  // namespace
}  // namespace havm
