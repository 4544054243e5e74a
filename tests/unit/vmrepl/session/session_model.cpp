#include "tests/unit/vmrepl/session/session_model.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <span>
#include <tuple>
#include <vector>

#include <boost/asio/io_context.hpp>

#include "vmrepl/disk/memory_disk.hpp"
#include "vmrepl/resync/resync_core.hpp"
#include "vmrepl/session/primary_core.hpp"
#include "vmrepl/session/secondary_core.hpp"

namespace havm {
namespace {

constexpr std::uint64_t block_bytes = 512;
constexpr std::uint64_t blocks = 48;
constexpr std::uint64_t disk_bytes = block_bytes * blocks;
constexpr std::uint64_t group_blocks = 12;
constexpr std::uint32_t log_slots = 3;

// To the cores the blocks lie in groups across the boundaries of extents of the activity log, so
// that there are many dirty grains and extents and requests that cross from one to the next; the
// memory disks hold the blocks only, one after the other.
constexpr std::uint64_t core_disk_bytes =
    (blocks / group_blocks + 1) * ActivityLogCore::extent_bytes;
constexpr std::uint64_t place_of(std::uint64_t block) {
  const std::uint64_t boundary = (block / group_blocks + 1) * ActivityLogCore::extent_bytes;
  return boundary + block % group_blocks * block_bytes - group_blocks / 2 * block_bytes;
}
constexpr std::uint64_t grain_of(std::uint64_t block) {
  return place_of(block) / DirtyBitmap::grain_bytes * DirtyBitmap::grain_bytes;
}

// The blocks in a range of the cores' disk: on the memory disk they are one range too.
ByteRange on_disk(std::uint64_t offset, std::uint64_t length) {
  std::uint64_t first = 0;
  while (first < blocks && place_of(first) < offset)
    ++first;
  std::uint64_t end = first;
  while (end < blocks && place_of(end) < offset + length)
    ++end;
  return {first * block_bytes, (end - first) * block_bytes};
}

// Who wrote a block last, as far as the guest may tell. Arrival numbers order the writes of a
// block.
struct Write {
  std::uint64_t arrival = 0;
  std::uint64_t value = 0;  // first 8 bytes of each block written; 0: zeroes
};
using PerBlock = std::vector<std::uint64_t>;

struct Op {
  DiskRequest what;
  std::uint64_t arrival = 0;
  ResyncCopy copy;
  ByteRange place;  // on the memory disk
  std::vector<std::byte> data;
  bool compares = false;
  bool verifies = false;
  PerBlock completed_before;  // what had completed when it was submitted
};

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

struct Message {
  FrameHeader header;
  ReplicaHistory history;  // of a hello and its answer
  ReplicaState state = ReplicaState::inconsistent;
  bool suspect = false;
  SecondaryCore::Payload payload;
  std::vector<std::byte> data;
  std::vector<GrainHash> hashes;
  bool is_hello = false;
  bool is_hello_ok = false;
};

struct Link {
  std::deque<Message> to_b;
  std::deque<Message> to_a;
  bool a_open = true;
  bool b_open = true;
};

class Model {
 public:
  explicit Model(unsigned seed) : random_(seed) {
    a_.hold_all();
    b_.hold_all();
    Record r;
    r.vm = "v";
    r.vm_id = "i";
    r.node = "b";
    r.disks = {{"vda", core_disk_bytes}};
    r.boot_id = "boot 0";
    // Both replicas are empty, so they are equal; in some runs nobody knows that.
    synced_once_ = seed % 4 != 0;
    Record owner = r;
    owner.node = "a";
    owner.state = ReplicaState::uptodate;
    if (synced_once_) owner.generation = r.generation = 1;
    durable_ = r;
    start_b();
    record_a_ = std::make_unique<ReplicaRecord>(owner, "boot a");
    record_a_->serve(epoch_);
    if (record_a_->record().generation == 0) record_a_->new_generation(++generations_);
    primary_.open(epoch_, record_a_->generation_due());
    for (auto& h : history_)
      h.push_back({0, 0});
    table_.resize(log_slots);
  }

