// The part of PrimaryCore that keeps the marks ahead of the data: activity log and saved bitmaps.
#include <utility>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/rules.hpp"
#include "vmrepl/session/primary_core.hpp"

namespace havm {

using Kind = PrimaryAction::Kind;

// True: the request may be started (P8). Else it comes back through go_on_logged().
bool PrimaryCore::announce(OpId id, Actions& out) {
  Slot& s = slot(id);
  const bool writes = changes_data(s.request) || s.rescue == Rescue::writing;
  if (!writes || s.logged) return true;
  admit(id);
  if (s.logged) return true;
  if (!holds(Rule::intent_before_data) && s.pinned) {
    start_transaction(out);
    return true;
  }
  s.stage = Stage::logging;
  logging_.push_back(id);
  start_transaction(out);
  if (!s.pinned) make_room(out);
  return false;
}

void PrimaryCore::admit(OpId id) {
  Slot& s = slot(id);
  const auto admission = marks_.admit(s.request.disk, s.request.offset, s.request.length);
  s.pinned = admission.kind != ReplicaMarks::Admission::Kind::full;
  s.logged = admission.kind == ReplicaMarks::Admission::Kind::logged;
  s.transaction = admission.transaction;
}

void PrimaryCore::end_intent(OpId id) {
  Slot& s = slots_[id];
  if (!s.pinned) return;
  marks_.release(s.request.disk, s.request.offset, s.request.length);
  s.pinned = false;
}

void PrimaryCore::start_transaction(Actions& out) {
  auto transaction = marks_.start_transaction();
  if (!transaction) return;
  PrimaryAction a(Kind::write_log);
  a.transaction = std::move(*transaction);
  ++local_in_flight_;
  out.push_back(std::move(a));
}

void PrimaryCore::log_written(std::uint64_t transaction, Actions& out) {
  marks_.transaction_done(transaction);
  local_ended(out);
  if (open_) go_on_logged(out);
}

// Launches whoever waited for the log and need not wait any longer, in order.
void PrimaryCore::go_on_logged(Actions& out) {
  std::vector<OpId> ready;
  std::vector<OpId> waiting;
  for (const OpId id : std::exchange(logging_, {})) {
    Slot& s = slot(id);
    if (!s.pinned)
      admit(id);
    else if (marks_.is_logged(s.transaction))
      s.logged = true;
    (s.logged ? ready : waiting).push_back(id);
  }
  logging_ = std::move(waiting);
  for (const OpId id : ready) {
    if (slot(id).is_copy) {
      repair(id, out);
    } else if (stopped()) {
      slot(id).stage = Stage::granted;
      held_.granted.push_back(id);
    } else {
      launch(id, out);
    }
  }
  start_transaction(out);
  make_room(out);
}

// The log is full: what was written is flushed, and where the partner lacks it the bitmaps are
// saved, so that extents may leave.
void PrimaryCore::make_room(Actions& out) {
  if (!marks_.starved()) return;
  if (marks_.save_wanted()) out.emplace_back(Kind::save_marks);
  for (std::uint16_t i = 0; i < disks_.size(); ++i) {
    disks_[i].flush_wanted = true;
    try_flush(i, out);
  }
}

void PrimaryCore::marks_saved(Actions& out) {
  if (!open_) return;
  begin_sync(out);
  go_on_logged(out);
}

// P10: a target that is half overwritten must find every bit set, also after a crash of the owner.
void PrimaryCore::begin_sync(Actions& out) {
  if (phase_ != Phase::opening || !stream_.begin_unsaved) return;
  if (!marks_.is_saved()) {  // the save that ended had begun before
    out.emplace_back(Kind::save_marks);
    return;
  }
  stream_.begin_unsaved = false;
  send_control(FrameType::sync_begin, FrameType::sync_begin_ok, out);
}

}  // namespace havm
