// SecondaryCore, driven by an owner that says anything: hellos, frames and losses of connections
// come from the input, and every decision is compared with the invariants S1 to S7.
//
// Input: events, each a byte and its arguments. What the driver promises the core (one hello for
// each connection, requests with ids of their own, one promise at a time) is kept here too.
#include "vmrepl/session/secondary_core.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "tests/fuzz/support/fuzz_target.hpp"

namespace havm::fuzz {
namespace {

using Kind = SecondaryAction::Kind;

constexpr std::uint64_t disk_bytes = 1U << 20;
constexpr std::size_t connections_max = 4;
constexpr std::size_t requests_max = 64;

std::vector<DiskIdentity> disks() {
  return {{"vda", disk_bytes}, {"vdb", disk_bytes / 2}};
}

Record first_record() {
  Record r;
  r.vm = "web1";
  r.vm_id = "id-1";
  r.node = "b";
  r.disks = disks();
  r.epoch = r.promised_epoch = Epoch(3);
  r.state = ReplicaState::outdated;
  r.boot_id = "boot-1";
  r.generation = 7;
  return r;
}

HelloContext context() {
  HelloContext c;
  c.vm = "web1";
  c.vm_id = "id-1";
  c.partner = "a";
  c.disks = disks();
  c.lease = std::chrono::milliseconds(6000);
  return c;
}

enum class Phase { fresh, syncing, synced };

struct Request {
  ConnectionId connection = 0;
  FrameHeader header;
  bool running = false;
};

bool is_flush(const Request& r) {
  return r.header.type == FrameType::flush;
}

bool is_hash(const Request& r) {
  return r.header.type == FrameType::hash;
}

bool only_reads(const Request& r) {
  return is_hash(r) || r.header.type == FrameType::read;
}

// So that their order matters.
bool overlap(const Request& a, const Request& b) {
  return !is_flush(a) && !is_flush(b) && !(only_reads(a) && only_reads(b)) &&
         a.header.disk == b.header.disk && a.header.offset < b.header.offset + b.header.length &&
         b.header.offset < a.header.offset + a.header.length;
}

class World {
 public:
  void step(Input& in);
  void finish();

 private:
  void hello(Input& in);
  void frame(Input& in);
  void promise(Input& in);
  void role(Input& in);
  void local_done(Input& in);
  void all_flushed(Input& in);
  void close(ConnectionId connection);
  void end_local(OpId id, int error);
  void end_flush(std::uint64_t token, int error);
  void execute();
  void execute(const SecondaryAction& action);
  void sent(const SecondaryAction& action);
  void applied(const SecondaryAction& action);
  void accepted(ConnectionId connection);
  void gone(ConnectionId connection);
  void persist();
  Epoch some_epoch(Input& in);
  ConnectionId some_connection(Input& in);
  [[nodiscard]] bool may_be_partial(const Hello& owner) const {
    const std::uint64_t g = generation_before_;
    return g != 0 && owner.dirty_known && (owner.generation == g || owner.base_generation == g);
  }
  [[nodiscard]] bool anything_running() const {
    return std::ranges::any_of(requests_, [](const auto& r) { return r.second.running; });
  }

  ReplicaRecord record_{first_record(), "boot-1"};
  Record durable_ = record_.record();
  ReplicaMarks marks_{
      {DirtyBitmap(disk_bytes), DirtyBitmap(disk_bytes / 2)}, ReplicaMarks::LogTable(4), 1};
  SecondaryCore core_{context(), record_, marks_, from_ns(0)};
  SecondaryCore::Actions actions_;
  TimePoint now_ = from_ns(1);