  void run(int steps) {
    for (int i = 0; i < steps && outcome.violation.empty(); ++i) {
      step();
      settle();
      if (pick(8) == 0) judge();
    }
    judge();
    finish();
  }

  ModelOutcome outcome;

 private:
  void violate(const std::string& what) {
    if (outcome.violation.empty()) outcome.violation = what;
  }

  std::uint64_t pick(std::uint64_t n) { return random_() % n; }

  // ---- what may happen --------------------------------------------------------------------

  void step() {
    switch (pick(20)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
        return submit();
      case 5:
      case 6:
      case 7:
        (void)a_.release(1 + pick(3));
        return;
      case 8:
      case 9:
      case 10:
        (void)b_.release(1 + pick(3));
        return;
      case 11:
      case 12:
      case 13:
      case 14:
        return deliver(1 + pick(6));
      case 15:
      case 16:
        return operate();
      case 17:
        if (pick(20) == 0) lose();
        return write_log();
      case 18:
        if (pick(40) == 0) crash_b();
        if (pick(40) == 0) promise();
        return save();
      default:
        if (pick(30) == 0) primary_.freeze();
        return;
    }
  }

  // The administrator and the agents: connect, grow, shrink.
  void operate() {
    if (primary_.state() == SessionState::live && pick(2) == 0) return verify();
    if (primary_.state() == SessionState::none && !primary_.held() && link_ == 0) return connect();
    if (primary_.can_grow() && pick(3) == 0) {
      record_a_->grow_prepare();
      primary_.grow_prepare();
      b_counts_ = true;
      return;
    }
    if (primary_.partner_required() && !grown_ && pick(3) == 0) {
      epoch_ = epoch_.next();
      record_a_->grow_commit(epoch_);
      primary_.grow_commit(epoch_, p_);
      grown_ = true;
      ++outcome.times_live;
      return;
    }
    if (primary_.held() && pick(3) == 0) shrink();
  }

  // Around the boundary of a group, like the guest's requests.
  void verify() {
    const OpId id = new_id();
    Op& op = ops_[id];
    op.verifies = true;
    op.copy.offset = grain_of(pick(blocks));
    op.copy.length = static_cast<std::uint32_t>((1 + pick(3)) * DirtyBitmap::grain_bytes);
    op.place = on_disk(op.copy.offset, op.copy.length);
    op.data.resize(op.place.length);
    ++outcome.verified;
    primary_.verify(id, {0, op.copy.offset, op.copy.length}, pick(2) == 0, p_);
  }

  void shrink() {
    if (primary_.partner_required()) ++outcome.times_shrunk_from_both;
    epoch_ = std::max(epoch_, secondary_->promised()).next();
    grown_ = false;
    b_counts_ = false;
    record_a_->shrink(epoch_);
    primary_.shrink(epoch_, p_);
  }

  void connect() {
    if (epoch_ < secondary_->promised()) {
      primary_.freeze();  // shrink() then raises the epoch
      return;
    }
    link_ = ++last_link_;
    links_[link_] = Link{};
    Message m;
    m.is_hello = true;
    m.header.session = SessionId(link_);
    m.header.epoch = epoch_;
    m.history = summary_of(*record_a_, dirty_set_of(marks_));
    links_[link_].to_b.push_back(m);
  }

  void lose() {
    if (link_ == 0) return;
    links_[link_].a_open = false;
    link_ = 0;
    primary_.session_lost("the model", p_);
  }

  void crash_b() {
    const bool was_in_sync = b_in_sync();
    b_.crash([this](const MemoryDisk::UnflushedWrite&) { return pick(2) == 0; });
    b_.hold_all();
    // Its completed, unflushed writes may be gone, and it knows: from here it is suspect.
    if (was_in_sync) judge_durable(b_, "the crashed partner", flushed_when_in_sync_);
    for (auto& [id, link] : links_)
      link.b_open = false;
    start_b();
  }

