// What carries out the decisions of both cores in the session model: disks, channel, log and marks.
#include <algorithm>
#include <span>
#include <utility>

#include "tests/unit/vmrepl/session/session_model_world.hpp"

namespace havm {
namespace {

// A checksum is as good as any other here (FNV-1a).
std::vector<GrainHash> hashes_of(std::uint64_t offset, std::uint64_t length,
                                 std::span<const std::byte> data) {
  std::vector<GrainHash> all;
  while (length > 0) {
    const std::uint64_t piece = std::min<std::uint64_t>(length, DirtyBitmap::grain_bytes);
    const std::uint64_t bytes = on_disk(offset, piece).length;
    GrainHash hash{0xcbf29ce484222325, bytes};
    for (const std::byte b : data.first(bytes))
      hash.high = (hash.high ^ static_cast<std::uint64_t>(b)) * 0x100000001b3;
    all.push_back(hash);
    data = data.subspan(bytes);
    offset += piece;
    length -= piece;
  }
  return all;
}

}  // namespace

// ---- the movers -------------------------------------------------------------------------

void Model::settle() {
  bool more = true;
  while (more) {
    io_.restart();
    more = io_.poll() > 0;
    for (std::size_t i = 0; i < p_.size(); ++i)
      execute(PrimaryAction(p_[i]));
    for (std::size_t i = 0; i < s_.size(); ++i)
      execute(SecondaryAction(s_[i]));
    more = more || !p_.empty() || !s_.empty();
    p_.clear();
    s_.clear();
  }
}

void Model::deliver(std::uint64_t count) {
  for (std::uint64_t i = 0; i < count && !links_.empty(); ++i) {
    auto it = links_.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(pick(links_.size())));
    auto& [id, link] = *it;
    if (pick(2) == 0 && !link.to_b.empty()) {
      Message m = std::move(link.to_b.front());
      link.to_b.pop_front();
      if (link.b_open) arrive_at_b(id, m);
    } else if (!link.to_a.empty()) {
      Message m = std::move(link.to_a.front());
      link.to_a.pop_front();
      if (id == link_) arrive_at_a(m);
    } else if (!link.a_open && link.to_b.empty()) {
      if (link.b_open) secondary_->closed(id, s_);
      settle();
      links_.erase(id);
    } else if (!link.b_open && id == link_) {
      lose();
    }
    settle();
  }
}

void Model::arrive_at_b(std::uint64_t id, const Message& m) {
  if (m.is_hello) {
    Hello h;
    h.vm = "v";
    h.vm_id = "i";
    h.node = "a";
    h.epoch = m.header.epoch;
    h.session = m.header.session;
    h.disks = durable_.disks;
    static_cast<ReplicaHistory&>(h) = m.history;
    secondary_->hello(id, h, s_);
    return;
  }
  OpId op = no_op;
  if (m.header.type == FrameType::write || m.header.type == FrameType::zero ||
      m.header.type == FrameType::flush || m.header.type == FrameType::hash) {
    op = next_b_op_++;
    b_ops_[op] = m;
  }
  secondary_->frame(id, m.header, op, from_ns(1), s_, m.payload);
}

void Model::arrive_at_a(const Message& m) {
  if (!m.is_hello_ok) return primary_.frame(m.header, p_, m.hashes);
  if (primary_.state() != SessionState::none || primary_.partner_required() ||
      m.header.epoch != epoch_)
    return lose();
  HelloOk ok;
  static_cast<ReplicaHistory&>(ok) = m.history;
  ok.state = m.state;
  ok.suspect = m.suspect;
  const SyncVerdict verdict = decide_sync(summary_of(*record_a_, true), summary_of(ok), true);
  if (verdict.mode == SyncMode::refuse) return violate("refused: " + verdict.reason);
  if (verdict.mode == SyncMode::full && synced_once_)
    violate("a full resync without need: " + verdict.reason);
  mode_ = verdict.mode;
  primary_.session_opened(m.header.session, mode_ == SyncMode::full, p_);
}

void Model::write_log() {
  if (!log_in_flight_) return;
  const LogTransaction done = *std::exchange(log_in_flight_, std::nullopt);
  apply(done, table_);
  primary_.log_written(done.number, p_);
}

void Model::save() {
  if (!saving_) return;
  // What is written goes to disk block by block; this is the last moment of it.
  saved_ = *std::exchange(saving_, std::nullopt);
  marks_.save_done();
  primary_.marks_saved(p_);
  if (std::exchange(save_again_, false)) start_save();
}

