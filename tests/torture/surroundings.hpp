// The job of Surroundings: what a SimEngine sees of the world around it. Data and an interface.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/torture/chance.hpp"
#include "vmrepl/session/secondary_core.hpp"
#include "vmrepl/wire/frame_codec.hpp"
#include "vmrepl/wire/repl_messages.hpp"

namespace havm::torture {

struct Message {
  FrameHeader header;
  std::string text;                   // the payload of all but a write
  std::vector<std::uint64_t> values;  // of a write: one for each sector that has memory
  std::vector<GrainHash> hashes;      // of a hash_ok
};

enum class Violation : std::uint8_t { none, lost, diverged, other };

// Thrown at the moment at which a host or an engine dies in the middle of something.
struct Death {
  int node = 0;
};

struct Reach {
  std::uint64_t completed_writes = 0;
  std::uint64_t completed_flushes = 0;
  std::uint64_t power_cuts = 0;
  std::uint64_t double_cuts = 0;
  std::uint64_t kills = 0;
  std::uint64_t clean_ends = 0;
  std::uint64_t promotions = 0;
  std::uint64_t shrinks = 0;
  std::uint64_t grows = 0;
  std::uint64_t partial_resyncs = 0;
  std::uint64_t full_resyncs = 0;
  std::uint64_t cut_resyncs = 0;
  std::uint64_t equal_copies = 0;    // ranges of which nothing had to be sent
  std::uint64_t partial_copies = 0;  // ranges of which only a part was sent
  std::uint64_t verifies = 0;        // ranges that were compared while live
  std::uint64_t torn_slots = 0;
  std::uint64_t torn_transactions = 0;
  std::uint64_t torn_bitmap_blocks = 0;
  std::uint64_t full_logs = 0;
  std::uint64_t vm_starts = 0;
  std::uint64_t lost_to_double_faults = 0;  // writes, unflushed
  std::uint64_t pairs_checked = 0;
  void add(const Reach& other);
};

class Surroundings {
 public:
  Surroundings() = default;
  Surroundings(const Surroundings&) = delete;
  Surroundings& operator=(const Surroundings&) = delete;
  virtual ~Surroundings() = default;

  virtual Chance& chance() = 0;
  virtual Reach& reach() = 0;
  [[nodiscard]] virtual bool verbose() const = 0;
  virtual void trace(int node, const std::string& what) = 0;
  virtual void violate(Violation kind, const std::string& what) = 0;
  void violate(const std::string& what) { violate(Violation::other, what); }
  // May throw Death: this node's fuse has burnt down.
  virtual void burn(int node, const char* what) = 0;

  virtual void send(ConnectionId link, int from, Message message) = 0;
  virtual void close(ConnectionId link, int from) = 0;
  // A guest request; `error` as BlockService, `values` what a read returned.
  virtual void completed(int node, std::uint64_t guest_id, int error,
                         const std::vector<std::uint64_t>& values) = 0;
  virtual std::uint64_t new_generation_id() = 0;
};

}  // namespace havm::torture