  void promise() {
    if (promising_) return;
    promising_ = true;
    secondary_->promise(std::max(epoch_, secondary_->promised()).next(), s_);
  }

  void start_b() {
    record_ = std::make_unique<ReplicaRecord>(durable_, "boot " + std::to_string(b_life_));
    HelloContext c;
    c.vm = "v";
    c.vm_id = "i";
    c.partner = "a";
    c.disks = durable_.disks;
    secondary_ = std::make_unique<SecondaryCore>(c, *record_, marks_b_, from_ns(0));
    ++b_life_;
    b_ops_.clear();
    s_.clear();
    promising_ = false;
  }

  // ---- the guest --------------------------------------------------------------------------

  void submit() {
    if (guest_.size() > 24) return;
    Op op;
    const auto kind = pick(10);
    op.what.op = kind < 6   ? DiskOp::write
                 : kind < 7 ? DiskOp::zero
                 : kind < 9 ? DiskOp::read
                            : DiskOp::flush;
    op.arrival = ++arrivals_;
    op.completed_before = completed_;
    if (op.what.op != DiskOp::flush) {
      const std::uint64_t first = pick(blocks);
      const std::uint64_t in_group = group_blocks - first % group_blocks;
      const std::uint64_t count = 1 + pick(std::min<std::uint64_t>(6, in_group));
      op.what.offset = place_of(first);
      op.what.length = static_cast<std::uint32_t>(count * block_bytes);
      op.place = {first * block_bytes, count * block_bytes};
      op.what.fua = changes_data(op.what) && pick(6) == 0;
      op.data.resize(op.what.length);
      for (std::uint64_t b = first; b < first + count; ++b) {
        const std::uint64_t value = op.what.op == DiskOp::write ? op.arrival : 0;
        if (changes_data(op.what)) history_[b].push_back({op.arrival, value});
        if (op.what.op == DiskOp::write)
          std::memcpy(op.data.data() + (b - first) * block_bytes, &value, sizeof value);
      }
    }
    const OpId id = new_id();
    ops_[id] = op;
    guest_.insert(id);
    primary_.submit(id, op.what, p_);
  }

  void completed(OpId id) {
    if (!guest_.contains(id)) return violate("a request completed twice");
    const Op op = ops_.at(id);
    ++outcome.completed_requests;
    const std::uint64_t first = op.place.offset / block_bytes;
    const std::uint64_t count = op.place.length / block_bytes;
    for (std::uint64_t b = first; b < first + count; ++b) {
      if (op.what.op == DiskOp::read) {
        std::uint64_t value = 0;
        std::memcpy(&value, op.data.data() + (b - first) * block_bytes, sizeof value);
        if (!acceptable(b, value, op.completed_before[b]))
          violate("a read of block " + std::to_string(b) + " returned " + std::to_string(value));
      } else {
        completed_[b] = std::max(completed_[b], op.arrival);
        if (op.what.fua) flushed_[b] = std::max(flushed_[b], op.arrival);
      }
    }
    if (op.what.op == DiskOp::flush)
      for (std::uint64_t b = 0; b < blocks; ++b)
        flushed_[b] = std::max(flushed_[b], op.completed_before[b]);
    if (b_in_sync()) flushed_when_in_sync_ = flushed_;
    guest_.erase(id);
    ops_.erase(id);
    free_ids_.push_back(id);
  }

  // ---- the judge --------------------------------------------------------------------------

  // `value` was written to block b by a write not older than `arrival`.
  bool acceptable(std::uint64_t b, std::uint64_t value, std::uint64_t arrival) const {
    for (const Write& w : history_[b])
      if (w.arrival >= arrival && w.value == value) return true;
    return false;
  }

