// The job of the generation model: two replicas of two blocks, with the production ReplicaRecord
// and decide_sync, walked through every history of a given number of events: writes, flushes,
// crashes that lose any subset of what was not flushed, lost links, going alone, promotion, resync
// begun, half done, ended, grown and cut off at every step, and the one act that can split a VM:
// a person who forces a replica to go on alone. The model knows for every block which write it
// descends from, and judges
//  - that no completed write is lost, save by a crash that took the last unflushed copy or by
//  force;
//  - that the owner never overwrites something completed that it lacks (no split brain missed);
//  - that a target with nothing of its own is never refused (none invented), nor copied in full;
//  - that a resync that ended left both replicas equal, however little it copied;
//  - that both sides come to the same verdict.
// A write completed without the partner's answer counts as something of one's own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace havm {

// Rules switched off in the model, one at a time: the judge must notice each.
enum class Mutant : std::uint8_t {
  none,
  no_generation_for_a_write,
  generation_for_a_flush,
  generation_at_promotion,
  generation_inside_a_session,
  no_base,
  sync_end_not_told,
  target_keeps_its_generation,
  inconsistent_not_persisted,
  bits_cleared_before_the_flush,
  owner_not_flushed_at_a_checkpoint,
  owner_not_flushed_at_a_grow,
  bits_void_at_sync_end,
  bits_not_all_set_for_full,
  log_forgotten_at_a_loss,
  targets_extents_not_sent,
  target_forgets_early,
  equal_generation_is_equal_data,
  losses_of_the_owner_ignored,
  last_of_the_list,
};
const char* to_text(Mutant mutant);

enum class Start : std::uint8_t { fresh, live, alone, promoted, syncing, synced, last_of_the_list };
const char* to_text(Start start);

struct WalkOutcome {
  std::string violation;           // the first one; empty: none
  std::vector<std::string> trace;  // the events that led to it
  std::uint64_t histories = 0;     // of exactly `depth` events
  std::uint64_t states = 0;        // judged: every prefix of every history
  std::uint64_t partial = 0;
  std::uint64_t full = 0;
  std::uint64_t refused = 0;
  std::uint64_t ended = 0;  // resyncs whose replicas were compared
};

// Every history of `depth` events from `start`; stops at the first violation.
WalkOutcome walk_generations(Start start, int depth, Mutant mutant = Mutant::none);

}  // namespace havm
