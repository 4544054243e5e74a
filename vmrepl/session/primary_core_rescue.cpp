// The part of PrimaryCore that answers a read which failed on the own replica with the partner's
// data, and repairs the own replica with it (P11).
#include <cerrno>
#include <string>
#include <utility>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/session/primary_core.hpp"

namespace havm {

using Kind = PrimaryAction::Kind;

namespace {

// What a medium says of a place it cannot read. Anything else (an image that was cut or replaced, a
// file system that gave up) is no place that writing it again would heal.
bool is_bad_place(int error) {
  return error == EIO || error == ENODATA || error == EILSEQ;
}

}  // namespace

// False: nobody else is known to have the data.
bool PrimaryCore::fetch(OpId id, int error, Actions& out) {
  Slot& s = slot(id);
  if (s.request.op != DiskOp::read || !is_bad_place(error)) return false;
  if (failed_ || phase_ != Phase::synced || !stream_.serves_reads) return false;
  s.rescue = Rescue::fetching;
  s.read_error = error;
  s.partner_pending = true;
  PrimaryAction a(Kind::send);
  a.frame = next_frame(FrameType::read, {Pending::Kind::fetch, id, FrameType::data, {}});
  a.frame.offset = s.request.offset;
  a.frame.length = s.request.length;
  a.frame.disk = s.request.disk;
  out.push_back(std::move(a));
  return true;
}

// What the frame carries has not been touched yet: take_data comes first.
void PrimaryCore::fetched(OpId id, const FrameHeader& header, Actions& out) {
  Slot& s = slot(id);
  HAVM_ASSERT(s.rescue == Rescue::fetching, "data came for a read that asked for none");
  const DiskRequest& r = s.request;
  if (header.disk != r.disk || header.offset != r.offset || header.length != r.length) {
    break_session("the partner answered a read with another range", out);  // gives up this one too
    return;
  }
  if (header.status != 0) {
    give_up(id, out);
    return;
  }
  out.emplace_back(Kind::take_data, id);
  s.partner_pending = false;
  s.rescue = Rescue::writing;
  if (stopped()) {
    s.stage = Stage::granted;
    held_.granted.push_back(id);
    return;
  }
  launch(id, out);
}

void PrimaryCore::write_back(OpId id, Actions& out) {
  Slot& s = slot(id);
  s.stage = Stage::running;
  s.local_pending = true;
  ++local_in_flight_;
  out.emplace_back(Kind::write_back, id);
}

void PrimaryCore::written_back(OpId id, int error, Actions& out) {
  Slot& s = slot(id);
  HAVM_ASSERT(s.local_pending && s.rescue == Rescue::writing, "nothing was being repaired");
  s.local_pending = false;
  if (!open_) {
    drop_request(id, out);
    local_ended(out);
    return;
  }
  local_ended(out);
  if (error != 0) {
    give_up(id, out);
    return;
  }
  s.rescue = Rescue::done;
  PrimaryAction a(Kind::repaired);
  a.disk = s.request.disk;
  a.error = s.read_error;
  a.frame.offset = s.request.offset;
  a.frame.length = s.request.length;
  out.push_back(std::move(a));
  finish_if_ready(id, out);
}

// As a failed read without anybody to ask: the guest is told nothing, the replica has failed.
void PrimaryCore::give_up(OpId id, Actions& out) {
  Slot& s = slot(id);
  s.rescue = Rescue::done;
  s.partner_pending = false;
  s.stuck = true;
  fail(s.request.disk, s.read_error, out);
}

}  // namespace havm
