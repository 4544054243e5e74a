// The job of GenerationWorld: the two replicas of the generation model, the register, and what
// each event does to them; the judge looks on. See generation_model.hpp.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "tests/unit/vmrepl/session/generation_model.hpp"
#include "vmrepl/session/replica_record.hpp"
#include "vmrepl/session/sync_verdict.hpp"

namespace havm::generation_model {

constexpr std::size_t blocks = 2;
constexpr unsigned all_blocks = (1U << blocks) - 1;
constexpr std::size_t versions_max = 32;

// Versions of blocks; a set of them is a mask. Block b begins as version b.
using Version = std::uint8_t;
using Versions = std::uint32_t;
constexpr Versions bit(Version v) {
  return Versions{1} << v;
}

struct Block {
  Version now = 0;                      // what a read returns
  Version durable = 0;                  //
  std::array<Version, 12> unflushed{};  // written since, oldest first; each may survive a crash
  std::uint8_t unflushed_count = 0;
};

struct Node {
  ReplicaRecord record;
  std::array<Block, blocks> disk{};
  unsigned dirty = 0;  // bitmap, durable
  unsigned log = 0;    // extents in the activity log, durable
  Versions held = 0;   // written here, not completed
  bool serving = false;
  bool own = false;     // ghost: completed something alone since both were equal
  bool mixed = false;   // ghost: neither the old image nor the new one
  bool begun = false;   // ghost: a resync of known data has begun, so its rest is enough
  bool forced = false;  // ghost: by a person, after an unclean end
  std::uint8_t boot = 0;
};

enum class Phase : std::uint8_t { none, streaming, synced, live };

struct World {
  std::array<Node, 2> nodes;
  // The register.
  std::uint64_t epoch = 1;
  std::uint8_t owner = 0;
  bool both = false;
  // The session, always from the register's owner to the other.
  Phase phase = Phase::none;
  unsigned to_copy = 0;
  unsigned copied = 0;  // at the target, not known to be flushed
  // What is true.
  std::array<Versions, versions_max> descent{};  // of each version: itself and all before it
  Version versions = 0;
  Versions completed = 0;
  Versions flushed = 0;   // covered by a completed flush
  Versions required = 0;  // completed by the register's owners and not given up
  Versions given_up = 0;  // unflushed, lost by the crash of the owner's own host
  std::uint64_t generations = 0;
  bool person = false;  // has forced the replica that was not the owner's
};

enum class Kind : std::uint8_t {
  write,         // a: block
  write_cut,     // a: block, b: the partner got it; the link is lost before its answer
  flush,         //
  crash,         // a: node, b: which of the unflushed writes survive
  kill,          // the owner's engine, its host goes on
  link,          // lost
  shrink,        //
  serve,         // the register's owner, after a restart
  promote,       // the other one
  connect,       // and begin of the resync, if the verdict allows it
  copy,          // one block
  checkpoint,    // both flush, the owner clears bits
  end,           // of the resync
  end_unheard,   // the target never gets sync_end
  end_unknown,   // the owner never gets the answer
  grow,          //
  grow_cut,      // the swap succeeded, nobody was told
  grow_not_won,  // the mark was set, the swap did not happen
  force,         // a: node
};

struct Event {
  Kind kind;
  std::uint8_t a = 0;
  std::uint8_t b = 0;
};

std::string text(const Event& event);

// How many different images a crash can leave.
unsigned crash_outcomes(const Node& node);

// Node a is owner and alone; node b is fresh and holds garbage.
World first_world();

class Events {
 public:
  Events(Mutant mutant, WalkOutcome& outcome) : mutant_(mutant), outcome_(outcome) {}

  // The event must be possible. A violation is written to the outcome.
  void apply(World& w, const Event& e);
  void judge(const World& w);

 private:
  [[nodiscard]] bool broken(Mutant m) const { return mutant_ == m; }
  void violate(const std::string& what);
  static Versions has(const World& w, const Node& n);
  void complete(World& w, const Node& n, Versions what);
  void new_generation(World& w, Node& n);
  void alone(World& w, Node& n);
  Version next_version(World& w, const Node& n, std::size_t block);
  void write(World& w, std::size_t node, std::size_t block);
  void write_cut(World& w, std::size_t block, bool partner_got_it);
  void flush(World& w);
  void lose_session(World& w);
  void settle_log(Node& n);
  void stop(World& w, Node& n);
  void crash(World& w, std::size_t node, unsigned which);
  void become_owner(World& w, std::size_t node, bool is_alone_already);
  void give_up_unflushed(World& w, std::size_t node);
  void serve(World& w);
  void promote(World& w);
  void force(World& w, std::size_t node);
  void shrink(World& w);
  ReplicaSummary summary(const Node& n) const;
  void connect(World& w);
  void begin_sync(World& w, const Node& o, Node& t, SyncMode mode);
  void copy(World& w);
  void checkpoint(World& w);
  void end(World& w, Kind kind);
  void grow(World& w, Kind kind);

  Mutant mutant_;
  WalkOutcome& outcome_;
};

}  // namespace havm::generation_model