void Model::start_save() {
  save_again_ = saving_.has_value();
  if (saving_) return;
  marks_.save_started();
  saving_ = marks_.dirty(0);
}

void Model::execute(PrimaryAction action) {
  using Kind = PrimaryAction::Kind;
  const OpId id = action.id;
  switch (action.kind) {
    case Kind::take_data:
    case Kind::write_back:
    case Kind::repaired:
      return violate("a read failed, which none does in this model");
    case Kind::submit_local: {
      Op& op = ops_.at(id);
      const auto done = [this, id](int e) { primary_.local_done(id, e, p_); };
      if (op.what.op == DiskOp::read)
        a_.read(op.place.offset, op.data, done);
      else if (op.what.op == DiskOp::write)
        a_.write(op.place.offset, op.data, op.what.fua, done);
      else
        a_.zero(op.place.offset, op.place.length, true, [this, id, done](int e) {
          if (e == 0 && ops_.at(id).what.fua) return a_.flush(done);
          done(e);
        });
      return;
    }
    case Kind::flush_local:
      return a_.flush([this](int e) { primary_.local_flushed(0, e, p_); });
    case Kind::send: {
      if (link_ == 0) return;
      Message m;
      m.header = action.frame;
      if (action.frame.type == FrameType::write) m.data = payload_of(action);
      const Record& own = record_a_->record();
      if (action.frame.type == FrameType::sync_begin) m.payload = SyncBegin{mode_, own.generation};
      if (action.frame.type == FrameType::sync_end)
        m.payload = SyncEnd{own.generation, own.generation_history};
      links_.at(link_).to_b.push_back(std::move(m));
      return;
    }
    case Kind::complete:
      if (action.error != 0) return violate("a request failed");
      return completed(id);
    case Kind::read_copy:
      return read_copy(id);
    case Kind::copy_done:
      return copy_done(id, action.check, action.error);
    case Kind::begin_resync:
      resync_.emplace(std::vector{&marks_.dirty(0)});
      ++outcome.resyncs;
      outcome.resynced_bytes += resync_->total_bytes();
      return fill_window();
    case Kind::close_session:
      if (link_ != 0) links_.at(link_).a_open = false;
      link_ = 0;
      return;
    case Kind::session_changed:
      if (action.state == SessionState::lost || action.state == SessionState::none) resync_.reset();
      return;
    case Kind::replica_failed:
      return violate("a disk failed, which none does in this model");
    case Kind::write_log:
      if (log_in_flight_) violate("two transactions of the log at once");
      ++outcome.transactions;
      log_in_flight_ = action.transaction;
      return;
    case Kind::save_marks:
      return start_save();
    case Kind::synced:
      synced_once_ = true;
      return;
    case Kind::new_generation:
      return record_a_->new_generation(++generations_);
    case Kind::share_generation:
      return record_a_->sync_end_sent();
    case Kind::deposed:
    case Kind::renew_lease:
    case Kind::drained:
      return;
  }
}

void Model::read_copy(OpId id) {
  Op& op = ops_.at(id);
  if (op.data.empty()) return primary_.copy_read(id, 0, true, p_);
  a_.read(op.place.offset, op.data, [this, id](int e) {
    const Op& read = ops_.at(id);
    const bool zero = std::all_of(read.data.begin(), read.data.end(),
                                  [](std::byte b) { return b == std::byte{0}; });
    if (!read.verifies && (zero || !read.compares)) return primary_.copy_read(id, e, zero, p_);
    primary_.compare_read(id, e, hashes_of(read.copy.offset, read.copy.length, read.data), p_);
  });
}

void Model::copy_done(OpId id, const CheckOutcome& check, int error) {
  const ResyncCopy copy = ops_.at(id).copy;
  const bool verifies = ops_.at(id).verifies;
  ops_.erase(id);
  free_ids_.push_back(id);
  if (verifies) {
    --verifying_;
    if (error == 0) ++outcome.verified;
    if (check.differing != 0)
      violate("a verify found a difference between replicas that are in sync");
    return;
  }
  if (error != 0 || !resync_) return;
  resync_->done(copy);
  fill_window();
}

std::vector<std::byte> Model::payload_of(const PrimaryAction& action) {
  const Op& op = ops_.at(action.id);
  if (op.copy.length == 0) return op.data;
  const ByteRange part = on_disk(action.frame.offset, action.frame.length);
  outcome.resent_bytes += action.frame.length;
  const auto begin = op.data.begin() + static_cast<std::ptrdiff_t>(part.offset - op.place.offset);
  return {begin, begin + static_cast<std::ptrdiff_t>(part.length)};
}