  std::map<ConnectionId, Hello> connections_;  // that are open, in order
  ConnectionId next_connection_ = 1;
  std::map<OpId, Request> requests_;  // handed in, neither dropped nor ended; ids rise
  OpId next_request_ = 0;
  std::vector<std::uint64_t> flushes_;
  std::optional<ConnectionId> session_;  // whose hello was accepted last and is not gone
  Phase phase_ = Phase::fresh;
  SyncBegin begin_;  // the last that came
  std::uint64_t generation_before_ = 0;
  std::optional<Epoch> promising_;
  Epoch highest_promise_;
  bool owner_ = false;
};

Epoch World::some_epoch(Input& in) {
  const std::uint64_t base = in.flag() ? record_.record().epoch.value : core_.promised().value;
  return Epoch(std::max<std::uint64_t>(base + in.below(4), 1) - 1);
}

ConnectionId World::some_connection(Input& in) {
  auto it = connections_.begin();
  std::advance(it, static_cast<std::ptrdiff_t>(in.below(connections_.size())));
  return it->first;
}

// ---- events ----------------------------------------------------------------------------------

void World::step(Input& in) {
  now_ += std::chrono::milliseconds(1);
  switch (in.below(16)) {
    case 0:
    case 1:
      hello(in);
      break;
    case 2:
      if (!connections_.empty()) close(some_connection(in));
      break;
    case 3:
      promise(in);
      break;
    case 4:
      role(in);
      break;
    case 5:
    case 6:
      local_done(in);
      break;
    case 7:
    case 8:
      all_flushed(in);
      break;
    case 9:
      core_.close_session("a test", actions_);
      break;
    default:
      frame(in);
      break;
  }
  execute();
}

void World::hello(Input& in) {
  if (connections_.size() >= connections_max) return;
  Hello h;
  h.vm = "web1";
  h.vm_id = "id-1";
  h.node = "a";
  h.boot_id = "boot-a";
  h.epoch = some_epoch(in);
  h.session = SessionId(next_connection_ * 7);
  h.lease = std::chrono::milliseconds(6000);
  h.disks = disks();
  switch (in.below(32)) {
    case 0:
      h.vm = "web2";
      break;
    case 1:
      h.node = "b";
      break;
    case 2:
      h.disks.pop_back();
      break;
    case 3:
      h.lease *= 2;
      break;
    case 4:
      h.epoch = Epoch(in.number(8));
      break;
    case 5:
      h.damaged = true;
      break;
    case 6:
      h.lack_epoch = h.epoch;
      break;
    default:
      h.generation = in.below(4) * 7;
      h.base_generation = in.below(3) * 7;
      h.history = {h.base_generation};
      h.dirty_known = in.flag();
      break;
  }
  const ConnectionId c = next_connection_++;
  connections_.emplace(c, h);
  core_.hello(c, h, actions_);
}

void World::frame(Input& in) {
  if (connections_.empty()) return;
  constexpr FrameType types[] = {FrameType::write, FrameType::write,         FrameType::zero,
                                 FrameType::flush, FrameType::sync_begin,    FrameType::sync_end,
                                 FrameType::epoch, FrameType::lease_request, FrameType::bye,
                                 FrameType::ack,   FrameType::hello_ok,      FrameType::read};
  // Mostly the session's own connection, right session and epoch, so that more than errors is seen.
  const std::uint8_t odd = in.byte();
  const ConnectionId c = session_ && odd < 240 ? *session_ : some_connection(in);
  FrameHeader h;
  h.type = types[in.below(std::size(types))];
  h.session = connections_.at(c).session;
  if (odd == 255) h.session = h.session.next();
  h.epoch = core_.session_epoch();
  if (h.type == FrameType::epoch || odd % 16 == 15) h.epoch = Epoch(h.epoch.value + in.below(3));
  h.sequence = Sequence(in.number(2));
  h.disk = static_cast<std::uint16_t>(in.below(odd == 254 ? 4 : 2));
  h.offset = in.number(2) * 512 % (disk_bytes / 2);
  h.length = static_cast<std::uint32_t>(1 + in.below(8)) * 512;
  if (odd == 253) h.offset = in.number(8);
  if (odd == 252) h.length = static_cast<std::uint32_t>(in.number(4));
  h.fua = odd % 4 == 1;
  if (h.type == FrameType::zero && odd % 8 == 6) {
    // No header of a hash says anything else.
    h.type = FrameType::hash;
    h.offset -= h.offset % DirtyBitmap::grain_bytes;
    h.length = std::clamp<std::uint32_t>(h.length, 1, hash_range_bytes_max);
  }
  OpId id = no_op;
  if (h.type == FrameType::write || h.type == FrameType::zero || h.type == FrameType::flush ||
      h.type == FrameType::hash || h.type == FrameType::read) {
    if (requests_.size() >= requests_max) return;
    if (h.type == FrameType::write && h.length == 0) return;  // no header says that
    if (h.type == FrameType::read && (h.length == 0 || h.length > payload_bytes_max)) return;
    id = next_request_++;
    requests_[id] = {c, h, false};
  }
  SecondaryCore::Payload payload;
  if (h.type == FrameType::sync_begin) {
    begin_ = {odd % 2 == 0 ? SyncMode::full : SyncMode::partial, connections_.at(c).generation};
    generation_before_ = record_.record().generation;
    payload = begin_;
  }
  if (h.type == FrameType::sync_end) payload = SyncEnd{connections_.at(c).generation, {7}};
  core_.frame(c, h, id, now_, actions_, payload);
}

void World::close(ConnectionId connection) {
  gone(connection);
  core_.closed(connection, actions_);
}

void World::promise(Input& in) {
  if (promising_) return;
  const Epoch epoch = some_epoch(in);
  promising_ = epoch;
  core_.promise(epoch, actions_);
}

// As the engine's commands do it, one at a time; a promise under way holds the others up.
void World::role(Input& in) {
  const Epoch epoch = some_epoch(in);
  const Record& r = record_.record();
  if (promising_) return;
  if (!owner_) {
    core_.set_owner(true);
    core_.close_session("this node becomes owner", actions_);
    execute();
    const bool may = core_.is_quiet() && epoch >= r.promised_epoch &&
                     r.state == ReplicaState::uptodate &&
                     !(record_.may_be_both() && epoch <= r.epoch) && epoch.value > 0;
    core_.set_owner(may);
    owner_ = may;
    if (!may) return;
    record_.serve(epoch);
  } else if (in.below(3) == 0 && epoch >= r.promised_epoch && epoch > r.epoch) {
    record_.grow_commit(epoch);
  } else if (in.below(2) == 0 && epoch >= r.promised_epoch && epoch > r.epoch) {
    record_.shrink(epoch);
  } else {
    record_.stand_by(in.flag());
    owner_ = false;
    core_.set_owner(false);
  }
  persist();
}

void World::local_done(Input& in) {
  std::vector<OpId> running;
  for (const auto& [id, r] : requests_)
    if (r.running) running.push_back(id);
  if (running.empty()) return;
  const OpId id = running[in.below(running.size())];
  end_local(id, in.byte() < 16 ? 28 : 0);
}

void World::end_local(OpId id, int error) {
  const FrameHeader header = requests_.at(id).header;
  requests_.erase(id);
  if (header.type == FrameType::read) return core_.read_done(id, error, actions_);
  if (header.type != FrameType::hash) return core_.local_done(id, error, actions_);
  std::vector<GrainHash> hashes;
  if (error == 0) hashes.resize(grains_of(header.length));
  core_.hash_done(id, error, std::move(hashes), actions_);
}

void World::all_flushed(Input& in) {
  if (flushes_.empty()) return;
  const std::size_t which = in.below(flushes_.size());
  end_flush(flushes_[which], in.byte() < 16 ? 5 : 0);
}

void World::end_flush(std::uint64_t token, int error) {
  std::erase(flushes_, token);
  core_.all_flushed(token, error, actions_);
}

// ---- what the core decided -------------------------------------------------------------------

void World::execute() {
  for (const SecondaryAction& action : std::exchange(actions_, {}))
    execute(action);
  FUZZ_CHECK(core_.has_session() == session_.has_value(), "one session, the accepted one (S1)");
  FUZZ_CHECK(core_.is_quiet() == !anything_running(), "quiet is when nothing runs");
  FUZZ_CHECK(durable_ == record_.record(), "every change of the record is made durable");
  FUZZ_CHECK(!(owner_ && session_), "an owner has no session (S7)");
}

void World::persist() {
  const Record& now = record_.record();
  FUZZ_CHECK(now.epoch >= durable_.epoch && now.promised_epoch >= durable_.promised_epoch &&
                 now.promised_epoch >= now.epoch,
             "epochs only rise (R1)");
  durable_ = now;
}

void World::execute(const SecondaryAction& action) {
  switch (action.kind) {
    case Kind::persist:
      return persist();
    case Kind::send:
      return sent(action);
    case Kind::send_hello_ok:
      return accepted(action.connection);
    case Kind::refuse:
    case Kind::close:
      FUZZ_CHECK(connections_.contains(action.connection), "only what is open is closed");
      FUZZ_CHECK(!action.text.empty(), "an end has a reason");
      return gone(action.connection);
    case Kind::apply:
    case Kind::hash:
    case Kind::read:
    case Kind::flush_disk:
      return applied(action);
    case Kind::drop:
      FUZZ_CHECK(requests_.contains(action.id) && !requests_.at(action.id).running,
                 "only what waits is dropped");
      requests_.erase(action.id);
      return;
    case Kind::flush_all:
      FUZZ_CHECK(session_ || !anything_running(),
                 "a promise is flushed when nothing of a closed session runs (S2)");
      flushes_.push_back(action.token);
      return;
    case Kind::promised:
      FUZZ_CHECK(promising_ && durable_.promised_epoch >= *promising_, "a promise is durable");
      highest_promise_ = std::max(highest_promise_, *promising_);
      promising_.reset();
      return;
    case Kind::promise_failed:
      FUZZ_CHECK(promising_.has_value(), "a promise was asked for");
      promising_.reset();
      return;
    case Kind::deposed:
      FUZZ_CHECK(owner_ && action.epoch > record_.record().epoch, "a higher epoch deposes (S7)");
      return;
    case Kind::send_dirty:
      FUZZ_CHECK(session_ == action.connection && phase_ == Phase::fresh,
                 "the own dirty set is told before the resync (S6)");
      return;
    case Kind::forget_dirty:
      FUZZ_CHECK(durable_.state == ReplicaState::uptodate,
                 "the own dirty set is kept until uptodate is durable (S6)");
      return;
    case Kind::session_changed:
    case Kind::replica_failed:
      return;
  }
}

void World::accepted(ConnectionId connection) {
  const Epoch epoch = connections_.at(connection).epoch;
  FUZZ_CHECK(!session_, "at most one session is open (S1)");
  FUZZ_CHECK(durable_.promised_epoch >= epoch && epoch >= highest_promise_ &&
                 (!promising_ || epoch >= *promising_),
             "accepted at an epoch not below any promise, durably promised (S1)");
  FUZZ_CHECK(!anything_running(), "nothing of the old session is applied any more (S2)");
  FUZZ_CHECK(!owner_, "an owner accepts no session (S7)");
  session_ = connection;
  phase_ = Phase::fresh;
}

void World::gone(ConnectionId connection) {
  connections_.erase(connection);
  if (session_ == connection) session_.reset();
}

void World::sent(const SecondaryAction& action) {
  FUZZ_CHECK(session_ == action.connection, "only the session is answered");
  const FrameHeader& h = action.frame;
  const bool has_data = h.type == FrameType::data && h.status == 0;
  (void)encode_header(h, has_data ? std::vector<std::byte>(h.length)
                                  : encode_hashes(action.hashes));  // it can be sent
  FUZZ_CHECK(h.session == connections_.at(action.connection).session, "in its own session");
  switch (h.type) {
    case FrameType::lease_grant:
      FUZZ_CHECK(core_.session_epoch() >= core_.promised() && !owner_,
                 "no lease below a promise (S5)");
      FUZZ_CHECK(core_.last_grant() == now_, "a grant is remembered");
      return;
    case FrameType::sync_begin_ok:
      FUZZ_CHECK(durable_.state == ReplicaState::inconsistent,
                 "durably inconsistent before a resync (S3)");
      FUZZ_CHECK(begin_.mode == SyncMode::full || may_be_partial(connections_.at(*session_)),
                 "a partial resync only when the owner's marks are kept against this one (S6)");
      phase_ = Phase::syncing;
      return;
    case FrameType::sync_end_ok:
      FUZZ_CHECK(durable_.state == ReplicaState::uptodate, "durably uptodate at its end (S3)");
      phase_ = Phase::synced;
      return;
    case FrameType::epoch_ok:
      FUZZ_CHECK(phase_ == Phase::synced && durable_.epoch == h.epoch, "a new epoch is durable");
      return;
    case FrameType::hash_ok:
      FUZZ_CHECK(phase_ != Phase::fresh, "nothing is compared before the start of a resync");
      return;
    case FrameType::data:
      FUZZ_CHECK(phase_ == Phase::synced, "only a complete replica is read from (S4)");
      return;
    default:
      FUZZ_CHECK(h.type == FrameType::ack, "a secondary sends nothing else");
      return;
  }
}

void World::applied(const SecondaryAction& action) {
  FUZZ_CHECK(requests_.contains(action.id), "only requests that came are applied");
  Request& r = requests_.at(action.id);
  FUZZ_CHECK(!r.running, "a request is applied once");
  FUZZ_CHECK(session_ == r.connection, "nothing of a closed session is applied (S2)");
  FUZZ_CHECK(action.disk == r.header.disk && action.disk < disks().size(), "a disk that exists");
  FUZZ_CHECK((action.kind == Kind::flush_disk) == is_flush(r), "a flush is a flush");
  FUZZ_CHECK((action.kind == Kind::hash) == is_hash(r), "a hash writes nothing");
  FUZZ_CHECK((action.kind == Kind::read) == (r.header.type == FrameType::read), "a read is a read");
  FUZZ_CHECK(action.kind != Kind::read || phase_ == Phase::synced,
             "only a complete replica is read from (S4)");
  FUZZ_CHECK(phase_ == Phase::synced || durable_.state == ReplicaState::inconsistent,
             "durably inconsistent while it is overwritten (S3)");
  FUZZ_CHECK(phase_ != Phase::fresh, "no data before the start of a resync (S3)");
  const std::uint64_t size = disks()[action.disk].size_bytes;
  FUZZ_CHECK(is_flush(r) || (r.header.length > 0 && r.header.offset <= size &&
                             r.header.length <= size - r.header.offset),
             "nothing outside of the disk is written");
  for (const auto& [id, other] : requests_)
    if (id < action.id && other.connection == r.connection)
      FUZZ_CHECK(!overlap(r, other), "overlapping writes go in the order of arrival (S4)");
  for (const auto& [id, other] : requests_)
    FUZZ_CHECK(!other.running || !overlap(r, other), "overlapping writes go one at a time (S4)");
  r.running = true;
}

// Everything ends: nothing may be left over.
void World::finish() {
  while (!connections_.empty()) {
    close(connections_.begin()->first);
    execute();
  }
  while (anything_running() || !flushes_.empty()) {
    if (!flushes_.empty()) end_flush(flushes_.front(), 0);
    for (const auto& [id, r] : requests_) {
      if (!r.running) continue;
      end_local(id, 0);
      break;
    }
    execute();
  }
  FUZZ_CHECK(requests_.empty(), "every request was applied or dropped");
  FUZZ_CHECK(!promising_, "every promise ends");
}

}  // namespace

void one_input(Bytes input) {
  Input in(input);
  World world;
  while (!in.empty())
    world.step(in);
  world.finish();
}

std::vector<std::string> seeds() {
  const std::string hello = packed(0, 1) + packed(1, 1) + packed(2, 1) + packed(9, 1) +
                            packed(1, 1) + packed(0, 1) + packed(1, 1);
  const auto frame = [](std::uint8_t type, std::uint8_t odd = 0) {
    return packed(10, 1) + packed(odd, 1) + packed(type, 1) + packed(5, 2) + packed(0, 1) +
           packed(16, 2) + packed(3, 1);
  };
  const auto epoch_frame = packed(10, 1) + packed(0, 1) + packed(6, 1) + packed(1, 1) +
                           packed(5, 2) + packed(0, 1) + packed(16, 2) + packed(3, 1);
  const std::string local = packed(5, 1) + packed(0, 1) + packed(99, 1);
  const std::string flushed = packed(7, 1) + packed(0, 1) + packed(99, 1);
  const std::string promise = packed(3, 1) + packed(0, 1) + packed(3, 1);
  const std::string serve = packed(4, 1) + packed(0, 1) + packed(3, 1);
  const std::string close = packed(2, 1) + packed(0, 1);
  const std::string synced = hello + frame(4) + frame(0) + local + frame(5) + flushed;
  return {synced + frame(7) + epoch_frame + frame(0) + frame(0) + local + local + frame(3) + local,
          synced + promise + flushed + frame(7),
          hello + frame(4) + frame(0) + frame(2) + hello + local + frame(7),
          synced + close + serve + hello + promise + flushed + serve + hello,
          synced + frame(0) + frame(2, 6) + frame(2, 6) + frame(0) + local + local + local + local,
          hello + frame(0) + hello + frame(4) + frame(0, 253) + hello + frame(8)};
}

}  // namespace havm::fuzz
