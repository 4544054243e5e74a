// The part of PrimaryCore that talks to the partner: frames, leases, resync copies.
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/rules.hpp"
#include "vmrepl/session/primary_core.hpp"

namespace havm {

using Kind = PrimaryAction::Kind;

// ---- the session -----------------------------------------------------------------------------

FrameHeader PrimaryCore::next_frame(FrameType type, const Pending& pending) {
  FrameHeader h;
  h.type = type;
  h.session = stream_.session;
  h.epoch = epoch_;
  h.sequence = Sequence(stream_.first_pending + stream_.pending.size());
  stream_.pending.push_back(pending);
  return h;
}

void PrimaryCore::send_control(FrameType type, FrameType answer, Actions& out) {
  PrimaryAction a(Kind::send);
  a.frame = next_frame(type, {Pending::Kind::control, 0, answer, {}});
  out.push_back(std::move(a));
}

void PrimaryCore::changed(SessionState state, const std::string& reason, Actions& out) {
  PrimaryAction a(Kind::session_changed);
  a.state = state;
  a.text = reason;
  out.push_back(std::move(a));
}

void PrimaryCore::session_opened(SessionId session, bool full, Actions& out) {
  HAVM_ASSERT(open_ && phase_ == Phase::none, "a second session was opened");
  HAVM_ASSERT(!required_ || !holds(Rule::never_reattach),
              "never re-attach while the in-sync set may be both");
  stream_.session = session;
  stream_.pending.clear();
  stream_.first_pending = 2;
  stream_.leases_pending = 0;
  phase_ = Phase::opening;
  stream_.begin_unsaved = full;
  if (full) {
    marks_.set_all();
    out.emplace_back(Kind::save_marks);
    if (!holds(Rule::full_needs_saved_bits)) {
      stream_.begin_unsaved = false;
      send_control(FrameType::sync_begin, FrameType::sync_begin_ok, out);
    }
  } else {
    send_control(FrameType::sync_begin, FrameType::sync_begin_ok, out);
  }
  changed(SessionState::syncing, "the partner accepted the session", out);
}

void PrimaryCore::session_lost(const std::string& reason, Actions& out) {
  if (phase_ == Phase::none) return;
  drop_session(out);
  changed(SessionState::lost, reason, out);
}

void PrimaryCore::break_session(const std::string& reason, Actions& out) {
  PrimaryAction a(Kind::close_session);
  a.text = reason;
  out.push_back(std::move(a));
  session_lost(reason, out);
}

// Ends the partner's part in everything. With the partner required this leaves all I/O held, else
// what is complete on the own replica completes now.
void PrimaryCore::drop_session(Actions& out) {
  phase_ = Phase::none;
  if (!holds(Rule::hold_until_shrunk)) required_ = grown_ = false;
  stream_.pending.clear();
  stream_.leases_pending = 0;
  for (std::uint16_t i = 0; i < disks_.size(); ++i) {
    Disk& d = disks_[i];
    const auto mark = [&](const ByteRange& r) { marks_.set(i, r.offset, r.length); };
    if (holds(Rule::acked_is_not_durable)) d.acked.for_each(mark);
    if (holds(Rule::covered_until_answered)) d.covered.for_each(mark);
    for (UnflushedRanges* ranges : {&d.acked, &d.covered, &d.copied, &d.copied_covered})
      ranges->clear();
    d.copied_bytes = 0;
    d.copy_flush_running = false;
    d.round_partner = false;
  }
  for (OpId id = 0; id < slots_.size(); ++id) {
    Slot& s = slots_[id];
    if (s.stage == Stage::free || !s.is_copy) continue;
    leave_partner(id);
    if (s.stage == Stage::running && s.local_pending)
      s.abandoned = true;
    else
      end_copy(id, ECANCELED, out);
  }
  for (OpId id = 0; id < slots_.size(); ++id) {
    Slot& s = slots_[id];
    if (s.stage == Stage::free || s.is_copy || !changes_data(s.request)) continue;
    if (holds(Rule::in_flight_is_dirty))
      marks_.set(s.request.disk, s.request.offset, s.request.length);
    if (!std::exchange(s.partner_pending, false) || !open_) continue;
    finish_if_ready(id, out);
  }
  if (!open_) return;
  for (OpId id = 0; id < slots_.size(); ++id)
    if (slots_[id].stage != Stage::free && slots_[id].rescue == Rescue::fetching) give_up(id, out);
  for (std::uint16_t i = 0; i < disks_.size(); ++i)
    finish_round_if_ready(i, out);
}

void PrimaryCore::frame(const FrameHeader& header, Actions& out,
                        const std::vector<GrainHash>& hashes) {
  if (phase_ == Phase::none) return;
  if (header.session != stream_.session) {
    break_session("the partner answered in another session", out);
    return;
  }
  const std::uint64_t n = header.sequence.value;
  if (n < stream_.first_pending || n - stream_.first_pending >= stream_.pending.size()) {
    break_session("the partner answered a frame that was not sent", out);
    return;
  }
  Pending& p = stream_.pending[n - stream_.first_pending];
  const Pending pending = p;
  const bool lease_answer =
      header.type == FrameType::lease_grant || header.type == FrameType::lease_refused;
  const bool fits =
      pending.kind == Pending::Kind::lease ? lease_answer : header.type == pending.answer;
  if (pending.kind == Pending::Kind::none || !fits) {
    break_session("the partner sent an answer that nobody waits for", out);
    return;
  }
  p.kind = Pending::Kind::none;
  while (!stream_.pending.empty() && stream_.pending.front().kind == Pending::Kind::none) {
    stream_.pending.pop_front();
    ++stream_.first_pending;
  }
  if (pending.kind == Pending::Kind::lease) {
    --stream_.leases_pending;
    if (header.type == FrameType::lease_grant) {
      PrimaryAction a(Kind::renew_lease);
      a.time = pending.time;
      out.push_back(std::move(a));
      return;
    }
    out.emplace_back(Kind::deposed);
    break_session("the partner has promised a higher epoch and grants no lease", out);
  } else if (pending.kind == Pending::Kind::control) {
    answered(header, out);
  } else if (pending.kind == Pending::Kind::hash) {
    hashed(pending.index, header, hashes, out);
  } else if (pending.kind == Pending::Kind::fetch) {
    fetched(pending.index, header, out);
  } else {
    acked(header, pending, out);
  }
}

void PrimaryCore::answered(const FrameHeader& header, Actions& out) {
  if (header.type == FrameType::sync_begin_ok) {
    phase_ = Phase::streaming;
    if (!holds(Rule::equal_is_not_same_data)) marks_.clear_all();
    out.emplace_back(Kind::begin_resync);
  } else if (header.type == FrameType::sync_end_ok) {
    phase_ = Phase::synced;
    // Its flush covers every copy.
    for (std::uint16_t i = 0; i < disks_.size(); ++i) {
      clear_copied(i, disks_[i].copied);
      clear_copied(i, disks_[i].copied_covered);
      disks_[i].copied.clear();
      disks_[i].copied_covered.clear();
    }
    changed(SessionState::synced, "the partner's replica is complete and durable", out);
    out.emplace_back(Kind::synced);
  }
}

void PrimaryCore::acked(const FrameHeader& header, const Pending& pending, Actions& out) {
  if (header.status != 0) {
    const char* known = ::strerrordesc_np(static_cast<int>(header.status));
    break_session("the partner could not do a " +
                      std::string(pending.kind == Pending::Kind::op ? "write" : "flush") +
                      " on its replica: " +
                      (known != nullptr ? known : "errno " + std::to_string(header.status)),
                  out);
    return;
  }
  if (pending.kind == Pending::Kind::flush) {
    const auto disk = static_cast<std::uint16_t>(pending.index);
    disks_[disk].covered.clear();
    disks_[disk].round_partner = false;
    finish_round_if_ready(disk, out);
    return;
  }
  if (pending.kind == Pending::Kind::copy_flush) {
    const auto disk = static_cast<std::uint16_t>(pending.index);
    Disk& d = disks_[disk];
    clear_copied(disk, d.copied_covered);
    d.copied_covered.clear();
    d.copy_flush_running = false;
    return;
  }
  const OpId id = pending.index;
  if (id == no_op) return;  // only where write_needs_partner does not hold
  Slot& s = slot(id);
  if (s.is_copy) {
    copy_frame_acked(id, out);
    return;
  }
  if (!s.request.fua) disks_[s.request.disk].acked.add(s.request.offset, s.request.length);
  s.partner_pending = false;
  finish_if_ready(id, out);
}

void PrimaryCore::lease_due(TimePoint now, Actions& out) {
  if (phase_ == Phase::none || stream_.leases_pending >= leases_max) return;
  ++stream_.leases_pending;
  PrimaryAction a(Kind::send);
  a.frame =
      next_frame(FrameType::lease_request, {Pending::Kind::lease, 0, FrameType::lease_grant, now});
  out.push_back(std::move(a));
}

// ---- resync ----------------------------------------------------------------------------------

void PrimaryCore::copy(OpId id, std::uint16_t disk, std::uint64_t offset, std::uint32_t length,
                       Actions& out) {
  HAVM_ASSERT(phase_ == Phase::streaming && length > 0, "a copy outside of a resync");
  // Shared is enough: the copy reads here and writes there, guest reads do not disturb it.
  start_copy(id, {disk, offset, length}, RangeLockKind::shared, out);
}

void PrimaryCore::start_copy(OpId id, const DiskRange& range, RangeLockKind kind, Actions& out) {
  Slot& s = new_slot(id);
  s.is_copy = true;
  s.stage = Stage::queued;
  s.request.op = DiskOp::read;
  s.request.disk = range.disk;
  s.request.offset = range.offset;
  s.request.length = range.length;
  RangeLock& lock = disks_[range.disk].lock;
  if (!holds(Rule::copies_take_locks) ||
      lock.acquire(RangeLockId(id), range.offset, range.length, kind))
    granted(id, out);
}

void PrimaryCore::copy_read(OpId id, int error, bool all_zero, Actions& out) {
  Slot& s = slot(id);
  HAVM_ASSERT(s.is_copy && s.local_pending, "a copy was read that was not started");
  s.local_pending = false;
  if (!open_) {
    drop_request(id, out);
    local_ended(out);
    return;
  }
  local_ended(out);
  if (error != 0) {
    const std::uint16_t disk = s.request.disk;
    fail(disk, error, out);
    end_copy(id, ECANCELED, out);
    return;
  }
  if (s.abandoned) {
    end_copy(id, ECANCELED, out);
    return;
  }
  send_copy(id, all_zero, out);
}

void PrimaryCore::send_copy(OpId id, bool all_zero, Actions& out) {
  Slot& s = slot(id);
  PrimaryAction a(Kind::send, id);
  a.frame = next_frame(all_zero ? FrameType::zero : FrameType::write,
                       {Pending::Kind::op, id, FrameType::ack, {}});
  a.frame.offset = s.request.offset;
  a.frame.length = s.request.length;
  a.frame.disk = s.request.disk;
  a.frame.may_unmap = all_zero;
  a.frame.resync = true;
  s.partner_pending = true;
  s.frames_left = 1;
  out.push_back(std::move(a));
}

// Not in acked: before the end of the resync nothing of the partner's replica counts but what
// clears a bit.
void PrimaryCore::copy_acked(OpId id, Actions& out) {
  const DiskRequest copied = slot(id).request;
  Disk& d = disks_[copied.disk];
  d.copied.add(copied.offset, copied.length);
  d.copied_bytes += copied.length;
  if (!holds(Rule::bit_needs_flush)) marks_.clear(copied.disk, copied.offset, copied.length);
  end_copy(id, 0, out);
  if (d.copied_bytes < copy_flush_bytes || d.copy_flush_running) return;
  d.copy_flush_running = true;
  d.copied_bytes = 0;
  d.copied_covered.swap(d.copied);
  PrimaryAction a(Kind::send);
  a.frame =
      next_frame(FrameType::flush, {Pending::Kind::copy_flush, copied.disk, FrameType::ack, {}});
  a.frame.disk = copied.disk;
  a.frame.resync = true;
  out.push_back(std::move(a));
}

void PrimaryCore::clear_copied(std::uint16_t disk, const UnflushedRanges& ranges) {
  ranges.for_each([&](const ByteRange& r) { marks_.clear(disk, r.offset, r.length); });
}

void PrimaryCore::partner_dirty(std::uint16_t disk, std::uint64_t offset, std::uint64_t length,
                                Actions& out) {
  if (phase_ == Phase::none) return;
  if (phase_ != Phase::opening || disk >= disks_.size()) {
    break_session("the partner told marks of its own that nobody asked for", out);
    return;
  }
  marks_.set(disk, offset, length);
}

void PrimaryCore::end_copy(OpId id, int error, Actions& out) {
  PrimaryAction a(Kind::copy_done, id);
  a.error = error;
  if (const auto check = checks_.find(id); check != checks_.end()) a.check = check->second.outcome;
  out.push_back(std::move(a));
  if (slot(id).stage == Stage::logging) std::erase(logging_, id);
  release_lock(id, out);
  end_intent(id);
  free_slot(id);
}

void PrimaryCore::resync_finished(Actions& out) {
  if (phase_ != Phase::streaming) return;
  // Guest writes in flight at this moment are not covered by the flush this asks for; every guest
  // flush since the stream began has a partner leg, so a later one covers them (P1).
  phase_ = Phase::ending;
  generation_due_ = true;
  if (holds(Rule::share_before_end)) out.emplace_back(Kind::share_generation);
  if (!holds(Rule::bits_outlive_sync)) marks_.clear_all();
  send_control(FrameType::sync_end, FrameType::sync_end_ok, out);
}

}  // namespace havm