void Model::fill_window() {
  while (const auto next = resync_->peek()) {
    const OpId id = new_id();
    Op& op = ops_[id];
    const bool empty = on_disk(next->offset, next->length).length == 0;
    op.copy =
        resync_->take(*next, empty ? next->length : 1 + pick(next->length), empty || pick(2) == 0);
    op.place = on_disk(op.copy.offset, op.copy.length);
    op.data.resize(op.place.length);
    op.compares = mode_ == SyncMode::partial && op.copy.length <= hash_range_bytes_max;
    if (op.compares)
      primary_.compare_copy(id, {0, op.copy.offset, op.copy.length}, p_);
    else
      primary_.copy(id, 0, op.copy.offset, op.copy.length, p_);
  }
  if (!resync_->finished()) return;
  resync_.reset();
  primary_.resync_finished(p_);
}

void Model::execute(SecondaryAction action) {
  using Kind = SecondaryAction::Kind;
  const OpId id = action.id;
  const auto done = [this, id, life = b_life_](int e) {
    if (life == b_life_) secondary_->local_done(id, e, s_);
  };
  switch (action.kind) {
    case Kind::persist:
      durable_ = record_->record();
      return;
    case Kind::send:
    case Kind::send_hello_ok:
      return send_from_b(action);
    case Kind::refuse:
    case Kind::close:
      if (links_.contains(action.connection)) links_.at(action.connection).b_open = false;
      return;
    case Kind::apply: {
      Message& m = b_ops_.at(id);
      const ByteRange place = on_disk(m.header.offset, m.header.length);
      if (place.length == 0) return b_.read(0, {}, done);
      if (m.header.type == FrameType::write)
        return b_.write(place.offset, m.data, m.header.fua, done);
      const bool fua = m.header.fua;
      return b_.zero(place.offset, place.length, true, [this, fua, done](int e) {
        if (e == 0 && fua) return b_.flush(done);
        done(e);
      });
    }
    case Kind::hash:
      return hash_at_b(id);
    case Kind::flush_disk:
      return b_.flush(done);
    case Kind::flush_all:
      return b_.flush([this, token = action.token, life = b_life_](int e) {
        if (life == b_life_) secondary_->all_flushed(token, e, s_);
      });
    case Kind::promised:
    case Kind::promise_failed:
      promising_ = false;
      judge();  // the moment at which the partner may become owner
      return;
    case Kind::read:
      return violate("the owner read, which it does only where a disk failed");
    case Kind::replica_failed:
      return violate("a disk failed, which none does in this model");
    case Kind::send_dirty:
      return violate("a replica that never was owner has no marks");
    case Kind::forget_dirty:
    case Kind::drop:
    case Kind::session_changed:
    case Kind::deposed:
      return;
  }
}

void Model::send_from_b(const SecondaryAction& action) {
  const auto it = links_.find(action.connection);
  if (it == links_.end() || !it->second.b_open) return;
  Message m;
  m.header = action.frame;
  m.hashes = action.hashes;
  m.is_hello_ok = action.kind == SecondaryAction::Kind::send_hello_ok;
  if (m.is_hello_ok) {
    if (durable_.promised_epoch < secondary_->session_epoch())
      violate("hello_ok before the promise was durable");
    m.header.session = SessionId(action.connection);
    m.header.epoch = secondary_->session_epoch();
    m.history = summary_of(*record_, true);
    m.state = durable_.state;
    m.suspect = record_->suspect();
  }
  if (m.header.type == FrameType::sync_begin_ok && durable_.state != ReplicaState::inconsistent)
    violate("a resync began on a replica that is not durably inconsistent");
  if (m.header.type == FrameType::sync_end_ok && durable_.state != ReplicaState::uptodate)
    violate("a resync ended on a replica that is not durably uptodate");
  it->second.to_a.push_back(std::move(m));
}

void Model::hash_at_b(OpId id) {
  Message& m = b_ops_.at(id);
  const ByteRange place = on_disk(m.header.offset, m.header.length);
  m.data.resize(place.length);
  b_.read(place.offset, m.data, [this, id, life = b_life_](int e) {
    if (life != b_life_) return;
    const Message& asked = b_ops_.at(id);
    secondary_->hash_done(id, e, hashes_of(asked.header.offset, asked.header.length, asked.data),
                          s_);
  });
}

OpId Model::new_id() {
  if (free_ids_.empty()) free_ids_.push_back(next_id_++);
  const OpId id = free_ids_.front();
  free_ids_.pop_front();
  return id;
}

}  // namespace havm
