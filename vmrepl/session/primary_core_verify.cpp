// The part of PrimaryCore that compares ranges with the partner's by their checksums: copies of a
// resync of which only what differs is sent, and verify.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/session/primary_core.hpp"

namespace havm {

using Kind = PrimaryAction::Kind;

void PrimaryCore::compare_copy(OpId id, const DiskRange& range, Actions& out) {
  checks_[id] = RangeCheck{};
  copy(id, range.disk, range.offset, range.length, out);
}

void PrimaryCore::verify(OpId id, const DiskRange& range, bool repair, Actions& out) {
  HAVM_ASSERT(state() == SessionState::live, "only replicas that are in sync are verified");
  RangeCheck check;
  check.verifies = true;
  check.repairs = repair;
  checks_[id] = std::move(check);
  // A repair takes this side's data there while the rescue of a guest's read takes that side's data
  // here (P11): never both over the same bytes.
  start_copy(id, range, repair ? RangeLockKind::exclusive : RangeLockKind::shared, out);
}

void PrimaryCore::compare_read(OpId id, int error, std::vector<GrainHash> hashes, Actions& out) {
  RangeCheck& check = checks_.at(id);
  if (error != 0 && !check.verifies) {
    copy_read(id, error, false, out);
    return;
  }
  Slot& s = slot(id);
  HAVM_ASSERT(s.local_pending, "a range was read that was not asked for");
  s.local_pending = false;
  if (!open_) {
    drop_request(id, out);
    local_ended(out);
    return;
  }
  local_ended(out);
  if (s.abandoned) {
    end_copy(id, ECANCELED, out);
    return;
  }
  if (error != 0) {
    // It tells of a bad place on this disk; the guest has not asked for it, so nothing is held.
    check.outcome.local_error = error;
    end_copy(id, 0, out);
    return;
  }
  check.hashes = std::move(hashes);
  PrimaryAction a(Kind::send, id);
  a.frame = next_frame(FrameType::hash, {Pending::Kind::hash, id, FrameType::hash_ok, {}});
  a.frame.offset = s.request.offset;
  a.frame.length = s.request.length;
  a.frame.disk = s.request.disk;
  s.partner_pending = true;
  out.push_back(std::move(a));
}

void PrimaryCore::hashed(OpId id, const FrameHeader& header, const std::vector<GrainHash>& hashes,
                         Actions& out) {
  const DiskRequest range = slot(id).request;
  RangeCheck& check = checks_.at(id);
  const std::size_t grains = check.hashes.size();
  const bool fits = header.disk == range.disk && header.offset == range.offset &&
                    header.length == range.length &&
                    (header.status != 0 || hashes.size() == grains);
  if (!fits) {
    break_session("the partner told checksums of a range that nobody asked for", out);
    return;
  }
  slot(id).partner_pending = false;
  check.outcome.partner_error = static_cast<int>(header.status);
  for (std::size_t i = 0; i < grains; ++i)
    if (header.status != 0 || hashes[i] != check.hashes[i]) check.outcome.differing |= 1U << i;
  const bool differs = check.outcome.differing != 0;
  if (check.verifies && differs && check.repairs) {
    slot(id).request.op = DiskOp::write;  // from here it changes data
    repair(id, out);
  } else if (check.verifies) {
    end_copy(id, 0, out);
  } else if (differs) {
    send_differing(id, out);
  } else {
    copy_acked(id, out);  // what is equal may be unflushed there, as a copy is
  }
}

// No mark tells of this range yet, and half of a repair may be lost in a crash: intent first, as
// for a guest's write (P8). Not while held: the own replica may have failed, and nothing goes on in
// this session anyway.
void PrimaryCore::repair(OpId id, Actions& out) {
  if (stopped()) {
    end_copy(id, 0, out);
    return;
  }
  if (!announce(id, out)) return;
  slot(id).stage = Stage::running;
  send_differing(id, out);
}

// Still under the lock of the range: the data is that which was hashed.
void PrimaryCore::send_differing(OpId id, Actions& out) {
  Slot& s = slot(id);
  s.partner_pending = true;
  const auto send = [&](const ByteRange& run) {
    PrimaryAction a(Kind::send, id);
    a.frame = next_frame(FrameType::write, {Pending::Kind::op, id, FrameType::ack, {}});
    a.frame.offset = run.offset;
    a.frame.length = static_cast<std::uint32_t>(run.length);
    a.frame.disk = s.request.disk;
    a.frame.resync = true;
    ++s.frames_left;
    out.push_back(std::move(a));
  };
  for_each_run(s.request.offset, s.request.length, checks_.at(id).outcome.differing, send);
}

void PrimaryCore::copy_frame_acked(OpId id, Actions& out) {
  Slot& s = slot(id);
  if (--s.frames_left > 0) return;
  const auto check = checks_.find(id);
  if (check == checks_.end() || !check->second.verifies) {
    copy_acked(id, out);
    return;
  }
  // From here as a guest's write: dirty if the session is lost before a flush covers it.
  CheckOutcome& outcome = check->second.outcome;
  outcome.repaired = true;
  UnflushedRanges& acked = disks_[s.request.disk].acked;
  for_each_run(s.request.offset, s.request.length, outcome.differing,
               [&](const ByteRange& run) { acked.add(run.offset, run.length); });
  end_copy(id, 0, out);
}

void PrimaryCore::verify_flush(OpId id, std::uint16_t disk, Actions& out) {
  HAVM_ASSERT(state() == SessionState::live, "what was repaired is flushed in the same session");
  Slot& s = new_slot(id);
  s.is_copy = true;
  s.stage = Stage::queued;
  s.request.op = DiskOp::flush;
  s.request.disk = disk;
  s.arrival = next_arrival_++;
  disks_[disk].flush_waiting.push_back(id);
  try_flush(disk, out);
}

// The session is going away under this copy: what it had begun to send is in doubt.
void PrimaryCore::leave_partner(OpId id) {
  const Slot& s = slot(id);
  Disk& d = disks_[s.request.disk];
  if (s.request.op == DiskOp::flush) {
    std::erase(d.flush_waiting, id);
    std::erase(d.round, id);
    return;
  }
  const auto check = checks_.find(id);
  if (check == checks_.end() || !check->second.verifies || s.frames_left == 0) return;
  for_each_run(s.request.offset, s.request.length, check->second.outcome.differing,
               [&](const ByteRange& run) { marks_.set(s.request.disk, run.offset, run.length); });
}

}  // namespace havm
