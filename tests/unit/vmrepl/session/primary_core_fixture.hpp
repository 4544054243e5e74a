// The job of PrimaryCoreTest: drive PrimaryCore by hand and look at every action; what the tests of
// the owner's data path share.
#pragma once

#include <algorithm>
#include <cerrno>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vmrepl/session/primary_core.hpp"

namespace havm {

using Kind = PrimaryAction::Kind;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::uint64_t disk_bytes = 1 << 20;

class PrimaryCoreTest : public testing::Test {
 protected:
  // Every extent is in the activity log already, and the generation that a first write begins has
  // begun.
  PrimaryCoreTest() {
    for (std::uint16_t disk = 0; disk < marks.disks(); ++disk)
      (void)marks.admit(disk, 0, disk_bytes);
    marks.transaction_done(marks.start_transaction().value().number);
    for (std::uint16_t disk = 0; disk < marks.disks(); ++disk)
      marks.release(disk, 0, disk_bytes);
    core.open(Epoch(5), true);
    submit(0, request(DiskOp::write, disk_bytes - 4096, 4096, false, 1));
    local(0);
    EXPECT_THAT(take_kinds(),
                ElementsAre(Kind::submit_local, Kind::new_generation, Kind::complete));
  }

  static DiskRequest request(DiskOp op, std::uint64_t offset = 0, std::uint32_t length = 4096,
                             bool fua = false, std::uint16_t disk = 0) {
    DiskRequest r;
    r.op = op;
    r.disk = disk;
    r.offset = offset;
    r.length = op == DiskOp::flush ? 0 : length;
    r.fua = fua;
    return r;
  }
  void submit(OpId id, const DiskRequest& r) { core.submit(id, r, out); }
  void write(OpId id, std::uint64_t offset = 0, bool fua = false) {
    submit(id, request(DiskOp::write, offset, 4096, fua));
  }
  void read(OpId id, std::uint64_t offset = 0) { submit(id, request(DiskOp::read, offset)); }
  void flush(OpId id, std::uint16_t disk = 0) {
    submit(id, request(DiskOp::flush, 0, 0, false, disk));
  }
  void local(OpId id, int error = 0) { core.local_done(id, error, out); }
  void local_flushed(int error = 0, std::uint16_t disk = 0) {
    core.local_flushed(disk, error, out);
  }
  void answer(FrameType type, Sequence sequence, std::uint32_t status = 0) {
    FrameHeader h;
    h.type = type;
    h.session = SessionId(77);
    h.sequence = sequence;
    h.status = status;
    core.frame(h, out);
  }
  void ack(Sequence sequence, std::uint32_t status = 0) {
    answer(FrameType::ack, sequence, status);
  }

  // What was decided since the last look, without the saves that nobody waits for.
  std::vector<PrimaryAction> take() {
    std::erase_if(out, [](const PrimaryAction& a) { return a.kind == Kind::save_marks; });
    return std::exchange(out, {});
  }
  std::vector<Kind> take_kinds() {
    std::vector<Kind> kinds;
    for (const auto& a : take())
      kinds.push_back(a.kind);
    return kinds;
  }
  std::vector<OpId> take_completed() {
    std::vector<OpId> ids;
    for (const auto& a : take())
      if (a.kind == Kind::complete) {
        EXPECT_EQ(a.error, 0);
        ids.push_back(a.id);
      }
    return ids;
  }
  // The only frame of this type among the actions not yet taken.
  Sequence sent(FrameType type) {
    Sequence found;
    int count = 0;
    for (const auto& a : out)
      if (a.kind == Kind::send && a.frame.type == type) {
        found = a.frame.sequence;
        ++count;
      }
    EXPECT_EQ(count, 1) << "frames of type " << static_cast<int>(type);
    return found;
  }
  Sequence sequence_of(OpId id) {
    for (const auto& a : out)
      if (a.kind == Kind::send && a.id == id) return a.frame.sequence;
    ADD_FAILURE() << "request " << id << " was not sent";
    return {};
  }

  void stream() {
    core.session_opened(SessionId(77), false, out);
    answer(FrameType::sync_begin_ok, sent(FrameType::sync_begin));
    take();
  }
  void sync() {
    stream();
    core.resync_finished(out);
    answer(FrameType::sync_end_ok, sent(FrameType::sync_end));
    take();
  }
  void prepare() {
    sync();
    core.grow_prepare();
  }
  void live() {
    prepare();
    core.grow_commit(Epoch(6), out);
    answer(FrameType::epoch_ok, sent(FrameType::epoch));
    take();
  }
  void lose() { core.session_lost("test", out); }

  ReplicaMarks marks{
      {DirtyBitmap(disk_bytes), DirtyBitmap(disk_bytes)}, ReplicaMarks::LogTable(16), 1};
  PrimaryCore core{marks};
  PrimaryCore::Actions out;
};

}  // namespace havm
