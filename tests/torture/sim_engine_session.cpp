// The part of SimEngine that executes what the cores decide: PrimarySession and SecondarySession.
#include <algorithm>
#include <span>
#include <utility>

#include "tests/torture/sim_engine.hpp"
#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/rules.hpp"
#include "vmrepl/bitmap/cover_ranges.hpp"

namespace havm::torture {

namespace {

// As good a checksum as any (FNV-1a), of the sectors that have memory.
std::vector<GrainHash> hashes_of(std::uint64_t offset, std::uint64_t length,
                                 std::span<const std::uint64_t> values) {
  std::vector<GrainHash> all;
  for (const std::uint64_t end = offset + length; offset < end;
       offset += DirtyBitmap::grain_bytes) {
    const std::uint64_t piece = std::min(end - offset, DirtyBitmap::grain_bytes);
    const std::size_t sectors = place_of(offset, piece).count;
    GrainHash hash{0xcbf29ce484222325, sectors};
    for (const std::uint64_t value : values.first(sectors))
      hash.high = (hash.high ^ value) * 0x100000001b3;
    all.push_back(hash);
    values = values.subspan(sectors);
  }
  return all;
}

}  // namespace

// ---- local I/O -------------------------------------------------------------------------------

void SimEngine::flush_disk(std::uint16_t disk, std::function<void()> done) {
  auto& image = disk_.images[disk];
  later([&image, mark = image.begin_flush(), done = std::move(done)] {
    image.end_flush(mark);
    done();
  });
}

void SimEngine::write_sectors(std::uint16_t disk, Place place, std::vector<std::uint64_t> values,
                              bool fua, std::function<void()> done) {
  auto& image = disk_.images[disk];
  const auto id = image.begin_write(place.first, std::move(values));
  later([&image, id, fua, done = std::move(done)] {
    image.end_write(id, fua);
    done();
  });
}

OpId SimEngine::new_op() {
  if (free_ops_.empty()) return next_op_++;
  const OpId id = free_ops_.back();
  free_ops_.pop_back();
  return id;
}

void SimEngine::submit(std::uint64_t guest_id, const DiskRequest& what,
                       std::vector<std::uint64_t> values) {
  const OpId id = new_op();
  Op& op = ops_[id];
  op.what = what;
  op.guest_id = guest_id;
  op.place = place_of(what.offset, what.length);
  op.values = std::move(values);
  primary_->submit(id, what, primary_actions_);
  pump();
}

void SimEngine::submit_local(OpId id) {
  Op& op = ops_.at(id);
  const auto done = [this, id] { primary_->local_done(id, 0, primary_actions_); };
  switch (op.what.op) {
    case DiskOp::read:
      return later([this, id, done] {
        Op& read = ops_.at(id);
        const auto& from = disk_.images[read.what.disk].contents();
        const auto first = from.begin() + static_cast<std::ptrdiff_t>(read.place.first);
        read.values.assign(first, first + static_cast<std::ptrdiff_t>(read.place.count));
        done();
      });
    case DiskOp::write:
      return write_sectors(op.what.disk, op.place, op.values, op.what.fua, done);
    case DiskOp::zero:
      return write_sectors(op.what.disk, op.place, std::vector<std::uint64_t>(op.place.count, 0),
                           false, [this, id, done] {
                             const DiskRequest& what = ops_.at(id).what;
                             if (!what.fua) return done();
                             flush_disk(what.disk, done);
                           });
    case DiskOp::flush:
      break;
  }
  HAVM_ASSERT(false, "a flush is no request of its own on the local leg");
}

void SimEngine::complete(OpId id, int error) {
  const Op op = std::move(ops_.at(id));
  ops_.erase(id);
  free_ops_.push_back(id);
  world_.completed(node_, op.guest_id, error, op.values);
}

// ---- the owner's side ------------------------------------------------------------------------

void SimEngine::execute(const PrimaryAction& action) {
  using Kind = PrimaryAction::Kind;
  burn("before an action of the owner");
  switch (action.kind) {
    case Kind::take_data:
    case Kind::write_back:
    case Kind::repaired:
      return world_.violate("a read failed, which none does in this world");
    case Kind::submit_local:
      return submit_local(action.id);
    case Kind::flush_local:
      return flush_disk(action.disk, [this, disk = action.disk] {
        primary_->local_flushed(disk, 0, primary_actions_);
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
        if (resync_) ++world_.reach().cut_resyncs;
        resync_.reset();
      }
      if (world_.verbose())
        world_.trace(node_, std::string("session ") + to_text(action.state) + ": " + action.text);
      return;
    case Kind::close_session:
      return close_connection();
    case Kind::replica_failed:
      return world_.violate("a disk failed, which none does in this world");
    case Kind::new_generation:
      return begin_generation();
    case Kind::share_generation:
      record_.sync_end_sent();
      return persist();
    case Kind::write_log:
      return write_log(action.transaction);
    case Kind::save_marks:
      return save();
    case Kind::synced:
    case Kind::deposed:
    case Kind::renew_lease:
    case Kind::drained:
      return;
  }
}

void SimEngine::send(const PrimaryAction& action) {
  if (!link_) return;  // the loss of the session is about to be told to the core
  Message m;
  m.header = action.frame;
  const Record& own = record_.record();
  if (action.frame.type == FrameType::write) {
    // A copy may send a part of its range only.
    const Op& op = ops_.at(action.id);
    const Place part = place_of(action.frame.offset, action.frame.length);
    const auto first = op.values.begin() + static_cast<std::ptrdiff_t>(part.first - op.place.first);
    m.values.assign(first, first + static_cast<std::ptrdiff_t>(part.count));
  }
  if (action.frame.type == FrameType::sync_begin)
    m.text = encode(SyncBegin{sync_mode_, own.generation});
  if (action.frame.type == FrameType::sync_end)
    m.text = encode(SyncEnd{own.generation, own.generation_history});
  world_.send(*link_, node_, std::move(m));
}

bool SimEngine::may_connect() const {
  const bool may_attach = !primary_->partner_required() || !holds(Rule::never_reattach);
  return wanted_ && is_owner() && may_attach && !primary_->failed() && !link_ &&
         primary_->state() == SessionState::none;
}

SessionState SimEngine::session() const {
  const SessionState state = primary_->state();
  if (state == SessionState::none && wanted_ && !primary_->partner_required())
    return SessionState::connecting;
  return state;
}

void SimEngine::connected(ConnectionId link) {
  link_ = link;
  session_ = SessionId(link);
  if (record_.record().generation == 0) begin_generation();
  Hello hello;
  static_cast<ReplicaHistory&>(hello) = summary_of(record_, true);
  hello.vm = "torture";
  hello.vm_id = "torture";
  hello.node = node_ == 0 ? "a" : "b";
  hello.boot_id = boot_id_;
  hello.epoch = primary_->epoch();
  hello.session = session_;
  hello.disks = identities();
  hello.engine_version = "torture";
  Message m;
  m.header.type = FrameType::hello;
  m.header.session = session_;
  m.header.sequence = Sequence(1);
  m.header.epoch = primary_->epoch();
  m.text = encode(hello);
  world_.send(link, node_, std::move(m));
}

void SimEngine::close_connection() {
  if (!link_) return;
  world_.close(*link_, node_);
  link_.reset();
}

void SimEngine::drop_session(const std::string& reason) {
  close_connection();
  primary_->session_lost(reason, primary_actions_);
}

void SimEngine::on_hello_ok(const Message& message) {
  const auto ok = decode_hello_ok(message.text);
  if (!ok) return world_.violate("a hello_ok cannot be read: " + ok.error().message);
  const bool both = primary_->partner_required() && holds(Rule::never_reattach);
  if (ok.value().promised_epoch != primary_->epoch() || !is_owner() || both)
    return drop_session("the partner accepted another epoch than the present one");
  const SyncVerdict verdict = decide_sync(summary_of(record_, true), summary_of(ok.value()), true);
  if (verdict.mode == SyncMode::refuse) {
    world_.violate("a session is refused" +
                   std::string(verdict.split_brain ? " (split brain): " : ": ") + verdict.reason);
    return drop_session(verdict.reason);
  }
  sync_mode_ = verdict.mode;
  if (world_.verbose())
    world_.trace(node_, std::string(to_text(verdict.mode)) + " resync: " + verdict.reason);
  ++(verdict.mode == SyncMode::full ? world_.reach().full_resyncs : world_.reach().partial_resyncs);
  primary_->session_opened(session_, sync_mode_ == SyncMode::full, primary_actions_);
  primary_->lease_due(from_ns(1), primary_actions_);
}

void SimEngine::on_sync_dirty(const Message& message) {
  const auto bytes = bytes_of(message.text);
  const auto ranges = decode_ranges(bytes, disk_bytes);
  if (!ranges) return world_.violate("a sync_dirty cannot be read: " + ranges.error().message);
  for (const ByteRange& r : ranges.value())
    primary_->partner_dirty(message.header.disk, r.offset, r.length, primary_actions_);
}

// ---- resync ----------------------------------------------------------------------------------

void SimEngine::begin_resync() {
  ++resync_number_;
  std::vector<const DirtyBitmap*> dirty;
  for (std::uint16_t disk = 0; disk < disks; ++disk)
    dirty.push_back(&primary_->marks().dirty(disk));
  resync_.emplace(std::move(dirty));
  fill_window();
}

void SimEngine::fill_window() {
  if (!resync_ || primary_->state() != SessionState::syncing) return;
  while (const auto next = resync_->peek()) {
    const std::uint64_t hole = std::min<std::uint64_t>(hole_at(next->offset), next->length);
    const std::uint64_t length = hole != 0 ? hole : 1 + world_.chance().pick(next->length);
    const OpId id = new_op();
    Op& op = ops_[id];
    op.copy = resync_->take(*next, length, hole != 0);
    op.resync_number = resync_number_;
    op.what.disk = op.copy.disk;
    op.place = place_of(op.copy.offset, op.copy.length);
    op.compares =
        sync_mode_ == SyncMode::partial && !op.copy.hole && op.copy.length <= hash_range_bytes_max;
    if (op.compares)
      primary_->compare_copy(id, {op.copy.disk, op.copy.offset, op.copy.length}, primary_actions_);
    else
      primary_->copy(id, op.copy.disk, op.copy.offset, op.copy.length, primary_actions_);
  }
  if (!resync_->finished()) return;
  primary_->resync_finished(primary_actions_);
  resync_.reset();
}

void SimEngine::read_copy(OpId id) {
  if (!ops_.at(id).verifies && ops_.at(id).place.count == 0)
    return primary_->copy_read(id, 0, true, primary_actions_);
  later([this, id] {
    Op& op = ops_.at(id);
    const auto& from = disk_.images[op.what.disk].contents();
    const auto first = from.begin() + static_cast<std::ptrdiff_t>(op.place.first);
    op.values.assign(first, first + static_cast<std::ptrdiff_t>(op.place.count));
    const bool zero = std::ranges::all_of(op.values, [](std::uint64_t v) { return v == 0; });
    if (!op.verifies && (zero || !op.compares))
      return primary_->copy_read(id, 0, zero, primary_actions_);
    primary_->compare_read(id, 0, hashes_of(op.copy.offset, op.copy.length, op.values),
                           primary_actions_);
  });
}

void SimEngine::copy_done(const PrimaryAction& action) {
  const Op op = std::move(ops_.at(action.id));
  ops_.erase(action.id);
  free_ops_.push_back(action.id);
  if (op.verifies) {
    if (action.error == 0) ++world_.reach().verifies;
    if (action.check.differing != 0)
      world_.violate(Violation::diverged, "a verify found that the live replicas differ");
    return;
  }
  if (!resync_ || op.resync_number != resync_number_ || action.error != 0) return;
  if (op.compares) {
    const auto all = (1U << grains_of(op.copy.length)) - 1;
    if (action.check.differing == 0) ++world_.reach().equal_copies;
    if (action.check.differing != 0 && action.check.differing != all)
      ++world_.reach().partial_copies;
  }
  resync_->done(op.copy);
  fill_window();
}

// One check of a verify: some grains around those that have memory.
void SimEngine::verify() {
  Chance& chance = world_.chance();
  const OpId id = new_op();
  Op& op = ops_[id];
  op.verifies = true;
  op.copy.disk = op.what.disk = static_cast<std::uint16_t>(chance.pick(disks));
  const std::uint64_t grain = offset_of(chance.pick(disk_sectors)) / DirtyBitmap::grain_bytes;
  op.copy.offset = grain * DirtyBitmap::grain_bytes;
  op.copy.length =
      static_cast<std::uint32_t>((1 + chance.pick(hash_grains_max)) * DirtyBitmap::grain_bytes);
  op.place = place_of(op.copy.offset, op.copy.length);
  primary_->verify(id, {op.copy.disk, op.copy.offset, op.copy.length}, chance.one_in(2),
                   primary_actions_);
}

// ---- the network -----------------------------------------------------------------------------

void SimEngine::receive(ConnectionId link, const Message& message) {
  const FrameHeader& header = message.header;
  if (link_ == link) {
    if (header.type == FrameType::hello_ok) {
      on_hello_ok(message);
    } else if (header.type == FrameType::hello_refused || header.type == FrameType::bye) {
      drop_session("the partner refuses or ends the session");
    } else if (header.type == FrameType::sync_dirty) {
      on_sync_dirty(message);
    } else {
      primary_->frame(header, primary_actions_, message.hashes);
    }
  } else if (header.type == FrameType::hello) {
    const auto hello = decode_hello(message.text);
    if (!hello) return world_.violate("a hello cannot be read: " + hello.error().message);
    hellos_[link] = header.session;
    secondary_->hello(link, hello.value(), secondary_actions_);
  } else if (hellos_.contains(link)) {
    OpId id = no_op;
    if (header.type == FrameType::write || header.type == FrameType::zero ||
        header.type == FrameType::flush || header.type == FrameType::hash) {
      id = next_request_++;
      requests_[id] = {header, message.values};
    }
    SecondaryCore::Payload payload;
    if (header.type == FrameType::sync_begin) payload = decode_sync_begin(message.text).value();
    if (header.type == FrameType::sync_end) payload = decode_sync_end(message.text).value();
    secondary_->frame(link, header, id, from_ns(1), secondary_actions_, payload);
  }
  pump();
}

void SimEngine::closed(ConnectionId link) {
  if (link_ == link) {
    link_.reset();
    primary_->session_lost("the connection ended", primary_actions_);
  } else if (hellos_.erase(link) != 0) {
    secondary_->closed(link, secondary_actions_);
  }
  pump();
}

// ---- the partner's side ----------------------------------------------------------------------

void SimEngine::execute(const SecondaryAction& action) {
  using Kind = SecondaryAction::Kind;
  burn("before an action of the secondary");
  switch (action.kind) {
    case Kind::persist:
      return persist();
    case Kind::send: {
      if (!hellos_.contains(action.connection)) return;
      demand_durable(action.frame.type);
      Message m;
      m.header = action.frame;
      m.hashes = action.hashes;
      return world_.send(action.connection, node_, std::move(m));
    }
    case Kind::send_hello_ok:
      return send_hello_ok(action.connection);
    case Kind::send_dirty:
      return send_dirty(action.connection);
    case Kind::forget_dirty:
      return forget_dirty();
    case Kind::refuse:
      return refuse(action.connection, action.text);
    case Kind::close:
      if (hellos_.erase(action.connection) != 0) world_.close(action.connection, node_);
      return;
    case Kind::apply:
      return apply(action.id);
    case Kind::hash:
      return hash(action.id);
    case Kind::drop:
      requests_.erase(action.id);
      return;
    case Kind::flush_disk:
      return flush_disk(action.disk, [this, id = action.id] {
        requests_.erase(id);
        secondary_->local_done(id, 0, secondary_actions_);
      });
    case Kind::flush_all:
      return flush_replica(
          [this, token = action.token] { secondary_->all_flushed(token, 0, secondary_actions_); });
    case Kind::promised:
      return end_command(true);
    case Kind::promise_failed:
      return end_command(false);
    case Kind::read:
      return world_.violate("the owner read, which it does only where a disk failed");
    case Kind::deposed:
      return primary_->freeze();
    case Kind::replica_failed:
      return world_.violate("a disk failed, which none does in this world");
    case Kind::session_changed:
      return;
  }
}

// What the record must say on disk before this is sent (S1, S3).
void SimEngine::demand_durable(FrameType type) {
  if (type == FrameType::hello_ok && written_.promised_epoch < secondary_->session_epoch())
    world_.violate("hello_ok before the promise was durable");
  if (type == FrameType::sync_begin_ok && written_.state != ReplicaState::inconsistent)
    world_.violate("a resync began on a replica that is not durably inconsistent");
  if (type == FrameType::sync_end_ok && written_.state != ReplicaState::uptodate)
    world_.violate("a resync ended on a replica that is not durably uptodate");
}

void SimEngine::apply(OpId id) {
  const Request& r = requests_.at(id);
  const Place place = place_of(r.header.offset, r.header.length);
  const bool is_write = r.header.type == FrameType::write;
  const auto done = [this, id] {
    requests_.erase(id);
    secondary_->local_done(id, 0, secondary_actions_);
  };
  if (is_write) return write_sectors(r.header.disk, place, r.values, r.header.fua, done);
  write_sectors(r.header.disk, place, std::vector<std::uint64_t>(place.count, 0), false,
                [this, id, done] {
                  const FrameHeader& header = requests_.at(id).header;
                  if (!header.fua) return done();
                  flush_disk(header.disk, done);
                });
}

void SimEngine::hash(OpId id) {
  later([this, id] {
    const FrameHeader header = requests_.at(id).header;
    requests_.erase(id);
    const Place place = place_of(header.offset, header.length);
    const auto values =
        std::span(disk_.images[header.disk].contents()).subspan(place.first, place.count);
    secondary_->hash_done(id, 0, hashes_of(header.offset, header.length, values),
                          secondary_actions_);
  });
}

void SimEngine::send_hello_ok(ConnectionId link) {
  const auto session = hellos_.find(link);
  if (session == hellos_.end()) return;
  demand_durable(FrameType::hello_ok);
  HelloOk ok;
  static_cast<ReplicaHistory&>(ok) = summary_of(record_, true);
  ok.node = node_ == 0 ? "a" : "b";
  ok.boot_id = boot_id_;
  ok.state = record_.record().state;
  ok.promised_epoch = record_.record().promised_epoch;
  ok.record_epoch = record_.record().epoch;
  ok.suspect = record_.suspect();
  Message m;
  m.header.type = FrameType::hello_ok;
  m.header.session = session->second;
  m.header.sequence = Sequence(1);
  m.header.epoch = secondary_->session_epoch();
  m.text = encode(ok);
  world_.send(link, node_, std::move(m));
}

void SimEngine::send_dirty(ConnectionId link) {
  const auto session = hellos_.find(link);
  if (session == hellos_.end()) return;
  for (std::uint16_t disk = 0; disk < disks; ++disk) {
    const auto ranges = cover_ranges(marks_.dirty(disk), ranges_max);
    if (ranges.empty()) continue;
    Message m;
    m.header.type = FrameType::sync_dirty;
    m.header.session = session->second;
    m.header.epoch = secondary_->session_epoch();
    m.header.disk = disk;
    m.text = std::string(text_of(encode_ranges(ranges)));
    world_.send(link, node_, std::move(m));
  }
}

void SimEngine::refuse(ConnectionId link, const std::string& reason) {
  const auto session = hellos_.find(link);
  if (session == hellos_.end()) return;
  HelloRefused refused;
  refused.reason = reason;
  refused.promised_epoch = secondary_->promised();
  Message m;
  m.header.type = FrameType::hello_refused;
  m.header.session = session->second;
  m.header.sequence = Sequence(1);
  m.header.epoch = refused.promised_epoch;
  m.text = encode(refused);
  if (world_.verbose()) world_.trace(node_, "refuses a session: " + reason);
  world_.send(link, node_, std::move(m));
  hellos_.erase(link);
  world_.close(link, node_);
}

}  // namespace havm::torture
