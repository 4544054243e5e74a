#include "vmrepl/session/primary_core.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/rules.hpp"

namespace havm {

using Kind = PrimaryAction::Kind;

PrimaryCore::PrimaryCore(ReplicaMarks& marks) : marks_(marks), disks_(marks.disks()) {
  HAVM_ASSERT(!disks_.empty(), "a VM has at least one disk");
}

// ---- the owner role --------------------------------------------------------------------------

void PrimaryCore::open(Epoch epoch, bool generation_due) {
  HAVM_ASSERT(is_drained(), "opened while I/O of an earlier time as owner is left");
  open_ = true;
  epoch_ = epoch;
  required_ = grown_ = frozen_ = failed_ = false;
  generation_due_ = generation_due;
}

bool PrimaryCore::can_grow() const {
  return open_ && !held() && phase_ == Phase::synced && !required_;
}

void PrimaryCore::grow_prepare() {
  HAVM_ASSERT(can_grow(), "grow prepared without a synced session");
  required_ = true;
}

void PrimaryCore::grow_commit(Epoch epoch, Actions& out) {
  HAVM_ASSERT(open_ && required_ && !grown_, "grow committed without having been prepared");
  HAVM_ASSERT(epoch > epoch_, "an epoch only rises");
  epoch_ = epoch;
  grown_ = true;
  if (phase_ != Phase::synced) return;  // lost meanwhile: held until shrink
  marks_.clear_all();
  send_control(FrameType::epoch, FrameType::epoch_ok, out);
  changed(SessionState::live, "the in-sync set is both", out);
}

void PrimaryCore::shrink(Epoch epoch, Actions& out) {
  HAVM_ASSERT(open_ && epoch >= epoch_, "shrink needs the owner role and a higher epoch");
  if (phase_ != Phase::none) {
    PrimaryAction a(Kind::close_session);
    a.text = "the in-sync set was shrunk to the owner";
    out.push_back(std::move(a));
    drop_session(out);
    changed(SessionState::none, "the in-sync set was shrunk to the owner", out);
  }
  epoch_ = epoch;
  required_ = grown_ = frozen_ = false;
  release_held(out);
  out.emplace_back(Kind::save_marks);
}

void PrimaryCore::close(Actions& out) {
  HAVM_ASSERT(open_, "closed without being open");
  open_ = false;
  if (phase_ != Phase::none) {
    PrimaryAction a(Kind::close_session);
    a.text = "this node is no longer owner";
    out.push_back(std::move(a));
    drop_session(out);
    changed(SessionState::none, "this node is no longer owner", out);
  }
  held_.arrived.clear();
  held_.granted.clear();
  held_.finished.clear();
  logging_.clear();
  for (Disk& d : disks_) {
    d.flush_waiting.clear();
    d.flush_wanted = false;
    d.round.clear();
    d.round_running = d.round_local;  // a flush in flight still reports
    d.round_stuck = false;
  }
  for (OpId id = 0; id < slots_.size(); ++id) {
    const Slot& s = slots_[id];
    if (s.stage != Stage::free && !s.local_pending) drop_request(id, out);
  }
  closing_ = local_in_flight_ != 0;
  if (!closing_) out.emplace_back(Kind::drained);
}

// Only during and after close: nothing of the request is in flight any more.
void PrimaryCore::drop_request(OpId id, Actions& out) {
  Slot& s = slot(id);
  const DiskRequest r = s.request;
  const bool is_copy = s.is_copy;
  // Whoever waits for this range is dropped too, so what the lock grants here is of no interest.
  RangeLock& lock = disks_[r.disk].lock;
  if (lock.contains(RangeLockId(id))) (void)lock.release(RangeLockId(id));
  if (!is_copy && changes_data(r) && r.length != 0) disks_[r.disk].arrival_done(s.arrival);
  if (!is_copy) --guest_requests_;
  end_intent(id);
  free_slot(id);
  PrimaryAction a(is_copy ? Kind::copy_done : Kind::complete, id);
  a.error = is_copy ? ECANCELED : ESHUTDOWN;
  out.push_back(std::move(a));
}

void PrimaryCore::local_ended(Actions& out) {
  --local_in_flight_;
  if (closing_ && local_in_flight_ == 0) {
    closing_ = false;
    out.emplace_back(Kind::drained);
  }
}

SessionState PrimaryCore::state() const {
  switch (phase_) {
    case Phase::none:
      return SessionState::none;
    case Phase::opening:
    case Phase::streaming:
    case Phase::ending:
      return SessionState::syncing;
    case Phase::synced:
      return grown_ ? SessionState::live : SessionState::synced;
  }
  return SessionState::none;
}

// ---- guest requests --------------------------------------------------------------------------

void PrimaryCore::submit(OpId id, const DiskRequest& request, Actions& out) {
  HAVM_ASSERT(open_, "a guest request without the owner role");
  HAVM_ASSERT(request.disk < disks_.size(), "no such disk");
  Slot& s = new_slot(id);
  s.request = request;
  ++guest_requests_;
  Disk& d = disks_[request.disk];
  s.arrival = next_arrival_++;
  if (changes_data(request) && request.length != 0) d.writes.push_back({s.arrival, false});
  s.stage = Stage::arrived;
  if (stopped()) {
    held_.arrived.push_back(id);
    return;
  }
  start(id, out);
}

void PrimaryCore::start(OpId id, Actions& out) {
  Slot& s = slot(id);
  Disk& d = disks_[s.request.disk];
  if (s.request.op == DiskOp::flush) {
    s.stage = Stage::queued;
    d.flush_waiting.push_back(id);
    try_flush(s.request.disk, out);
    return;
  }
  if (s.request.length == 0) {
    finish(id, out);
    return;
  }
  const bool shares = s.request.op == DiskOp::read || !holds(Rule::writes_keep_order);
  const auto kind = shares ? RangeLockKind::shared : RangeLockKind::exclusive;
  s.stage = Stage::queued;
  if (d.lock.acquire(RangeLockId(id), s.request.offset, s.request.length, kind)) granted(id, out);
}

void PrimaryCore::granted(OpId id, Actions& out) {
  Slot& s = slot(id);
  if (s.is_copy) {
    s.stage = Stage::running;
    s.local_pending = true;
    ++local_in_flight_;
    out.emplace_back(Kind::read_copy, id);
    return;
  }
  if (stopped()) {
    s.stage = Stage::granted;
    held_.granted.push_back(id);
    return;
  }
  launch(id, out);
}

void PrimaryCore::launch(OpId id, Actions& out) {
  if (!announce(id, out)) return;
  Slot& s = slot(id);
  if (s.rescue == Rescue::writing) return write_back(id, out);
  const DiskRequest& r = s.request;
  s.stage = Stage::running;
  if (r.op != DiskOp::read) {
    const bool skipped = !holds(Rule::partner_gets_every_write) ||
                         (!holds(Rule::zero_reaches_partner) && r.may_unmap);
    if (streaming() && !skipped) {
      const bool waits = holds(Rule::write_needs_partner);
      PrimaryAction a(Kind::send, id);
      const bool is_write = r.op == DiskOp::write;
      a.frame = next_frame(is_write ? FrameType::write : FrameType::zero,
                           {Pending::Kind::op, waits ? id : no_op, FrameType::ack, {}});
      a.frame.offset = r.offset;
      a.frame.length = r.length;
      a.frame.disk = r.disk;
      a.frame.fua = r.fua && holds(Rule::fua_reaches_partner);
      a.frame.may_unmap = r.may_unmap && !is_write;
      s.partner_pending = waits;
      out.push_back(std::move(a));  // before the local leg: the wire is the longer way
    } else if (!streaming()) {
      marks_.set(r.disk, r.offset, r.length);
    }
  }
  s.local_pending = true;
  ++local_in_flight_;
  out.emplace_back(Kind::submit_local, id);
}

void PrimaryCore::local_done(OpId id, int error, Actions& out) {
  Slot& s = slot(id);
  HAVM_ASSERT(s.local_pending && !s.is_copy, "a local leg ended that was not started");
  s.local_pending = false;
  if (!open_) {
    drop_request(id, out);
    local_ended(out);
    return;
  }
  local_ended(out);
  if (error != 0) {
    if (fetch(id, error, out)) return;
    s.stuck = true;
    fail(s.request.disk, error, out);
    return;
  }
  finish_if_ready(id, out);
}

void PrimaryCore::finish_if_ready(OpId id, Actions& out) {
  Slot& s = slot(id);
  const bool locally_done = !s.local_pending || !holds(Rule::write_needs_local);
  if (!locally_done || s.partner_pending || s.stuck) return;
  if (stopped()) {
    if (s.stage == Stage::finished) return;
    s.stage = Stage::finished;
    held_.finished.push_back(id);
    return;
  }
  finish(id, out);
}

void PrimaryCore::finish(OpId id, Actions& out) {
  Slot& s = slot(id);
  if (s.is_copy) {  // the flush of a verify
    end_copy(id, 0, out);
    return;
  }
  const DiskRequest r = s.request;
  const bool writes = changes_data(r) && r.length != 0;
  if (writes) disks_[r.disk].arrival_done(s.arrival);
  s.stage = Stage::finished;
  if (writes && generation_due_ && !streaming()) {
    generation_due_ = false;
    out.emplace_back(Kind::new_generation);
  }
  out.emplace_back(Kind::complete, id);
  release_lock(id, out);
  --guest_requests_;
  end_intent(id);
  free_slot(id);
  if (changes_data(r)) try_flush(r.disk, out);
}

void PrimaryCore::release_lock(OpId id, Actions& out) {
  RangeLock& lock = disks_[slot(id).request.disk].lock;
  if (!lock.contains(RangeLockId(id))) return;
  for (const RangeLockId next : lock.release(RangeLockId(id)))
    granted(static_cast<OpId>(next.value), out);
}

void PrimaryDisk::arrival_done(std::uint64_t arrival) {
  const auto it =
      std::lower_bound(writes.begin(), writes.end(), arrival,
                       [](const Arrival& a, std::uint64_t number) { return a.number < number; });
  HAVM_ASSERT(it != writes.end() && it->number == arrival && !it->done, "a write ended twice");
  it->done = true;
  while (!writes.empty() && writes.front().done)
    writes.pop_front();
}

void PrimaryCore::release_held(Actions& out) {
  if (stopped()) return;
  for (const OpId id : std::exchange(held_.finished, {}))
    finish(id, out);
  for (const OpId id : std::exchange(held_.granted, {}))
    launch(id, out);
  for (std::uint16_t i = 0; i < disks_.size(); ++i)
    finish_round_if_ready(i, out);
  for (const OpId id : std::exchange(held_.arrived, {}))
    start(id, out);
  for (std::uint16_t i = 0; i < disks_.size(); ++i)
    try_flush(i, out);
}

void PrimaryCore::fail(std::uint16_t disk, int error, Actions& out) {
  failed_ = true;
  PrimaryAction a(Kind::replica_failed);
  a.disk = disk;
  a.error = error;
  out.push_back(std::move(a));
}

// ---- flush -----------------------------------------------------------------------------------

// One round at a time and disk: all flushes that are ready share it, later ones share the next.
void PrimaryCore::try_flush(std::uint16_t disk, Actions& out) {
  Disk& d = disks_[disk];
  const bool joins = d.round_running && !holds(Rule::flush_gets_own_round);
  if ((d.round_running && !joins) || stopped()) return;
  const bool waits = !d.writes.empty() && holds(Rule::flush_waits_for_writes);
  const std::uint64_t oldest = waits ? d.writes.front().number : UINT64_MAX;
  while (!d.flush_waiting.empty() && slot(d.flush_waiting.front()).arrival < oldest) {
    slot(d.flush_waiting.front()).stage = Stage::running;
    d.round.push_back(d.flush_waiting.front());
    d.flush_waiting.pop_front();
  }
  if (joins || (d.round.empty() && !d.flush_wanted)) return;
  d.flush_wanted = false;
  d.round_running = true;
  d.round_mark = marks_.flush_started(disk);
  if (streaming()) {
    PrimaryAction a(Kind::send);
    a.frame = next_frame(FrameType::flush, {Pending::Kind::flush, disk, FrameType::ack, {}});
    a.frame.disk = disk;
    d.round_partner = holds(Rule::flush_needs_partner) && holds(Rule::write_needs_partner);
    d.covered.swap(d.acked);
    out.push_back(std::move(a));
  }
  if (!holds(Rule::flush_needs_local)) return finish_round_if_ready(disk, out);
  d.round_local = true;
  ++local_in_flight_;
  PrimaryAction a(Kind::flush_local);
  a.disk = disk;
  out.push_back(std::move(a));
}

void PrimaryCore::local_flushed(std::uint16_t disk, int error, Actions& out) {
  Disk& d = disks_[disk];
  HAVM_ASSERT(d.round_local, "a local flush ended that was not started");
  d.round_local = false;
  if (!open_) d.round_running = false;
  local_ended(out);
  if (!open_) return;
  if (error != 0) {
    d.round_stuck = true;
    fail(disk, error, out);
    return;
  }
  if (!holds(Rule::eviction_after_both)) marks_.flushed(disk, d.round_mark);
  finish_round_if_ready(disk, out);
}

void PrimaryCore::finish_round_if_ready(std::uint16_t disk, Actions& out) {
  Disk& d = disks_[disk];
  if (!d.round_running || d.round_local || d.round_partner || d.round_stuck || stopped()) return;
  d.round_running = false;
  marks_.flushed(disk, d.round_mark);
  for (const OpId id : std::exchange(d.round, {}))
    finish(id, out);
  go_on_logged(out);
  try_flush(disk, out);
}

// ---- slots -----------------------------------------------------------------------------------

PrimaryCore::Slot& PrimaryCore::slot(OpId id) {
  HAVM_ASSERT(id < slots_.size() && slots_[id].stage != Stage::free, "no such request");
  return slots_[id];
}

PrimaryCore::Slot& PrimaryCore::new_slot(OpId id) {
  HAVM_ASSERT(id < requests_max, "too many requests at once");
  if (id >= slots_.size()) slots_.resize(id + std::size_t{1});
  HAVM_ASSERT(slots_[id].stage == Stage::free, "a request id is used twice");
  slots_[id] = Slot{};
  return slots_[id];
}

void PrimaryCore::free_slot(OpId id) {
  if (slots_[id].is_copy) checks_.erase(id);
  slots_[id] = Slot{};
}

}  // namespace havm