  void judge_image(std::span<const std::byte> image, const PerBlock& least, const char* what) {
    for (std::uint64_t b = 0; b < blocks; ++b) {
      std::uint64_t value = 0;
      std::memcpy(&value, image.data() + b * block_bytes, sizeof value);
      if (!acceptable(b, value, least[b]))
        return violate(std::string(what) + ": block " + std::to_string(b) + " holds " +
                       std::to_string(value) + ", but write " + std::to_string(least[b]) +
                       " was promised");
    }
  }

  void judge_durable(const MemoryDisk& disk, const char* what, const PerBlock& least) {
    judge_image(disk.crash_image([](const auto&) { return false; }), least, what);
    judge_image(disk.crash_image([this](const auto&) { return pick(2) == 0; }), least, what);
  }

  // It is, or may be, in the in-sync set, and nothing forbids to start from it.
  bool b_in_sync() const { return b_counts_ && !record_->suspect(); }

  void judge() {
    judge_image(a_.contents(), completed_, "the owner");
    judge_durable(a_, "the owner after a power cut", flushed_);
    judge_marks();
    if (!b_in_sync()) return;
    judge_image(b_.contents(), completed_, "the partner");
    judge_durable(b_, "the partner after a power cut", flushed_);
  }

  // M1: whatever either replica loses now, the blocks in which they differ are told by what is on
  // the owner's disk: the saved bitmap and the log, with or without the transaction in flight.
  void judge_marks() {
    if (!synced_once_) return;
    auto table = table_;
    if (log_in_flight_ && pick(2) == 0) apply(*log_in_flight_, table);
    const auto some = [this](const auto&) { return pick(2) == 0; };
    const auto a = pick(2) == 0 ? a_.crash_image(some) : copy_of(a_);
    const auto b = pick(2) == 0 ? b_.crash_image(some) : copy_of(b_);
    for (std::uint64_t i = 0; i < blocks; ++i) {
      if (std::memcmp(&a[i * block_bytes], &b[i * block_bytes], block_bytes) == 0) continue;
      const LogExtent extent{
          0, static_cast<std::uint32_t>(place_of(i) / ActivityLogCore::extent_bytes)};
      if (std::ranges::find(table, std::optional(extent)) != table.end()) continue;
      if (saved_.any_in(grain_of(i), 1)) continue;
      return violate("the replicas may differ in block " + std::to_string(i) +
                     " after a crash, and neither log nor bitmap tells");
    }
  }

  static std::vector<std::byte> copy_of(const MemoryDisk& disk) {
    return {disk.contents().begin(), disk.contents().end()};
  }

  static void apply(const LogTransaction& transaction,
                    std::vector<std::optional<LogExtent>>& table) {
    for (const LogSlot& u : transaction.updates)
      table.at(u.slot) = u.extent;
  }

  // Everything comes to rest: what was submitted completes, and both replicas end up the same.
  void finish() {
    for (int round = 0; round < 2000 && outcome.violation.empty(); ++round) {
      if (guest_.empty() && primary_.state() == SessionState::live) break;
      write_log();
      save();
      (void)a_.release();
      (void)b_.release();
      deliver(100);
      operate();
      settle();
    }
    if (!guest_.empty() || primary_.state() != SessionState::live)
      return violate(std::to_string(guest_.size()) + " requests never completed; session " +
                     to_text(primary_.state()) + ", held " + std::to_string(primary_.held()));
    judge();
    if (std::memcmp(a_.contents().data(), b_.contents().data(), disk_bytes) != 0)
      violate("the replicas differ in the end");
  }

  // ---- the movers -------------------------------------------------------------------------

