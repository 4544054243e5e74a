#include "tests/unit/vmrepl/session/session_model.hpp"

#include <algorithm>
#include <cstring>

#include "tests/unit/vmrepl/session/session_model_world.hpp"

namespace havm {

Model::Model(unsigned seed) : random_(seed) {
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

void Model::run(int steps) {
  for (int i = 0; i < steps && outcome.violation.empty(); ++i) {
    step();
    settle();
    if (pick(8) == 0) judge();
  }
  judge();
  finish();
}

void Model::violate(const std::string& what) {
  if (outcome.violation.empty()) outcome.violation = what;
}

// ---- what may happen --------------------------------------------------------------------

void Model::step() {
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
      if (pick(30) == 0) return primary_.freeze();
      if (primary_.state() == SessionState::live) verify();
      return;
  }
}

void Model::operate() {
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

void Model::verify() {
  if (verifying_ >= 8) return;  // the guest goes first
  ++verifying_;
  const OpId id = new_id();
  Op& op = ops_[id];
  op.verifies = true;
  op.copy.offset = grain_of(pick(blocks));
  op.copy.length = static_cast<std::uint32_t>((1 + pick(3)) * DirtyBitmap::grain_bytes);
  op.place = on_disk(op.copy.offset, op.copy.length);
  op.data.resize(op.place.length);
  primary_.verify(id, {0, op.copy.offset, op.copy.length}, pick(2) == 0, p_);
}

void Model::shrink() {
  if (primary_.partner_required()) ++outcome.times_shrunk_from_both;
  epoch_ = std::max(epoch_, secondary_->promised()).next();
  grown_ = false;
  b_counts_ = false;
  record_a_->shrink(epoch_);
  primary_.shrink(epoch_, p_);
}

void Model::connect() {
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
  m.history = summary_of(*record_a_, true);
  links_[link_].to_b.push_back(m);
}

void Model::lose() {
  if (link_ == 0) return;
  links_[link_].a_open = false;
  link_ = 0;
  primary_.session_lost("the model", p_);
}

void Model::crash_b() {
  const bool was_in_sync = b_in_sync();
  b_.crash([this](const MemoryDisk::UnflushedWrite&) { return pick(2) == 0; });
  b_.hold_all();
  // Its completed, unflushed writes may be gone, and it knows: from here it is suspect.
  if (was_in_sync) judge_durable(b_, "the crashed partner", flushed_when_in_sync_);
  for (auto& [id, link] : links_)
    link.b_open = false;
  start_b();
}

void Model::promise() {
  if (promising_) return;
  promising_ = true;
  secondary_->promise(std::max(epoch_, secondary_->promised()).next(), s_);
}

void Model::start_b() {
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

void Model::submit() {
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

void Model::completed(OpId id) {
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

bool Model::acceptable(std::uint64_t b, std::uint64_t value, std::uint64_t arrival) const {
  for (const Write& w : history_[b])
    if (w.arrival >= arrival && w.value == value) return true;
  return false;
}

void Model::judge_image(std::span<const std::byte> image, const PerBlock& least, const char* what) {
  for (std::uint64_t b = 0; b < blocks; ++b) {
    std::uint64_t value = 0;
    std::memcpy(&value, image.data() + b * block_bytes, sizeof value);
    if (!acceptable(b, value, least[b]))
      return violate(std::string(what) + ": block " + std::to_string(b) + " holds " +
                     std::to_string(value) + ", but write " + std::to_string(least[b]) +
                     " was promised");
  }
}

void Model::judge_durable(const MemoryDisk& disk, const char* what, const PerBlock& least) {
  judge_image(disk.crash_image([](const auto&) { return false; }), least, what);
  judge_image(disk.crash_image([this](const auto&) { return pick(2) == 0; }), least, what);
}

void Model::judge() {
  judge_image(a_.contents(), completed_, "the owner");
  judge_durable(a_, "the owner after a power cut", flushed_);
  judge_marks();
  if (!b_in_sync()) return;
  judge_image(b_.contents(), completed_, "the partner");
  judge_durable(b_, "the partner after a power cut", flushed_);
}

void Model::judge_marks() {
  if (!synced_once_) return;
  auto table = table_;
  if (log_in_flight_ && pick(2) == 0) apply(*log_in_flight_, table);
  const auto some = [this](const auto&) { return pick(2) == 0; };
  const auto a = pick(2) == 0 ? a_.crash_image(some) : copy_of(a_);
  const auto b = pick(2) == 0 ? b_.crash_image(some) : copy_of(b_);
  for (std::uint64_t i = 0; i < blocks; ++i) {
    if (std::memcmp(&a[i * block_bytes], &b[i * block_bytes], block_bytes) == 0) continue;
    const LogExtent extent{0,
                           static_cast<std::uint32_t>(place_of(i) / ActivityLogCore::extent_bytes)};
    if (std::ranges::find(table, std::optional(extent)) != table.end()) continue;
    if (saved_.any_in(grain_of(i), 1)) continue;
    return violate("the replicas may differ in block " + std::to_string(i) +
                   " after a crash, and neither log nor bitmap tells");
  }
}

std::vector<std::byte> Model::copy_of(const MemoryDisk& disk) {
  return {disk.contents().begin(), disk.contents().end()};
}

void Model::apply(const LogTransaction& transaction, std::vector<std::optional<LogExtent>>& table) {
  for (const LogSlot& u : transaction.updates)
    table.at(u.slot) = u.extent;
}

void Model::finish() {
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

ModelOutcome run_session_model(unsigned seed, int steps) {
  Model model(seed);
  model.run(steps);
  return model.outcome;
}

}  // namespace havm
