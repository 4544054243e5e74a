// The job of Model: the world of the session model (session_model.hpp): the pair, the channel, the
// guest, and what the judge knows. What may happen and the judge are in session_model.cpp, what
// carries decisions out in session_model_movers.cpp. One thread.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include <boost/asio/io_context.hpp>

#include "tests/unit/vmrepl/session/session_model.hpp"
#include "vmrepl/disk/memory_disk.hpp"
#include "vmrepl/resync/resync_core.hpp"
#include "vmrepl/session/primary_core.hpp"
#include "vmrepl/session/secondary_core.hpp"

namespace havm {

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
inline ByteRange on_disk(std::uint64_t offset, std::uint64_t length) {
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
  explicit Model(unsigned seed);
  void run(int steps);

  ModelOutcome outcome;

 private:
  void violate(const std::string& what);
  void step();
  // The administrator and the agents: connect, grow, shrink.
  void operate();
  // Around the boundary of a group, like the guest's requests.
  void verify();
  void shrink();
  void connect();
  void lose();
  void crash_b();
  void promise();
  void start_b();
  void submit();
  void completed(OpId id);
  // `value` was written to block b by a write not older than `arrival`.
  bool acceptable(std::uint64_t b, std::uint64_t value, std::uint64_t arrival) const;
  void judge_image(std::span<const std::byte> image, const PerBlock& least, const char* what);
  void judge_durable(const MemoryDisk& disk, const char* what, const PerBlock& least);
  void judge();
  // M1: whatever either replica loses now, the blocks in which they differ are told by what is on
  // the owner's disk: the saved bitmap and the log, with or without the transaction in flight.
  void judge_marks();
  static std::vector<std::byte> copy_of(const MemoryDisk& disk);
  static void apply(const LogTransaction& transaction,
                    std::vector<std::optional<LogExtent>>& table);
  // Everything comes to rest: what was submitted completes, and both replicas end up the same.
  void finish();
  void settle();
  void deliver(std::uint64_t count);
  void arrive_at_b(std::uint64_t id, const Message& m);
  void arrive_at_a(const Message& m);
  void write_log();
  void save();
  void start_save();
  void execute(PrimaryAction action);
  void read_copy(OpId id);
  void copy_done(OpId id, const CheckOutcome& check, int error);
  // A copy may send a part of its range only.
  std::vector<std::byte> payload_of(const PrimaryAction& action);
  void fill_window();
  void execute(SecondaryAction action);
  void send_from_b(const SecondaryAction& action);
  void hash_at_b(OpId id);
  OpId new_id();

  std::uint64_t pick(std::uint64_t n) { return random_() % n; }

  // It is, or may be, in the in-sync set, and nothing forbids to start from it.
  bool b_in_sync() const { return b_counts_ && !record_->suspect(); }

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
  int verifying_ = 0;  // ranges, of the owner

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

}  // namespace havm