  void settle() {
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

  void deliver(std::uint64_t count) {
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

  void arrive_at_b(std::uint64_t id, const Message& m) {
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

  void arrive_at_a(const Message& m) {
    if (!m.is_hello_ok) return primary_.frame(m.header, p_, m.hashes);
    if (primary_.state() != SessionState::none || primary_.partner_required() ||
        m.header.epoch != epoch_)
      return lose();
    HelloOk ok;
    static_cast<ReplicaHistory&>(ok) = m.history;
    ok.state = m.state;
    ok.suspect = m.suspect;
    const SyncVerdict verdict =
        decide_sync(summary_of(*record_a_, dirty_set_of(marks_)), summary_of(ok), true);
    if (verdict.mode == SyncMode::refuse) return violate("refused: " + verdict.reason);
    if (verdict.mode == SyncMode::full && synced_once_)
      violate("a full resync without need: " + verdict.reason);
    mode_ = verdict.mode;
    primary_.session_opened(m.header.session, mode_ == SyncMode::full, p_);
  }

  void write_log() {
    if (!log_in_flight_) return;
    const LogTransaction done = *std::exchange(log_in_flight_, std::nullopt);
    apply(done, table_);
    primary_.log_written(done.number, p_);
  }

  void save() {
    if (!saving_) return;
    // What is written goes to disk block by block; this is the last moment of it.
    saved_ = *std::exchange(saving_, std::nullopt);
    marks_.save_done();
    primary_.marks_saved(p_);
    if (std::exchange(save_again_, false)) start_save();
  }

  void start_save() {
    save_again_ = saving_.has_value();
    if (saving_) return;
    marks_.save_started();
    saving_ = marks_.dirty(0);
  }

  void execute(PrimaryAction action) {
    using Kind = PrimaryAction::Kind;
    const OpId id = action.id;
    switch (action.kind) {
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
        if (action.frame.type == FrameType::sync_begin)
          m.payload = SyncBegin{mode_, own.generation};
        if (action.frame.type == FrameType::sync_end)
          m.payload = SyncEnd{own.generation, own.generation_history};
        links_.at(link_).to_b.push_back(std::move(m));
        return;
      }
      case Kind::complete:
        if (action.error != 0) return violate("a request failed");
        return completed(id);
      case Kind::read_copy: {
        Op& op = ops_.at(id);
        if (op.data.empty()) return primary_.copy_read(id, 0, true, p_);
        return a_.read(op.place.offset, op.data, [this, id](int e) {
          const auto& [copy, data] = std::tie(ops_.at(id).copy, ops_.at(id).data);
          const bool zero =
              std::all_of(data.begin(), data.end(), [](std::byte b) { return b == std::byte{0}; });
          if (ops_.at(id).verifies || (ops_.at(id).compares && !zero))
            return primary_.compare_read(id, e, hashes_of(copy.offset, copy.length, data), p_);
          primary_.copy_read(id, e, zero, p_);
        });
      }
      case Kind::copy_done: {
        const ResyncCopy copy = ops_.at(id).copy;
        const bool verifies = ops_.at(id).verifies;
        ops_.erase(id);
        free_ids_.push_back(id);
        if (verifies && action.check.differing != 0)
          violate("a verify found a difference between replicas that are in sync");
        if (verifies) return;
        if (action.error != 0 || !resync_) return;
        resync_->done(copy);
        return fill_window();
      }
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
        if (action.state == SessionState::lost || action.state == SessionState::none)
          resync_.reset();
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

  // A copy may send a part of its range only.
  std::vector<std::byte> payload_of(const PrimaryAction& action) {
    const Op& op = ops_.at(action.id);
    if (op.copy.length == 0) return op.data;
    const ByteRange part = on_disk(action.frame.offset, action.frame.length);
    outcome.resent_bytes += action.frame.length;
    const auto begin = op.data.begin() + static_cast<std::ptrdiff_t>(part.offset - op.place.offset);
    return {begin, begin + static_cast<std::ptrdiff_t>(part.length)};
  }

  void fill_window() {
    while (const auto next = resync_->peek()) {
      const OpId id = new_id();
      Op& op = ops_[id];
      const bool empty = on_disk(next->offset, next->length).length == 0;
      op.copy = resync_->take(*next, empty ? next->length : 1 + pick(next->length),
                              empty || pick(2) == 0);
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

  void execute(SecondaryAction action) {
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
      case Kind::send_hello_ok: {
        const auto it = links_.find(action.connection);
        if (it == links_.end() || !it->second.b_open) return;
        Message m;
        m.header = action.frame;
        m.hashes = action.hashes;
        m.is_hello_ok = action.kind == Kind::send_hello_ok;
        if (m.is_hello_ok) {
          if (durable_.promised_epoch < secondary_->session_epoch())
            violate("hello_ok before the promise was durable");
          m.header.session = SessionId(action.connection);
          m.header.epoch = secondary_->session_epoch();
          m.history = summary_of(*record_, dirty_set_of(marks_b_));
          m.state = durable_.state;
          m.suspect = record_->suspect();
        }
        if (m.header.type == FrameType::sync_begin_ok &&
            durable_.state != ReplicaState::inconsistent)
          violate("a resync began on a replica that is not durably inconsistent");
        if (m.header.type == FrameType::sync_end_ok && durable_.state != ReplicaState::uptodate)
          violate("a resync ended on a replica that is not durably uptodate");
        it->second.to_a.push_back(std::move(m));
        return;
      }
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

  void hash_at_b(OpId id) {
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

  OpId new_id() {
    if (free_ids_.empty()) free_ids_.push_back(next_id_++);
    const OpId id = free_ids_.front();
    free_ids_.pop_front();
    return id;
  }

  std::mt19937_64 random_;
  boost::asio::io_context io_;
  MemoryDisk a_{io_.get_executor(), disk_bytes};
  MemoryDisk b_{io_.get_executor(), disk_bytes};
  ReplicaMarks marks_{{DirtyBitmap(core_disk_bytes)}, ReplicaMarks::LogTable(log_slots), 1};
  PrimaryCore primary_{marks_};
  std::unique_ptr<ReplicaRecord> record_a_;
  std::uint64_t generations_ = 1;
  PrimaryCore::Actions p_;
  Record durable_;  // the partner's, as it is on its disk
  std::unique_ptr<ReplicaRecord> record_;
  ReplicaMarks marks_b_{{DirtyBitmap(core_disk_bytes)}, ReplicaMarks::LogTable(log_slots), 1};
  std::unique_ptr<SecondaryCore> secondary_;
  SecondaryCore::Actions s_;
  std::uint64_t b_life_ = 0;
  bool promising_ = false;

  Epoch epoch_{1};
  bool grown_ = false;
  bool b_counts_ = false;  // the partner is, or may be, in-sync
  std::map<std::uint64_t, Link> links_;
  std::uint64_t link_ = 0;  // the owner's present one
  std::uint64_t last_link_ = 0;

  std::map<OpId, Op> ops_;
  std::set<OpId> guest_;
  std::map<OpId, Message> b_ops_;
  OpId next_b_op_ = 0;
  std::deque<OpId> free_ids_;
  OpId next_id_ = 0;
  std::optional<ResyncCore> resync_;
  bool synced_once_ = false;
  SyncMode mode_ = SyncMode::full;

  // The owner's disk beside the image: the bitmap last saved, the table of the log.
  DirtyBitmap saved_{core_disk_bytes};
  std::optional<DirtyBitmap> saving_;
  bool save_again_ = false;
  std::vector<std::optional<LogExtent>> table_;
  std::optional<LogTransaction> log_in_flight_;

  std::uint64_t arrivals_ = 0;
  std::vector<std::vector<Write>> history_{blocks};
  PerBlock completed_ = PerBlock(blocks, 0);
  PerBlock flushed_ = PerBlock(blocks, 0);
  PerBlock flushed_when_in_sync_ = PerBlock(blocks, 0);
};

}  // namespace

ModelOutcome run_session_model(unsigned seed, int steps) {
  Model model(seed);
  model.run(steps);
  return model.outcome;
}

}  // namespace havm
