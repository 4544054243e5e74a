#include "tests/torture/sim_engine.hpp"

#include <algorithm>
#include <utility>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/rules.hpp"

namespace havm::torture {
namespace {

HelloContext context_for(int node) {
  HelloContext c;
  c.vm = "torture";
  c.vm_id = "torture";
  c.partner = node == 0 ? "b" : "a";
  c.disks = identities();
  return c;
}

}  // namespace

// Engine::start: what was read is synced, then what the marks are left from decides.
SimEngine::SimEngine(Surroundings& world, int node, NodeDisk& disk, std::string boot_id,
                     Recovered recovered)
    : world_(world),
      node_(node),
      disk_(disk),
      boot_id_(std::move(boot_id)),
      record_(recovered.record, boot_id_),
      written_(std::move(recovered.record)),
      slot_sequence_(recovered.slot_sequence),
      newest_slot_(recovered.newest_slot),
      next_transaction_(recovered.next_transaction),
      bitmap_blocks_(std::move(recovered.bitmap_blocks)),
      marks_(std::move(recovered.bitmaps), recovered.table, recovered.next_transaction) {
  disk_.record.sync();
  disk_.log.sync();
  disk_.bitmap.sync();
  if (marks_.changed()) save();
  if (record_.record().owner_epoch == Epoch() && marks_.dirty_bytes() != 0) forget_dirty();
  primary_ = std::make_unique<PrimaryCore>(marks_);
  secondary_ = std::make_unique<SecondaryCore>(context_for(node), record_, marks_, from_ns(0));
}

// ---- commands (engine_commands.cpp) ----------------------------------------------------------

void SimEngine::begin(EngineCommand command, Epoch epoch) {
  HAVM_ASSERT(!busy(), "the agent gives one command at a time");
  command_ = command;
  command_epoch_ = epoch;
  command_stage_ = 0;
  pump();
}

void SimEngine::end_command(bool succeeded) {
  command_ = EngineCommand::none;
  last_succeeded_ = succeeded;
}

void SimEngine::go_on() {
  switch (command_) {
    case EngineCommand::serve:
      return go_on_serving();
    case EngineCommand::stand_by:
      return go_on_standing_by();
    case EngineCommand::quit:
      return go_on_quitting();
    case EngineCommand::none:
    case EngineCommand::promise:
    case EngineCommand::flush:
      return;
  }
}

void SimEngine::promise(Epoch epoch) {
  if (is_owner() && epoch > primary_->epoch()) drop_session("a later epoch is promised");
  command_ = EngineCommand::promise;
  secondary_->promise(epoch, secondary_actions_);
  pump();
}

bool SimEngine::may_serve() const {
  const Record& r = record_.record();
  return !is_owner() && command_epoch_ >= r.promised_epoch && r.state == ReplicaState::uptodate &&
         !(record_.may_be_both() && command_epoch_ <= r.epoch);
}

void SimEngine::go_on_serving() {
  if (command_stage_ == 0) {
    if (!may_serve()) return end_command(false);
    secondary_->set_owner(true);
    secondary_->close_session("this node becomes owner", secondary_actions_);
    command_stage_ = 1;
    return;
  }
  if (!secondary_->is_quiet()) return;
  if (!may_serve()) {
    secondary_->set_owner(false);
    return end_command(false);
  }
  record_.serve(command_epoch_);
  persist();
  primary_->open(command_epoch_, record_.generation_due());
  end_command(true);
}

void SimEngine::grow_prepare() {
  record_.grow_prepare();
  persist();
  primary_->grow_prepare();
}

void SimEngine::grow_commit(Epoch epoch) {
  record_.grow_commit(epoch);
  persist();
  primary_->grow_commit(epoch, primary_actions_);
  pump();
}

void SimEngine::shrink(Epoch epoch) {
  record_.shrink(epoch);
  persist();
  primary_->shrink(epoch, primary_actions_);
  pump();
}

void SimEngine::flush() {
  command_ = EngineCommand::flush;
  if (!holds(Rule::own_replica_is_flushed)) return end_command(true);
  flush_replica([this] { end_command(true); });
}

void SimEngine::flush_replica(std::function<void()> done) {
  auto left = std::make_shared<std::size_t>(disks);
  for (std::uint16_t disk = 0; disk < disks; ++disk)
    flush_disk(disk, [left, done] {
      if (--*left == 0) done();
    });
}

void SimEngine::go_on_standing_by() {
  if (command_stage_ == 0) {
    wanted_ = false;
    if (is_owner()) {
      primary_->close(primary_actions_);
      close_connection();
    }
    command_stage_ = 1;
    return;
  }
  if (!primary_->is_drained()) return;
  if (!secondary_->has_session()) {
    record_.stand_by(true);
    persist();
  }
  secondary_->set_owner(false);
  end_command(true);
}

void SimEngine::go_on_quitting() {
  switch (command_stage_) {
    case 0:
      wanted_ = false;
      if (is_owner()) {
        primary_->close(primary_actions_);
        close_connection();
      }
      command_stage_ = 1;
      return;
    case 1:
      if (!primary_->is_drained()) return;
      secondary_->set_owner(true);
      secondary_->close_session("the engine ends", secondary_actions_);
      command_stage_ = 2;
      return;
    case 2:
      if (!secondary_->is_quiet()) return;
      command_stage_ = 3;
      return flush_replica([this] {
        command_stage_ = 4;
        if (marks_.changed()) save();
      });
    case 4:
      if (!marks_.is_saved() || marks_.is_saving()) return;
      reset_log();
      record_.ended_cleanly();
      persist();
      end_command(true);
      has_ended_ = true;
      return;
    default:
      return;
  }
}

// ---- durable things --------------------------------------------------------------------------

void SimEngine::burn(const char* what) {
  world_.burn(node_, what);
}

// Blocking, as MetadataFile: written, then synced; a death may come before, between and after.
void SimEngine::write_metadata(CrashFile<Sector512>& file, std::size_t offset,
                               std::span<const std::byte> bytes) {
  const auto id = file.begin_write(offset / sector_bytes, sectors_of(bytes));
  burn("in the middle of a metadata write");
  file.end_write(id, false);
  burn("between write and sync");
  file.sync();
  burn("after the sync");
}

void SimEngine::persist() {
  const unsigned target = 1 - newest_slot_;
  const auto slot = encode_slot(record_.record(), slot_sequence_ + 1);
  HAVM_ASSERT(slot, "a record that the engine makes can be written");
  if (world_.verbose()) world_.trace(node_, "record " + record_to_json(record_.record()));
  write_metadata(disk_.record, target * record_slot_bytes, slot.value());
  written_ = record_.record();
  ++slot_sequence_;
  newest_slot_ = target;
}

void SimEngine::begin_generation() {
  record_.new_generation(world_.new_generation_id());
  persist();
}

void SimEngine::reset_log() {
  HAVM_ASSERT(!log_in_flight_, "a log with a write in flight cannot be emptied");
  const auto header =
      encode_metadata_header(make_log_header(identity(), disk_.log_slots, next_transaction_));
  HAVM_ASSERT(header, "the header of a log can be written");
  write_metadata(disk_.log, 0, header.value());
}

void SimEngine::forget_dirty() {
  reset_log();
  marks_.forget(next_transaction_);
  save();
}

void SimEngine::write_log(const LogTransaction& transaction) {
  if (log_in_flight_) return world_.violate("two transactions of the log at once");
  HAVM_ASSERT(transaction.number == next_transaction_, "transactions are written in order");
  log_in_flight_ = true;
  const auto id = disk_.log.begin_write(log_block_offset(transaction.number) / sector_bytes,
                                        sectors_of(encode_log_block(transaction)));
  later([this, id, number = transaction.number] {
    disk_.log.end_write(id, true);
    log_in_flight_ = false;
    next_transaction_ = number + 1;
    primary_->log_written(number, primary_actions_);
  });
}

// MarksDriver::save, BitmapStore::save.
void SimEngine::save() {
  if (marks_.is_saving()) {
    save_again_ = true;
    return;
  }
  marks_.save_started();
  later([this] { write_blocks(); });
}

// Each block is written as it is at some moment of the save.
void SimEngine::write_blocks() {
  blocks_in_flight_ = disks;
  for (std::uint16_t disk = 0; disk < disks; ++disk) {
    later([this, disk] {
      std::vector<std::byte> block(metadata_block_bytes);
      encode_bitmap_block({disk, 0}, words_of(marks_.dirty(disk), 0), block);
      if (bitmap_blocks_[disk] == block) return block_written();
      bitmap_blocks_[disk] = block;
      const auto id = disk_.bitmap.begin_write(
          (metadata_header_bytes + disk * metadata_block_bytes) / sector_bytes, sectors_of(block));
      later([this, id] {
        disk_.bitmap.end_write(id, false);
        block_written();
      });
    });
  }
}

void SimEngine::block_written() {
  if (--blocks_in_flight_ > 0) return;
  later([this, mark = disk_.bitmap.begin_flush()] {
    disk_.bitmap.end_flush(mark);
    save_ended();
  });
}

void SimEngine::save_ended() {
  marks_.save_done();
  primary_->marks_saved(primary_actions_);
  if (std::exchange(save_again_, false)) save();
}

void SimEngine::tick(bool retire) {
  if (marks_.changed()) save();
  if (primary_->state() == SessionState::live) {
    verify();
    pump();
  }
  if (!retire) return;
  marks_.retire_idle();
  primary_->marks_saved(primary_actions_);
  pump();
}

void SimEngine::run_io(std::size_t index) {
  const auto io = std::move(io_[index]);
  io_[index] = std::move(io_.back());
  io_.pop_back();
  io();
  pump();
}

// Events that come while actions are executed append theirs behind, as in both sessions' pump.
void SimEngine::pump() {
  do {
    for (std::size_t i = 0; i < primary_actions_.size(); ++i)
      execute(PrimaryAction(primary_actions_[i]));
    primary_actions_.clear();
    for (std::size_t i = 0; i < secondary_actions_.size(); ++i)
      execute(SecondaryAction(secondary_actions_[i]));
    secondary_actions_.clear();
    const int stage = command_stage_;
    const EngineCommand command = command_;
    go_on();
    if (command == command_ && stage == command_stage_ && primary_actions_.empty() &&
        secondary_actions_.empty())
      break;
  } while (true);
  const bool was_starved = std::exchange(is_starved_, marks_.starved());
  if (is_starved_ && !was_starved) ++world_.reach().full_logs;
}

}  // namespace havm::torture
