#include "vmrepl/session/secondary_core.hpp"

#include <algorithm>
#include <utility>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/rules.hpp"

namespace havm {

using Kind = SecondaryAction::Kind;

namespace {

template <class Wanted>
Wanted payload_or_default(const SecondaryCore::Payload& payload) {
  const auto* found = std::get_if<Wanted>(&payload);
  return found != nullptr ? *found : Wanted{};
}

bool only_reads(FrameType type) {
  return type == FrameType::hash || type == FrameType::read;
}

}  // namespace

SecondaryCore::SecondaryCore(HelloContext context, ReplicaRecord& record, const ReplicaMarks& marks,
                             TimePoint started)
    : context_(std::move(context)),
      record_(record),
      marks_(marks),
      started_(started),
      locks_(context_.disks.size()) {}

Epoch SecondaryCore::promised() const {
  const Epoch durable = record_.record().promised_epoch;
  return promising_ ? std::max(durable, *promising_) : durable;
}

// ---- the session -----------------------------------------------------------------------------

void SecondaryCore::hello(ConnectionId connection, const Hello& hello, Actions& out) {
  auto refusal = judge_hello(context_, record_.record(), promised(), is_owner_, hello);
  if (!refusal && !broken_.empty()) refusal = broken_;
  if (refusal) {
    SecondaryAction a(Kind::refuse, connection);
    a.text = *refusal;
    out.push_back(std::move(a));
    const bool is_ours = hello.vm_id == context_.vm_id && hello.node == context_.partner;
    if (is_owner_ && is_ours && hello.epoch > record_.record().epoch) {
      out.emplace_back(Kind::deposed);
      out.back().epoch = hello.epoch;
    }
    return;
  }
  if (waiting_) {
    SecondaryAction a(Kind::close, waiting_->connection);
    a.text = "a newer connection of the owner replaces this one";
    out.push_back(std::move(a));
  }
  if (session_) {
    SecondaryAction a(Kind::close, session_->connection);
    a.text = "a newer session of the owner replaces this one";
    out.push_back(std::move(a));
    end_session(out);
  }
  waiting_ = Waiting{connection, hello};
  when_quiet(out);
}

void SecondaryCore::admit(const Waiting& waiting, Actions& out) {
  // A promise may have come while the old session was ending.
  const auto refusal =
      judge_hello(context_, record_.record(), promised(), is_owner_, waiting.hello);
  if (refusal) {
    SecondaryAction a(Kind::refuse, waiting.connection);
    a.text = *refusal;
    out.push_back(std::move(a));
    return;
  }
  Session s;
  s.connection = waiting.connection;
  s.id = waiting.hello.session;
  s.epoch = waiting.hello.epoch;
  s.boot_id = waiting.hello.boot_id;
  s.owner = summary_of(waiting.hello);
  session_ = std::move(s);
  ++session_number_;
  record_.promise(waiting.hello.epoch);
  if (holds(Rule::promise_is_durable)) out.emplace_back(Kind::persist);
  out.emplace_back(Kind::send_hello_ok, waiting.connection);
  out.emplace_back(Kind::session_changed);
}

// Forgets the session: what of it waits is dropped, what runs ends without an ack.
void SecondaryCore::end_session(Actions& out) {
  session_.reset();
  sync_end_token_ = 0;
  std::vector<OpId> waiting;
  for (const auto& [id, op] : ops_)
    if (!op.running) waiting.push_back(id);
  for (const OpId id : waiting) {
    const std::uint16_t disk = ops_.at(id).header.disk;
    // It can only be that others of this loop become free; they are withdrawn in their turn.
    (void)locks_[disk].release(RangeLockId(id));
    ops_.erase(id);
    drop(id, out);
  }
  out.emplace_back(Kind::session_changed);
}

void SecondaryCore::drop(OpId id, Actions& out) {
  if (id == no_op) return;
  SecondaryAction a(Kind::drop);
  a.id = id;
  out.push_back(std::move(a));
}

void SecondaryCore::close_session(const std::string& reason, Actions& out) {
  if (waiting_) {
    SecondaryAction a(Kind::close, waiting_->connection);
    a.text = reason;
    out.push_back(std::move(a));
    waiting_.reset();
  }
  if (session_) protocol_error(reason, out);
}

void SecondaryCore::protocol_error(const std::string& why, Actions& out) {
  SecondaryAction a(Kind::close, session_->connection);
  a.text = why;
  out.push_back(std::move(a));
  end_session(out);
}

void SecondaryCore::closed(ConnectionId connection, Actions& out) {
  if (waiting_ && waiting_->connection == connection) waiting_.reset();
  if (session_ && session_->connection == connection) end_session(out);
}

// The end of the last operation is what a waiting hello and a promise wait for.
void SecondaryCore::when_quiet(Actions& out) {
  if (in_flight_ != 0) return;
  if (waiting_) {
    const Waiting waiting = *std::exchange(waiting_, std::nullopt);
    admit(waiting, out);
  }
  if (promising_ && promise_token_ == 0) {
    promise_token_ = next_token_++;
    // An owner's guest writes on, whatever has been flushed.
    if (!session_ && !is_owner_) rest_since_ = session_number_;
    if (!holds(Rule::promise_flushes)) return all_flushed(promise_token_, 0, out);
    SecondaryAction a(Kind::flush_all);
    a.token = promise_token_;
    out.push_back(std::move(a));
  }
}

void SecondaryCore::reply(FrameType type, Sequence sequence, Actions& out) {
  SecondaryAction a(Kind::send, session_->connection);
  a.frame.type = type;
  a.frame.session = session_->id;
  a.frame.sequence = sequence;
  a.frame.epoch = session_->epoch;
  out.push_back(std::move(a));
}

void SecondaryCore::frame(ConnectionId connection, const FrameHeader& header, OpId id,
                          TimePoint now, Actions& out, const Payload& payload) {
  if (!session_ || session_->connection != connection) {
    drop(id, out);
    return;
  }
  const bool raises = header.type == FrameType::epoch;
  const bool too_old = header.epoch < promised() && holds(Rule::promise_ends_session);
  if (header.session != session_->id || too_old || (!raises && header.epoch != session_->epoch)) {
    protocol_error("a frame of another session or epoch came", out);
    drop(id, out);
    return;
  }
  switch (header.type) {
    case FrameType::write:
    case FrameType::zero:
    case FrameType::flush:
    case FrameType::hash:
      data(header, id, out);
      return;
    case FrameType::read:
      if (session_->phase == Phase::synced) {
        data(header, id, out);
      } else {
        drop(id, out);
        protocol_error("a read came of a replica that is not complete", out);
      }
      return;
    case FrameType::lease_request:
      lease(header, now, out);
      return;
    case FrameType::epoch:
      new_epoch(header, out);
      return;
    case FrameType::sync_begin:
      sync_begin(header, payload_or_default<SyncBegin>(payload), out);
      return;
    case FrameType::sync_end:
      sync_end(header, payload_or_default<SyncEnd>(payload), out);
      return;
    case FrameType::bye:
      protocol_error("the owner said bye", out);
      return;
    case FrameType::hello:
    case FrameType::hello_ok:
    case FrameType::hello_refused:
    case FrameType::ack:
    case FrameType::hash_ok:
    case FrameType::data:
    case FrameType::lease_grant:
    case FrameType::lease_refused:
    case FrameType::epoch_ok:
    case FrameType::sync_begin_ok:
    case FrameType::sync_end_ok:
    case FrameType::sync_dirty:
      protocol_error("the owner sent a frame that is not the owner's to send", out);
      return;
  }
}

void SecondaryCore::lease(const FrameHeader& header, TimePoint now, Actions& out) {
  // The epoch gate in frame() has refused what is below a promise already (S5).
  last_grant_ = now;
  reply(FrameType::lease_grant, header.sequence, out);
}

void SecondaryCore::new_epoch(const FrameHeader& header, Actions& out) {
  if (session_->phase != Phase::synced || header.epoch <= session_->epoch) {
    protocol_error("a new epoch came before the end of the resync, or is not higher", out);
    return;
  }
  session_->epoch = header.epoch;
  record_.join(header.epoch);
  out.emplace_back(Kind::persist);
  reply(FrameType::epoch_ok, header.sequence, out);
  out.emplace_back(Kind::session_changed);
}

void SecondaryCore::sync_begin(const FrameHeader& header, const SyncBegin& begin, Actions& out) {
  if (session_->phase != Phase::fresh) {
    protocol_error("a second resync began in one session", out);
    return;
  }
  const SyncVerdict verdict = decide_sync(summary_of(record_, true), session_->owner, false);
  const bool too_short = verdict.mode == SyncMode::full && begin.mode == SyncMode::partial;
  if (verdict.mode == SyncMode::refuse || too_short) {
    protocol_error((too_short ? "a partial resync is not enough here: " : "") + verdict.reason,
                   out);
    return;
  }
  session_->phase = Phase::syncing;
  const bool has_own = record_.record().owner_epoch != Epoch() && begin.mode == SyncMode::partial;
  record_.begin_sync(session_->epoch, begin);
  if (holds(Rule::inconsistent_first)) out.emplace_back(Kind::persist);
  if (has_own && holds(Rule::partner_marks_count))
    out.emplace_back(Kind::send_dirty, session_->connection);
  if (!holds(Rule::own_set_until_uptodate)) out.emplace_back(Kind::forget_dirty);
  reply(FrameType::sync_begin_ok, header.sequence, out);
  out.emplace_back(Kind::session_changed);
}

void SecondaryCore::sync_end(const FrameHeader& header, const SyncEnd& end, Actions& out) {
  if (session_->phase != Phase::syncing) {
    protocol_error("the end of a resync came that is not in progress", out);
    return;
  }
  session_->phase = Phase::ending;
  session_->sync_end = header.sequence;
  session_->end = end;
  sync_end_token_ = next_token_++;
  if (!holds(Rule::uptodate_after_flush)) return all_flushed(sync_end_token_, 0, out);
  SecondaryAction a(Kind::flush_all);
  a.token = sync_end_token_;
  out.push_back(std::move(a));
}

// ---- data ------------------------------------------------------------------------------------

void SecondaryCore::data(const FrameHeader& header, OpId id, Actions& out) {
  HAVM_ASSERT(id != no_op && !ops_.contains(id), "a data frame without a request of its own");
  const bool flush = header.type == FrameType::flush;
  const bool disk_known = header.disk < context_.disks.size();
  const std::uint64_t size = disk_known ? context_.disks[header.disk].size_bytes : 0;
  const bool inside = flush || (header.length != 0 && header.offset <= size &&
                                header.length <= size - header.offset);
  if (!disk_known || !inside || session_->phase == Phase::fresh) {
    drop(id, out);
    protocol_error(session_->phase == Phase::fresh ? "data came before the start of the resync"
                                                   : "a range outside of the disk came",
                   out);
    return;
  }
  Op op;
  op.header = header;
  op.session_number = session_number_;
  ops_.emplace(id, op);
  const auto kind = only_reads(header.type) ? RangeLockKind::shared : RangeLockKind::exclusive;
  if (flush || locks_[header.disk].acquire(RangeLockId(id), header.offset, header.length, kind))
    run(id, out);
}

void SecondaryCore::run(OpId id, Actions& out) {
  Op& op = ops_.at(id);
  op.running = true;
  ++in_flight_;
  SecondaryAction a(op.header.type == FrameType::flush  ? Kind::flush_disk
                    : op.header.type == FrameType::hash ? Kind::hash
                    : op.header.type == FrameType::read ? Kind::read
                                                        : Kind::apply);
  a.id = id;
  a.disk = op.header.disk;
  out.push_back(std::move(a));
}

void SecondaryCore::local_done(OpId id, int error, Actions& out) {
  const auto it = ops_.find(id);
  HAVM_ASSERT(it != ops_.end() && it->second.running, "an operation ended that was not started");
  const Op op = it->second;
  const bool flush = op.header.type == FrameType::flush;
  ops_.erase(it);
  --in_flight_;
  if (error != 0) {
    SecondaryAction a(Kind::replica_failed);
    a.disk = op.header.disk;
    a.error = error;
    out.push_back(std::move(a));
    if (flush || op.header.fua) {
      // The kernel may have dropped pages that were acked long ago: this replica holds less than
      // the owner believes, and must not be started from.
      record_.lost_data();
      out.emplace_back(Kind::persist);
    }
  }
  if (session_ && op.session_number == session_number_) {
    reply(FrameType::ack, op.header.sequence, out);
    out.back().frame.status = static_cast<std::uint32_t>(error);
    out.back().frame.disk = op.header.disk;
  }
  ended(id, op, out);
}

// A failed read is the owner's to judge: this replica has lost no write by it.
void SecondaryCore::read_done(OpId id, int error, Actions& out) {
  const auto it = ops_.find(id);
  HAVM_ASSERT(it != ops_.end() && it->second.running, "a read ended that was not started");
  const Op op = it->second;
  HAVM_ASSERT(op.header.type == FrameType::read, "only a read has data");
  ops_.erase(it);
  --in_flight_;
  if (session_ && op.session_number == session_number_) {
    reply(FrameType::data, op.header.sequence, out);
    SecondaryAction& answer = out.back();
    answer.id = id;
    answer.frame.status = static_cast<std::uint32_t>(error);
    answer.frame.disk = op.header.disk;
    answer.frame.offset = op.header.offset;
    answer.frame.length = op.header.length;
  }
  ended(id, op, out);
}

void SecondaryCore::ended(OpId id, const Op& op, Actions& out) {
  if (op.header.type != FrameType::flush)
    for (const RangeLockId next : locks_[op.header.disk].release(RangeLockId(id)))
      run(static_cast<OpId>(next.value), out);
  when_quiet(out);
}

void SecondaryCore::all_flushed(std::uint64_t token, int error, Actions& out) {
  if (token == promise_token_) {
    const Epoch epoch = *promising_;
    promising_.reset();
    promise_token_ = 0;
    if (error != 0) {
      SecondaryAction a(Kind::promise_failed);
      a.error = error;
      out.push_back(std::move(a));
      return;
    }
    // A hello may have raised it further meanwhile.
    const Epoch highest = std::max(epoch, record_.record().promised_epoch);
    if (rest_since_ == session_number_)
      record_.promise_at_rest(highest);
    else
      record_.promise(highest);
    out.emplace_back(Kind::persist);
    out.emplace_back(Kind::promised);
    return;
  }
  if (!session_ || token != sync_end_token_) return;  // of a session that is gone
  sync_end_token_ = 0;
  if (error != 0) {
    protocol_error("the flush at the end of the resync failed", out);
    return;
  }
  session_->phase = Phase::synced;
  record_.end_sync(session_->epoch, session_->end);
  if (holds(Rule::uptodate_is_durable)) out.emplace_back(Kind::persist);
  out.emplace_back(Kind::forget_dirty);
  reply(FrameType::sync_end_ok, session_->sync_end, out);
  out.emplace_back(Kind::session_changed);
}

// ---- the promise -----------------------------------------------------------------------------

void SecondaryCore::promise(Epoch epoch, Actions& out) {
  HAVM_ASSERT(!promising_, "two promises at once");
  if (epoch < record_.record().promised_epoch) {
    SecondaryAction a(Kind::promise_failed);
    a.text = "epoch " + std::to_string(epoch.value) + " is lower than the promised epoch " +
             std::to_string(record_.record().promised_epoch.value);
    out.push_back(std::move(a));
    return;
  }
  promising_ = epoch;
  promise_token_ = 0;
  rest_since_.reset();
  if (waiting_ && waiting_->hello.epoch < epoch) {
    SecondaryAction a(Kind::refuse, waiting_->connection);
    a.text = "epoch " + std::to_string(epoch.value) + " is being promised";
    out.push_back(std::move(a));
    waiting_.reset();
  }
  if (session_ && session_->epoch < epoch && holds(Rule::promise_ends_session)) {
    // Refused rather than closed: the owner learns that it has been deposed.
    SecondaryAction a(Kind::refuse, session_->connection);
    a.text = "epoch " + std::to_string(epoch.value) + " has been promised";
    out.push_back(std::move(a));
    end_session(out);
  }
  if (session_) {
    // A session at the promised epoch goes on; there is no quiet moment to wait for.
    promise_token_ = next_token_++;
    SecondaryAction a(Kind::flush_all);
    a.token = promise_token_;
    out.push_back(std::move(a));
    return;
  }
  when_quiet(out);
}

}  // namespace havm
