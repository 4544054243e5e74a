// The job of SecondaryCoreTest: drive SecondaryCore by hand and look at every action; what the
// tests of the partner's side share.
#pragma once

#include <cerrno>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vmrepl/session/secondary_core.hpp"

namespace havm {

using Kind = SecondaryAction::Kind;
using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;

inline Record fresh_record() {
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

inline HelloContext context() {
  HelloContext c;
  c.vm = "web1";
  c.vm_id = "id-1";
  c.partner = "a";
  c.disks = fresh_record().disks;
  c.lease = std::chrono::milliseconds(6000);
  return c;
}

inline Hello hello_at(std::uint64_t epoch, std::uint64_t session = 77) {
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

}  // namespace havm
