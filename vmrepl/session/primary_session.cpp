#include "vmrepl/session/primary_session.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <spdlog/spdlog.h>

#include "vmrepl/base/assert.hpp"

namespace havm {

// One disk of the group as the NBD server sees it.
class PrimarySession::Service final : public BlockService {
 public:
  Service(PrimarySession& session, std::uint16_t disk) : session_(session), disk_(disk) {}

  [[nodiscard]] std::uint64_t size_bytes() const override { return disk().size_bytes(); }
  [[nodiscard]] std::uint32_t alignment_bytes() const override { return disk().alignment_bytes(); }
  void submit(std::unique_ptr<BlockRequest> request) override {
    session_.submit(disk_, std::move(request));
  }
  Result<std::vector<Extent>> extents(std::uint64_t offset, std::uint64_t length) override {
    return disk().extents(offset, length);
  }

 private:
  [[nodiscard]] ReplicaDisk& disk() const { return *session_.disks_[disk_]; }

  PrimarySession& session_;
  std::uint16_t disk_;
};

PrimarySession::PrimarySession(boost::asio::any_io_executor executor, const EngineConfig& config,
                               std::string boot_id, std::vector<ReplicaDisk*> disks,
                               const ReplicaRecord& record, MarksDriver& marks, Callbacks callbacks)
    : executor_(std::move(executor)),
      config_(config),
      boot_id_(std::move(boot_id)),
      disks_(std::move(disks)),
      record_(record),
      marks_(marks),
      callbacks_(std::move(callbacks)),
      core_(marks.marks()),
      opener_(config.tls, config.node, config.partner, config.session_timeout),
      retry_(executor_),
      timer_(executor_),
      flow_(executor_, config.guest_p99, [this] { look_at_resync(); }),
      slow_(config.slow_partner),
      verify_(make_verify()) {
  for (std::size_t i = 0; i < disks_.size(); ++i)
    services_.push_back(std::make_unique<Service>(*this, static_cast<std::uint16_t>(i)));
  marks_.on_saved([this] {
    core_.marks_saved(actions_);
    pump();
  });
}

PrimarySession::~PrimarySession() = default;

BlockService& PrimarySession::service(std::size_t disk) {
  return *services_[disk];
}

SessionState PrimarySession::state() const {
  const SessionState state = core_.state();
  if (state == SessionState::none && wanted_ && !core_.partner_required())
    return SessionState::connecting;
  return state;
}

Duration PrimarySession::silence(TimePoint now) const {
  return connection_ ? now - connection_->last_heard() : Duration{0};
}

// ---- the owner role --------------------------------------------------------------------------

void PrimarySession::grow_commit(Epoch epoch) {
  core_.grow_commit(epoch, actions_);
  pump();
}

void PrimarySession::shrink(Epoch epoch) {
  core_.shrink(epoch, actions_);
  pump();
}

void PrimarySession::close() {
  wanted_ = false;
  retry_.cancel();
  core_.close(actions_);
  pump();
  close_connection("this node is no longer owner");  // one that was still saying hello
}

// ---- guest requests --------------------------------------------------------------------------

void PrimarySession::submit(std::uint16_t disk, std::unique_ptr<BlockRequest> request) {
  if (!core_.is_open()) {
    BlockDone done = std::move(request->done);
    done(std::move(request), ESHUTDOWN);
    return;
  }
  DiskRequest what;
  what.disk = disk;
  what.offset = request->offset;
  what.length = request->length;
  what.fua = request->fua;
  what.may_unmap = request->may_unmap;
  switch (request->op) {
    case BlockOp::read:
      what.op = DiskOp::read;
      break;
    case BlockOp::write:
      what.op = DiskOp::write;
      break;
    case BlockOp::flush:
      what.op = DiskOp::flush;
      break;
    case BlockOp::trim:
      what.op = DiskOp::zero;
      what.may_unmap = true;
      break;
    case BlockOp::write_zeroes:
      what.op = DiskOp::zero;
      break;
  }
  const OpId id = new_op();
  ops_[id].request = std::move(request);
  ops_[id].what = what;
  if (resync_ && changes_data(what)) ops_[id].sent = BootClock::now();
  core_.submit(id, what, actions_);
  pump();
}

OpId PrimarySession::new_op() {
  if (free_.empty()) {
    free_.push_back(static_cast<OpId>(ops_.size()));
    ops_.emplace_back();
  }
  const OpId id = free_.back();
  free_.pop_back();
  ops_[id].used = true;
  return id;
}

void PrimarySession::free_op(OpId id) {
  HAVM_ASSERT(ops_[id].used, "a request ended twice");
  ops_[id] = Op{};
  free_.push_back(id);
}

// Events that come while actions are executed append theirs behind; nothing is nested.
void PrimarySession::pump() {
  if (pumping_) return;
  pumping_ = true;
  for (std::size_t i = 0; i < actions_.size(); ++i) {
    PrimaryAction action = std::move(actions_[i]);
    execute(action);
  }
  actions_.clear();
  pumping_ = false;
}

void PrimarySession::execute(PrimaryAction& action) {
  using Kind = PrimaryAction::Kind;
  switch (action.kind) {
    case Kind::take_data:
      return take_data(action.id);
    case Kind::write_back:
      return write_back(action.id);
    case Kind::repaired:
      return callbacks_.repaired(action.disk, action.frame.offset, action.frame.length,
                                 action.error);
    case Kind::submit_local:
      return submit_local(action.id);
    case Kind::flush_local:
      return disks_[action.disk]->flush(
          [this, disk = action.disk, number = slow_.own_began(BootClock::now())](int error) {
            slow_.own_ended(number, BootClock::now());
            core_.local_flushed(disk, error, actions_);
            pump();
          });
    case Kind::send:
      return send(action);
    case Kind::complete:
      return complete(action.id, action.error);
    case Kind::read_copy:
      return read_copy(action.id);
    case Kind::copy_done:
      return copy_done(action);
    case Kind::begin_resync:
      return begin_resync();
    case Kind::session_changed:
      if (action.state == SessionState::lost || action.state == SessionState::none) {
        end_resync();
        verify_.session_lost(action.text);
        slow_.session_ended();
      }
      return callbacks_.session_changed(action.state, action.text);
    case Kind::close_session:
      return close_connection(action.text);
    case Kind::synced:
      return callbacks_.synced();
    case Kind::deposed:
      return callbacks_.deposed(Epoch());
    case Kind::replica_failed:
      return callbacks_.replica_failed(action.disk, action.error);
    case Kind::renew_lease:
      last_grant_sent_ = std::max(last_grant_sent_.value_or(action.time), action.time);
      return callbacks_.granted(action.time);
    case Kind::drained:
      return callbacks_.drained();
    case Kind::new_generation:
      return callbacks_.new_generation();
    case Kind::share_generation:
      return callbacks_.share_generation();
    case Kind::write_log:
      return marks_.write_log(action.transaction, [this, number = action.transaction.number] {
        core_.log_written(number, actions_);
        pump();
      });
    case Kind::save_marks:
      return marks_.save();
  }
}

void PrimarySession::send(const PrimaryAction& action) {
  if (!connection_) return;  // the loss of the session is about to be told to the core
  if (action.frame.type == FrameType::lease_request && !epoch_unanswered_) {
    connection_->send_urgent(action.frame);
    return;
  }
  note_sent(action.frame);
  if (action.frame.type != FrameType::write) return send_text(action);
  Op& op = ops_[action.id];
  if (!op.request) return send_copy(op, action.frame);
  op.frame_number = connection_->send(action.frame, std::as_const(op.request->data).span());
  op.is_sent = true;
}

void PrimarySession::send_text(const PrimaryAction& action) {
  const Record& own = record_.record();
  const bool knows_generations = peer_protocol_ >= protocol_generations;
  switch (action.frame.type) {
    case FrameType::epoch:
      epoch_unanswered_ = true;
      return connection_->send_text(action.frame, encode(EpochMessage{}));
    case FrameType::sync_begin:
      if (!knows_generations) break;
      return connection_->send_text(action.frame, encode(SyncBegin{sync_mode_, own.generation}));
    case FrameType::sync_end:
      if (!knows_generations) break;
      return connection_->send_text(action.frame,
                                    encode(SyncEnd{own.generation, own.generation_history}));
    default:
      break;
  }
  connection_->send(action.frame, {});
}

void PrimarySession::submit_local(OpId id) {
  Op& op = ops_[id];
  const DiskRequest& what = op.what;
  ReplicaDisk& disk = *disks_[what.disk];
  const auto done = [this, id](int error) { local_done(id, error); };
  if (what.op != DiskOp::read) op.own_number = slow_.own_began(BootClock::now());
  switch (what.op) {
    case DiskOp::read:
      return disk.read(what.offset, op.request->data.span().first(what.length), done);
    case DiskOp::write:
      return disk.write(what.offset, std::as_const(op.request->data).span(), what.fua, done);
    case DiskOp::zero:
      return disk.zero(what.offset, what.length, what.may_unmap, [this, id](int error) {
        if (error != 0 || !ops_[id].what.fua) return local_done(id, error);
        disks_[ops_[id].what.disk]->flush([this, id](int flushed) { local_done(id, flushed); });
      });
    case DiskOp::flush:
      break;  // flush_local is the action for that
  }
  HAVM_ASSERT(false, "a flush is no request of its own on the local leg");
}

void PrimarySession::local_done(OpId id, int error) {
  slow_.own_ended(ops_[id].own_number, BootClock::now());
  core_.local_done(id, error, actions_);
  pump();
}

void PrimarySession::complete(OpId id, int error) {
  Op& op = ops_[id];
  // The partner's ack says that the frame has left. Only without that (a lost session, or a request
  // completed without the partner) it may still wait here, with our buffer.
  if (op.is_sent && connection_ && !connection_->is_sent(op.frame_number))
    connection_->detach(op.frame_number);
  if (error == 0 && op.sent != TimePoint{})
    flow_.guest_write(op.sent, op.what.op == DiskOp::write ? op.what.length : 0);
  std::unique_ptr<BlockRequest> request = std::move(op.request);
  free_op(id);
  BlockDone done = std::move(request->done);
  done(std::move(request), error);
}

// ---- resync ----------------------------------------------------------------------------------

void PrimarySession::begin_resync() {
  ++resync_number_;
  std::vector<const DirtyBitmap*> dirty;
  for (std::uint16_t disk = 0; disk < disks_.size(); ++disk)
    dirty.push_back(&core_.marks().dirty(disk));
  resync_.emplace(std::move(dirty));
  spdlog::info("vm={} epoch={} {} resync of {} bytes begins", config_.vm, core_.epoch().value,
               to_text(sync_mode_), resync_->total_bytes());
  flow_.begin(resync_->total_bytes());
  progress_at_ = BootClock::now();
  fill_window();
}

void PrimarySession::end_resync() {
  resync_.reset();
  flow_.end();
}

void PrimarySession::look_at_resync() {
  if (!resync_) return;
  std::optional<TimePoint> oldest;
  for (const Op& op : ops_)
    if (op.used && op.sent != TimePoint{}) oldest = std::min(oldest.value_or(op.sent), op.sent);
  flow_.look(oldest);
  const TimePoint now = BootClock::now();
  if (now - progress_at_ >= std::chrono::seconds(1)) tell_progress(now);
  fill_window();
}

void PrimarySession::fill_window() {
  if (!resync_ || core_.state() != SessionState::syncing) return;
  while (const auto next = resync_->peek()) {
    if (!flow_.may_start()) break;
    const auto extents = disks_[next->disk]->extents(next->offset, next->length);
    const bool known = extents && !extents.value().empty();
    const bool hole = known && extents.value().front().hole;
    const std::uint64_t length = known ? extents.value().front().length : next->length;
    const OpId id = new_op();
    ops_[id].copy = resync_->take(*next, length, hole);
    ops_[id].resync_number = resync_number_;
    const ResyncCopy& copy = ops_[id].copy;
    flow_.started(copy.length, copy.hole);
    // A replica that is copied in full has little in common with this one: asking would cost it a
    // read of everything.
    ops_[id].compares = sync_mode_ == SyncMode::partial && partner_has_hashes() && !copy.hole &&
                        copy.length <= hash_range_bytes_max;
    if (ops_[id].compares)
      core_.compare_copy(id, {copy.disk, copy.offset, copy.length}, actions_);
    else
      core_.copy(id, copy.disk, copy.offset, copy.length, actions_);
  }
  if (resync_->finished() && slow_.may_end_resync(BootClock::now())) {
    tell_progress(BootClock::now());
    core_.resync_finished(actions_);
    end_resync();
  }
  pump();
}

// Under the range's lock: what reads as zeroes now is sent as such.
void PrimarySession::read_copy(OpId id) {
  Op& op = ops_[id];
  ReplicaDisk& disk = *disks_[op.copy.disk];
  if (op.verify_run == 0) {
    const auto extents = disk.extents(op.copy.offset, op.copy.length);
    const bool all_hole = extents && std::all_of(extents.value().begin(), extents.value().end(),
                                                 [](const Extent& e) { return e.hole; });
    if (all_hole) {
      core_.copy_read(id, 0, true, actions_);
      return;
    }
  }
  op.copy_data = Buffer(op.copy.length);
  disk.read(op.copy.offset, op.copy_data.span(), [this, id](int error) {
    copy_was_read(id, error);
    pump();
  });
}

void PrimarySession::copy_was_read(OpId id, int error) {
  const Op& op = ops_[id];
  const auto data = op.copy_data.span();
  const bool zero = error == 0 && data.front() == std::byte{0} &&
                    std::memcmp(data.data(), data.data() + 1, data.size() - 1) == 0;
  if (op.verify_run == 0 && (zero || !op.compares)) {
    core_.copy_read(id, error, zero, actions_);
    return;
  }
  core_.compare_read(id, error, error == 0 ? hash_grains(data) : std::vector<GrainHash>(),
                     actions_);
}

// Nothing of a copy waits to be sent when it ends: all its frames were acked, or their connection
// is gone.
void PrimarySession::send_copy(Op& op, const FrameHeader& frame) {
  const std::uint64_t begin = frame.offset - op.copy.offset;
  connection_->send(frame, op.copy_data.span().subspan(begin, frame.length));
  op.sent_bytes += frame.length;
}

void PrimarySession::copy_done(const PrimaryAction& action) {
  const Op op = std::move(ops_[action.id]);
  free_op(action.id);
  if (op.verify_run != 0) return verify_done(op, action);
  if (!resync_ || op.resync_number != resync_number_) return;
  if (action.error != 0) return;  // the session went away, and with it this resync
  resync_->done(op.copy);
  flow_.copied(resync_->done_bytes(), op.copy.length, op.sent_bytes);
  fill_window();
}

void PrimarySession::tell_progress(TimePoint now) {
  progress_at_ = now;
  callbacks_.progress(flow_.progress());
}

}  // namespace havm
