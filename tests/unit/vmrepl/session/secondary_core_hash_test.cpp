// How the partner's side answers a hash: in the order of the writes, and whatever it finds.
#include <cerrno>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vmrepl/session/secondary_core.hpp"

namespace havm {
namespace {

using Kind = SecondaryAction::Kind;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::uint32_t grain = DirtyBitmap::grain_bytes;

class SecondaryHashTest : public testing::Test {
 protected:
  SecondaryHashTest() {
    Hello hello;
    hello.vm = "web1";
    hello.vm_id = "id-1";
    hello.node = "a";
    hello.boot_id = "boot-a";
    hello.epoch = Epoch(5);
    hello.session = SessionId(77);
    hello.lease = std::chrono::milliseconds(6000);
    hello.disks = record.record().disks;
    core.hello(1, hello, out);
    frame(FrameType::sync_begin, no_op, 0, 0);
    out.clear();
  }
  static Record outdated() {
    Record r;
    r.vm = "web1";
    r.vm_id = "id-1";
    r.node = "b";
    r.disks = {{"vda", 1 << 20}};
    r.epoch = r.promised_epoch = Epoch(3);
    r.state = ReplicaState::outdated;
    r.boot_id = "boot-1";
    return r;
  }
  static HelloContext context() {
    HelloContext c;
    c.vm = "web1";
    c.vm_id = "id-1";
    c.partner = "a";
    c.disks = outdated().disks;
    c.lease = std::chrono::milliseconds(6000);
    return c;
  }
  Sequence frame(FrameType type, OpId id, std::uint64_t offset, std::uint32_t length) {
    FrameHeader h;
    h.type = type;
    h.session = SessionId(77);
    h.epoch = Epoch(5);
    h.sequence = Sequence(++sequence);
    h.offset = offset;
    h.length = length;
    core.frame(1, h, id, from_ns(1), out);
    return h.sequence;
  }
  std::vector<SecondaryAction> take() { return std::exchange(out, {}); }
  std::vector<Kind> take_kinds() {
    std::vector<Kind> kinds;
    for (const auto& a : take())
      kinds.push_back(a.kind);
    return kinds;
  }

  ReplicaRecord record{outdated(), "boot-1"};
  ReplicaMarks marks{{DirtyBitmap(1 << 20)}, ReplicaMarks::LogTable(4), 1};
  SecondaryCore core{context(), record, marks, from_ns(0)};
  SecondaryCore::Actions out;
  std::uint64_t sequence = 1;
};

TEST_F(SecondaryHashTest, AHashIsAnsweredWithItsRangeAndItsChecksums) {
  const Sequence asked = frame(FrameType::hash, 0, grain, 2 * grain);
  EXPECT_THAT(take_kinds(), ElementsAre(Kind::hash));
  core.hash_done(0, 0, {{1, 2}, {3, 4}}, out);
  const auto answer = take();
  ASSERT_EQ(answer.size(), 1U);
  EXPECT_EQ(answer[0].frame.type, FrameType::hash_ok);
  EXPECT_EQ(answer[0].frame.sequence, asked);
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
