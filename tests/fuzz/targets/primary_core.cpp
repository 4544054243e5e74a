// PrimaryCore, driven by a guest, a disk that may fail and a partner that answers anything; every
// decision is compared with the invariants P1 to P11.
//
// Input: events, each a byte and its arguments. What the driver promises the core is kept here too.
#include "vmrepl/session/primary_core.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "tests/fuzz/targets/primary_seeds.hpp"
#include "tests/fuzz/targets/primary_world.hpp"

namespace havm::fuzz {
namespace {

using Kind = PrimaryAction::Kind;

// Those of the grains in `changed` are others.
std::vector<GrainHash> hashes_of(std::uint64_t length, std::uint32_t changed) {
  std::vector<GrainHash> hashes;
  for (std::size_t i = 0; i < grains_of(length); ++i)
    hashes.push_back({i, (changed >> i) & 1U});
  return hashes;
}

bool overlap(const DiskRequest& a, const DiskRequest& b) {
  return a.op != DiskOp::flush && b.op != DiskOp::flush && a.disk == b.disk &&
         a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}

}  // namespace

std::optional<OpId> World::free_id() const {
  for (OpId id = 0; id < ops_max; ++id)
    if (!ops_.contains(id)) return id;
  return std::nullopt;
}

// ---- events ----------------------------------------------------------------------------------

void World::step(Input& in) {
  now_ += std::chrono::milliseconds(1);
  held_before_ = core_.held();
  released_ = false;
  switch (in.below(16)) {
    case 0:
    case 1:
    case 2:
    case 3:
      submit(in);
      break;
    case 4:
    case 5:
    case 6:
      local(in);
      break;
    case 7:
      flush_done(in);
      break;
    case 8:
      session(in);
      break;
    case 9:
    case 10:
      copy(in);
      break;
    case 11:
      role(in);
      break;
    case 12:
      marks(in);
      break;
    default:
      answer(in);
      break;
  }
  execute();
}

void World::submit(Input& in) {
  const auto id = free_id();
  if (!id || !core_.is_open()) return;
  constexpr DiskOp kinds[] = {DiskOp::write, DiskOp::write, DiskOp::read, DiskOp::zero,
                              DiskOp::flush};
  Op op;
  op.what.op = kinds[in.below(std::size(kinds))];
  op.what.disk = static_cast<std::uint16_t>(in.below(disk_count));
  if (op.what.op != DiskOp::flush) {
    op.what.offset = some_offset(in);
    op.what.length = static_cast<std::uint32_t>(in.below(5)) * 16384;
  }
  const std::uint8_t flags = in.byte();
  op.what.fua = (flags & 1U) != 0;
  op.what.may_unmap = (flags & 2U) != 0;
  op.number = next_number_++;
  ops_[*id] = op;
  core_.submit(*id, op.what, actions_);
}

void World::local(Input& in) {
  std::vector<OpId> running;
  for (const auto& [id, op] : ops_)
    if (op.local_runs) running.push_back(id);
  if (running.empty()) return;
  end_local(running[in.below(running.size())], in.byte() < 4 ? EIO : 0);
}

void World::end_local(OpId id, int error) {
  Op& op = ops_.at(id);
  op.local_runs = false;
  op.local_ok = error == 0;
  const bool zero = id % 2 == 0 && !op.verifies;
  if (std::exchange(op.repairing, false))
    core_.written_back(id, error, actions_);
  else if (op.is_copy && (zero || !op.compares))
    core_.copy_read(id, error, zero, actions_);
  else if (op.is_copy)
    core_.compare_read(id, error, hashes_of(op.what.length, 0), actions_);
  else
    core_.local_done(id, error, actions_);
}

void World::flush_done(Input& in) {
  const auto disk = static_cast<std::uint16_t>(in.below(disk_count));
  DiskState& d = disks_[disk];
  if (!d.flushing) return;
  d.flushing = false;
  const int error = in.byte() < 4 ? EIO : 0;
  if (error == 0) d.flushed = d.local_flush;
  core_.local_flushed(disk, error, actions_);
}

void World::session(Input& in) {
  const bool may_connect = core_.is_open() && !core_.partner_required() && !core_.failed() &&
                           core_.state() == SessionState::none && !connected_;
  switch (in.below(4)) {
    case 0:
    case 1:
      if (!may_connect) return;
      session_ = session_.next();
      connected_ = true;
      full_ = in.flag();
      core_.partner_serves_reads(session_.value % 2 == 0);
      core_.session_opened(session_, full_, actions_);
      return;
    case 2:
      connected_ = false;
      core_.session_lost("a test", actions_);
      return;
    default:
      core_.lease_due(now_, actions_);
      return;
  }
}

// The end of a resync is told only when all that was dirty has been copied.
void World::copy(Input& in) {
  if (core_.state() == SessionState::live) return check(in);
  if (!resync_ || core_.state() != SessionState::syncing) return;
  if (resync_->finished()) {
    resync_.reset();
    core_.resync_finished(actions_);
    return;
  }
  const auto id = free_id();
  const auto next = resync_->peek();
  if (!id || !next) return;
  const std::size_t how = in.below(4);
  Op op;
  op.copy = resync_->take(*next, next->length, how > 1);
  op.session = session_;
  op.is_copy = true;
  op.compares = how == 0;
  op.what.op = DiskOp::read;
  op.what.disk = op.copy.disk;
  op.what.offset = op.copy.offset;
  op.what.length = op.copy.length;
  op.number = next_number_++;
  ops_[*id] = op;
  if (op.compares)
    core_.compare_copy(*id, {op.what.disk, op.what.offset, op.what.length}, actions_);
  else
    core_.copy(*id, op.what.disk, op.what.offset, op.what.length, actions_);
}

// Of a verify, or the flush at its end.
void World::check(Input& in) {
  const auto id = free_id();
  if (!id) return;
  Op op;
  op.is_copy = op.compares = op.verifies = true;
  op.what.disk = static_cast<std::uint16_t>(in.below(disk_count));
  op.number = next_number_++;
  const std::size_t what = in.below(8);
  if (what == 7) {
    op.what.op = DiskOp::flush;
    ops_[*id] = op;
    core_.verify_flush(*id, op.what.disk, actions_);
    return;
  }
  op.what.op = DiskOp::read;
  op.what.offset = some_offset(in) / DirtyBitmap::grain_bytes * DirtyBitmap::grain_bytes;
  op.what.length = static_cast<std::uint32_t>(1 + what % 2) * DirtyBitmap::grain_bytes;
  ops_[*id] = op;
  core_.verify(*id, {op.what.disk, op.what.offset, op.what.length}, what < 4, actions_);
}

void World::role(Input& in) {
  const std::size_t what = in.below(8);
  if (!core_.is_open()) {
    if (!core_.is_drained()) return;
    epoch_ = epoch_.next();
    for (DiskState& d : disks_)
      d.unflushed = d.covered = {};
    generation_due_ = in.flag();
    core_.open(epoch_, generation_due_);
    return;
  }
  if (what < 3 && core_.can_grow()) {
    core_.grow_prepare();
  } else if (what < 5 && core_.partner_required() && core_.state() != SessionState::live &&
             epoch_ == core_.epoch()) {
    epoch_ = epoch_.next();
    core_.grow_commit(epoch_, actions_);
    // Once for each grow, as the record's mark has it.
    epoch_ = epoch_.next();
  } else if (what == 5) {
    core_.freeze();
  } else if (what == 6) {
    epoch_ = epoch_.next();
    released_ = true;
    core_.shrink(epoch_, actions_);
  } else if (what == 7 && in.below(4) == 0) {
    released_ = true;
    core_.close(actions_);
  }
}

// The activity log and the bitmaps on disk, and what the partner says of its own.
void World::marks(Input& in) {
  switch (in.below(4)) {
    case 0:
      return end_log();
    case 1:
      if (!save_wanted_ || marks_.is_saving()) return;
      save_wanted_ = false;
      marks_.save_started();
      return;
    case 2:
      if (!marks_.is_saving()) return;
      marks_.save_done();
      core_.marks_saved(actions_);
      return;
    default:
      core_.partner_dirty(static_cast<std::uint16_t>(in.below(disk_count + 1)), some_offset(in),
                          in.below(5) * 2 * extent, actions_);
      return;
  }
}

void World::end_log() {
  if (!log_write_) return;
  const LogTransaction t = *std::exchange(log_write_, std::nullopt);
  for (const LogSlot& update : t.updates)
    log_.at(update.slot) = update.extent;
  core_.log_written(t.number, actions_);
}

// ---- the partner -----------------------------------------------------------------------------

namespace {

FrameType right_answer(FrameType question) {
  switch (question) {
    case FrameType::read:
      return FrameType::data;
    case FrameType::lease_request:
      return FrameType::lease_grant;
    case FrameType::epoch:
      return FrameType::epoch_ok;
    case FrameType::sync_begin:
      return FrameType::sync_begin_ok;
    case FrameType::sync_end:
      return FrameType::sync_end_ok;
    case FrameType::hash:
      return FrameType::hash_ok;
    default:
      return FrameType::ack;
  }
}

}  // namespace

void World::answer(Input& in) {
  if (!connected_) return;
  constexpr FrameType types[] = {FrameType::ack,           FrameType::lease_grant,
                                 FrameType::lease_refused, FrameType::epoch_ok,
                                 FrameType::sync_begin_ok, FrameType::sync_end_ok};
  const std::uint8_t odd = in.byte();
  FrameHeader h;
  h.session = session_;
  h.epoch = epoch_;
  std::optional<Sent> question;
  std::vector<GrainHash> hashes;
  if (odd < 245 && !unanswered_.empty()) {
    const std::size_t which = in.below(unanswered_.size());
    question = unanswered_[which];
    unanswered_.erase(unanswered_.begin() + static_cast<std::ptrdiff_t>(which));
    h.sequence = question->frame.sequence;
    h.type = right_answer(question->frame.type);
    if (odd < 4) h.status = EIO;
    if (h.type == FrameType::data) {
      h.disk = question->frame.disk;
      h.offset = question->frame.offset;
      h.length = odd == 5 ? 512 : question->frame.length;
    }
    if (odd == 4 && h.type == FrameType::lease_grant) h.type = FrameType::lease_refused;
    if (h.type == FrameType::hash_ok) {
      h.disk = question->frame.disk;
      h.offset = question->frame.offset;
      h.length = question->frame.length;
      if (odd == 5) h.offset += DirtyBitmap::grain_bytes;
      if (h.status == 0) hashes = hashes_of(odd == 6 ? 0 : h.length, odd % 4U);
    }
  } else {
    h.type = types[in.below(std::size(types))];
    h.sequence = Sequence(odd == 255 ? in.number(8) : in.byte());
    if (odd == 254) h.session = session_.next();
    // Perhaps it answers something after all.
    for (const Sent& s : unanswered_)
      if (s.frame.sequence == h.sequence && right_answer(s.frame.type) == h.type &&
          h.session == session_)
        question = s;
    std::erase_if(unanswered_, [&](const Sent& s) { return s.frame.sequence == h.sequence; });
  }
  if (question) answered(*question, h);
  core_.frame(h, actions_, hashes);
}

// Before the core is told: what is true from here.
void World::answered(const Sent& question, const FrameHeader& answer) {
  // The end of a resync flushes there all that was written before the stream began.
  if (question.frame.type == FrameType::sync_end && answer.type == FrameType::sync_end_ok)
    for (DiskState& d : disks_)
      d.partner_flush = std::max(d.partner_flush, before_stream_);
  if (answer.type != FrameType::ack || answer.status != 0) return;
  DiskState& d = disks_[question.frame.disk];
  if (question.frame.type == FrameType::flush) {
    d.partner_flush = question.number;
    d.covered.clear();
    return;
  }
  const auto op = ops_.find(question.op);
  if (question.repairs) d.unflushed.push_back({question.frame.offset, question.frame.length});
  if (op == ops_.end() || op->second.is_copy) return;
  op->second.acked = true;
  if (!op->second.what.fua) d.unflushed.push_back({question.frame.offset, question.frame.length});
}

// ---- what the core decided -------------------------------------------------------------------

void World::execute() {
  while (!actions_.empty())
    for (const PrimaryAction& action : std::exchange(actions_, {}))
      execute(action);
  FUZZ_CHECK(core_.partner_required() || core_.state() != SessionState::live,
             "a live partner is required");
  const auto guest = static_cast<std::size_t>(
      std::ranges::count_if(ops_, [](const auto& o) { return !o.second.is_copy; }));
  FUZZ_CHECK(core_.guest_requests() == guest, "every request is known until it completes");
}

void World::execute(const PrimaryAction& action) {
  switch (action.kind) {
    case Kind::submit_local:
      return launched(action.id, false);
    case Kind::flush_local:
      FUZZ_CHECK(!disks_[action.disk].flushing, "one flush at a time");
      disks_[action.disk].flushing = true;
      disks_[action.disk].local_flush = next_number_ - 1;
      return;
    case Kind::send:
      return sent(action);
    case Kind::take_data:
      FUZZ_CHECK(ops_.at(action.id).what.op == DiskOp::read && !ops_.at(action.id).local_runs,
                 "data is for a read whose own leg has ended (P11)");
      ops_.at(action.id).fetched = true;
      return;
    case Kind::write_back:
      FUZZ_CHECK(ops_.at(action.id).fetched, "what is written is the partner's data (P11)");
      launched(action.id, false);
      check_logged(ops_.at(action.id));
      ops_.at(action.id).repairing = true;
      return;
    case Kind::repaired:
      FUZZ_CHECK(action.error != 0, "what is repaired was bad");
      return;
    case Kind::complete:
      return completed(action);
    case Kind::read_copy:
      FUZZ_CHECK(ops_.at(action.id).is_copy, "a copy is a copy");
      return launched(action.id, false);
    case Kind::copy_done:
      FUZZ_CHECK(ops_.at(action.id).is_copy && !ops_.at(action.id).local_runs,
                 "a copy ends after its read");
      if (ops_.at(action.id).what.op == DiskOp::flush && action.error == 0)
        check_flush(ops_.at(action.id));
      if (resync_ && action.error == 0 && ops_.at(action.id).session == session_)
        resync_->done(ops_.at(action.id).copy);
      ops_.erase(action.id);
      return;
    case Kind::begin_resync:
      resync_.emplace(std::vector<const DirtyBitmap*>{&marks_.dirty(0), &marks_.dirty(1)});
      before_stream_ = next_number_ - 1;
      return;
    case Kind::session_changed:
      if (action.state == SessionState::lost || action.state == SessionState::none) lost();
      return;
    case Kind::close_session:
      FUZZ_CHECK(!action.text.empty(), "an end has a reason");
      connected_ = false;
      return;
    case Kind::renew_lease:
      FUZZ_CHECK(action.time < now_ + Duration(1), "a grant is for a request that was sent");
      return;
    case Kind::synced:
      FUZZ_CHECK(marks_.dirty_bytes() == 0, "what was dirty is durable there (P6)");
      return;
    case Kind::deposed:
    case Kind::replica_failed:
      return;
    case Kind::drained:
      FUZZ_CHECK(core_.is_drained(), "drained is said when it is so");
      return;
    case Kind::new_generation:
      FUZZ_CHECK(generation_due_, "a generation begins only when one is due");
      generation_due_ = false;
      return;
    case Kind::share_generation:
      generation_due_ = true;
      return;
    case Kind::write_log:
      FUZZ_CHECK(!log_write_, "one transaction of the log at a time");
      log_write_ = action.transaction;
      return;
    case Kind::save_marks:
      save_wanted_ = true;
      return;
  }
}

void World::launched(OpId id, bool leg_to_partner) {
  FUZZ_CHECK(ops_.contains(id), "only requests that came are launched");
  Op& op = ops_.at(id);
  FUZZ_CHECK(leg_to_partner || !op.local_runs, "a request is launched once");
  const bool changes = changes_data(op.what);
  for (const auto& [other_id, other] : ops_) {
    const bool runs = other.local_runs || (other.sent && !other.acked && connected_);
    if (other_id == id || !runs || (!changes && !changes_data(other.what))) continue;
    FUZZ_CHECK(!overlap(op.what, other.what), "conflicting requests go one at a time (P4)");
  }
  if (!leg_to_partner) op.local_runs = true;
  if (changes) check_logged(op);
}

void World::check_logged(const Op& op) const {
  const std::uint64_t end = op.what.offset + op.what.length;
  for (std::uint64_t i = op.what.offset / extent; i * extent < end; ++i) {
    const LogExtent wanted{op.what.disk, static_cast<std::uint32_t>(i)};
    FUZZ_CHECK(std::ranges::find(log_, std::optional(wanted)) != log_.end(),
               "no leg starts before its extents are durable in the log (P8)");
  }
}

void World::sent(const PrimaryAction& action) {
  const FrameHeader& h = action.frame;
  FUZZ_CHECK(connected_ && h.session == session_, "frames go into the open session");
  for (const Sent& s : unanswered_)
    FUZZ_CHECK(s.frame.sequence < h.sequence, "sequences rise");
  FUZZ_CHECK(h.type != FrameType::read || core_.state() == SessionState::synced ||
                 core_.state() == SessionState::live,
             "only a complete replica is read from (P11)");
  if (h.type == FrameType::flush) {
    disks_[h.disk].covered = std::exchange(disks_[h.disk].unflushed, {});
    for (const Sent& s : unanswered_)
      FUZZ_CHECK(s.frame.type != FrameType::flush || s.frame.disk != h.disk, "one flush at a time");
  }
  if (h.type == FrameType::sync_begin)
    FUZZ_CHECK(!full_ || marks_.is_saved(), "all bits are saved before a full resync (P10)");
  if (h.type == FrameType::sync_end)
    FUZZ_CHECK(generation_due_, "noted that the partner may hold the generation (P10)");
  bool repairs = false;
  if (action.id != no_op) {
    launched(action.id, true);
    Op& op = ops_.at(action.id);
    const std::uint64_t end = op.what.offset + op.what.length;
    const bool whole = h.offset == op.what.offset && h.length == op.what.length;
    const bool part = op.compares && h.offset >= op.what.offset && h.offset + h.length <= end;
    FUZZ_CHECK((whole || part) && h.disk == op.what.disk && (op.is_copy || h.fua == op.what.fua),
               "the partner gets what the own disk gets");
    op.sent = true;
    repairs = op.verifies && h.type == FrameType::write;
    if (repairs) check_logged(op);
    FUZZ_CHECK(!repairs || !core_.held(), "nothing is repaired while held");
  }
  unanswered_.push_back({h, action.id, next_number_ - 1, repairs});
}

void World::completed(const PrimaryAction& action) {
  FUZZ_CHECK(ops_.contains(action.id), "a request completes once");
  const Op op = ops_.at(action.id);
  FUZZ_CHECK(!op.is_copy && !op.local_runs, "a request completes after its own leg");
  ops_.erase(action.id);
  if (action.error != 0) {
    FUZZ_CHECK(action.error == ESHUTDOWN && !core_.is_open(), "the guest sees no error (P7)");
    return;
  }
  FUZZ_CHECK(core_.is_open() && !core_.failed(), "nothing succeeds after a failure (P7)");
  FUZZ_CHECK(released_ || !held_before_ || !core_.held(), "nothing completes while held (P3)");
  if (op.what.op == DiskOp::flush) return check_flush(op);
  if (op.what.length == 0) return;
  FUZZ_CHECK(op.local_ok, "what completes is on the own disk (P1)");
  if (changes_data(op.what) && core_.partner_required())
    FUZZ_CHECK(op.acked, "what completes is on both replicas (P1)");
  if (changes_data(op.what) && !op.acked && core_.state() == SessionState::none)
    FUZZ_CHECK(!generation_due_, "a write alone completes in a generation of its own (P9)");
}

void World::check_flush(const Op& flush) const {
  const DiskState& d = disks_[flush.what.disk];
  FUZZ_CHECK(d.flushed >= flush.number, "a flush completes when durable here (P1)");
  if (core_.partner_required())
    FUZZ_CHECK(d.partner_flush >= flush.number, "a flush completes when durable there (P1)");
  for (const auto& [id, other] : ops_)
    FUZZ_CHECK(other.is_copy || !changes_data(other.what) || other.what.length == 0 ||
                   other.what.disk != flush.what.disk || other.number > flush.number,
               "a flush waits for the writes before it (P5)");
}

// The partner may lack whatever no flush of its covered.
void World::lost() {
  for (std::uint16_t i = 0; i < disk_count; ++i) {
    DiskState& d = disks_[i];
    for (const auto* ranges : {&d.unflushed, &d.covered})
      for (const ByteRange& r : *ranges)
        FUZZ_CHECK(!core_.is_open() || marks_.dirty(i).any_in(r.offset, r.length),
                   "an ack is no durability (P6)");
    d.unflushed = d.covered = {};
  }
  for (auto& [id, op] : ops_) {
    if (core_.is_open() && op.sent && !op.is_copy)
      FUZZ_CHECK(marks_.dirty(op.what.disk).any_in(op.what.offset, op.what.length),
                 "what was in flight may be lacking (P6)");
    op.sent = op.acked = false;
  }
  for (const Sent& s : unanswered_)
    FUZZ_CHECK(!s.repairs || !core_.is_open() ||
                   marks_.dirty(s.frame.disk).any_in(s.frame.offset, s.frame.length),
               "half of a repair may be lacking (P6)");
  unanswered_.clear();
  connected_ = false;
  resync_.reset();
}

// Everything ends: nothing may be left over.
void World::finish() {
  released_ = true;
  if (core_.is_open()) core_.close(actions_);
  execute();
  for (std::uint16_t i = 0; i < disk_count; ++i) {
    if (!disks_[i].flushing) continue;
    disks_[i].flushing = false;
    core_.local_flushed(i, 0, actions_);
  }
  for (OpId id = 0; id < ops_max; ++id)
    if (ops_.contains(id) && ops_.at(id).local_runs) end_local(id, 0);
  end_log();
  execute();
  FUZZ_CHECK(ops_.empty() && core_.is_drained(), "every request ends");
}

void one_input(Bytes input) {
  Input in(input);
  World world;
  while (!in.empty())
    world.step(in);
  world.finish();
}

std::vector<std::string> seeds() {
  return primary_seeds();
}

}  // namespace havm::fuzz
