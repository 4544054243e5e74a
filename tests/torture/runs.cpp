#include "tests/torture/runs.hpp"

#include <csignal>
#include <cstdlib>
#include <exception>

#include <sys/wait.h>
#include <unistd.h>

#include "vmrepl/base/assert.hpp"

namespace havm::torture {
namespace {

// Of one seed, which takes less than a second.
constexpr unsigned seed_seconds_max = 120;

// What the child tells: all that is written to the pipe, its assertion's message among it.
[[noreturn]] void run_child(const Mutant& mutant, std::uint64_t first, std::uint64_t seeds_max,
                            int to_parent) {
  ::dup2(to_parent, STDERR_FILENO);
  broken_rule = mutant.rule;
  int status = EXIT_SUCCESS;
  for (std::uint64_t i = 0; i < seeds_max && status == EXIT_SUCCESS; ++i) {
    ::alarm(seed_seconds_max);
    std::string line = ".";  // one for each seed that was begun
    (void)!::write(to_parent, line.data(), line.size());
    std::string why;
    try {
      World world(first + i, false);
      why = world.run().violation;
    } catch (const std::exception& e) {
      why = std::string("the engine lost track of a request: ") + e.what();
    }
    if (why.empty()) continue;
    status = EXIT_FAILURE;
    line = "seed " + std::to_string(first + i) + ": " + why;
    (void)!::write(to_parent, line.data(), line.size());
  }
  ::_exit(status);
}

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

}  // namespace

Summary run_seeds(std::uint64_t first, std::uint64_t count, const Failed& failed) {
  Summary sum;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    const Outcome outcome = World(seed, false).run();
    ++sum.seeds;
    sum.reach.add(outcome.reach);
    if (outcome.kind == Violation::lost) ++sum.lost;
    if (outcome.kind == Violation::diverged) ++sum.diverged;
    if (outcome.kind == Violation::other) ++sum.other;
    if (outcome.kind != Violation::none) failed(seed, outcome.violation);
  }
  return sum;
}

std::string to_text(const Summary& summary) {
  const auto number = [](const char* name, std::uint64_t value) {
    return std::string(name) + "=" + std::to_string(value);
  };
  const Reach& r = summary.reach;
  std::string text = number("seeds", summary.seeds) + number(" lost", summary.lost) +
                     number(" diverged", summary.diverged);
  if (summary.other != 0) text += number(" other", summary.other);
  return text + "\n" + number("completed_writes", r.completed_writes) +
         number(" completed_flushes", r.completed_flushes) + number(" vm_starts", r.vm_starts) +
         number(" power_cuts", r.power_cuts) + number(" double_cuts", r.double_cuts) +
         number(" kills", r.kills) + number(" clean_ends", r.clean_ends) + "\n" +
         number("promotions", r.promotions) + number(" shrinks", r.shrinks) +
         number(" grows", r.grows) + number(" partial_resyncs", r.partial_resyncs) +
         number(" full_resyncs", r.full_resyncs) + number(" cut_resyncs", r.cut_resyncs) + "\n" +
         number("equal_copies", r.equal_copies) + number(" partial_copies", r.partial_copies) +
         number(" verifies", r.verifies) + "\n" + number("torn_record_slots", r.torn_slots) +
         number(" torn_log_blocks", r.torn_transactions) +
         number(" torn_bitmap_blocks", r.torn_bitmap_blocks) + number(" full_logs", r.full_logs) +
         number(" pairs_checked", r.pairs_checked) +
         number(" unflushed_lost_to_two_faults_or_alone", r.lost_to_double_faults);
}

Sentence try_mutant(const Mutant& mutant, std::uint64_t first, std::uint64_t seeds_max) {
  int ends[2];
  HAVM_ASSERT(::pipe(ends) == 0, "a pipe can be made");
  const pid_t child = ::fork();
  HAVM_ASSERT(child >= 0, "a process can be made");
  if (child == 0) {
    ::close(ends[0]);
    run_child(mutant, first, seeds_max, ends[1]);
  }
  ::close(ends[1]);
  std::string told;
  char piece[4096];
  for (ssize_t n = 0; (n = ::read(ends[0], piece, sizeof piece)) > 0;)
    told.append(piece, static_cast<std::size_t>(n));
  ::close(ends[0]);
  int status = 0;
  HAVM_ASSERT(::waitpid(child, &status, 0) == child, "the child can be waited for");
  Sentence sentence;
  while (sentence.seeds < told.size() && told[sentence.seeds] == '.')
    ++sentence.seeds;
  sentence.killed = !(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS);
  sentence.why = first_line(told.substr(sentence.seeds));
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
    sentence.why = "it does not come to an end";
  return sentence;
}

const std::vector<Mutant>& mutants() {
  using enum Rule;
  static const std::vector<Mutant> all{
      {write_needs_partner, "1", "completes a write and a flush without the partner"},
      {write_needs_local, "1", "completes a write before the own replica has it"},
      {partner_gets_every_write, "1", "does not send writes"},
      {writes_keep_order, "2", "lets writes of one range run at once"},
      {copies_take_locks, "2", "copies a range while the guest writes it"},
      {flush_waits_for_writes, "2", "answers a flush before older writes of its disk"},
      {flush_needs_partner, "3", "completes a flush without the partner's"},
      {flush_needs_local, "3", "completes a flush without the own one"},
      {flush_gets_own_round, "3", "lets a flush share one that began before it"},
      {fua_reaches_partner, "3", "sends FUA writes as plain ones"},
      {acked_is_not_durable, "4", "forgets what was acked and not flushed"},
      {covered_until_answered, "4", "takes a flush that was sent for one that was done"},
      {in_flight_is_dirty, "4", "forgets what was in flight when the session ended"},
      {intent_before_data, "5", "writes data before its extents are in the log"},
      {eviction_after_flush, "5", "drops extents from the log before any flush"},
      {eviction_after_both, "5", "drops them when only the own replica has flushed"},
      {eviction_after_save, "5", "drops them before the bitmap is saved"},
      {log_extents_are_dirty, "5", "does not compare what the log names after a crash"},
      {hold_until_shrunk, "6", "goes on without the partner before the swap"},
      {own_replica_is_flushed, "6", "shrinks without a flush of the own replica"},
      {shrink_is_recorded, "6", "does not record the shrink"},
      {fresh_is_copied_in_full, "8", "copies only marked ranges to a fresh replica"},
      {bit_needs_flush, "9", "clears bits when a copy is acked"},
      {equal_is_not_same_data, "9", "copies nothing to a replica of the same generation"},
      {partner_marks_count, "9", "leaves the target's own marks out"},
      {own_set_until_uptodate, "9", "lets the target forget its marks when a resync begins"},
      {full_needs_saved_bits, "10", "begins a full resync before every bit is saved"},
      {inconsistent_first, "10", "overwrites the target before it is recorded inconsistent"},
      {uptodate_after_flush, "10", "calls the target up to date without a flush"},
      {uptodate_is_durable, "10", "tells the owner before up to date is recorded"},
      {share_before_end, "10", "does not record that the partner may hold the generation"},
      {bits_outlive_sync, "10", "clears the marks before the end of a resync is confirmed"},
      {zero_reaches_partner, "11", "does not send discards"},
      {promise_is_durable, "S1", "accepts a session before its promise is durable"},
      {promise_ends_session, "S1", "goes on applying an epoch below its promise"},
      {hello_below_promise, "S1", "accepts a hello below its promise"},
      {never_reattach, "S1", "attaches again at an epoch at which both were in sync"},
      {promise_flushes, "S4", "promises without a flush"},
      {suspect_is_noticed, "S8", "takes itself for whole after a power cut"},
      {suspect_stays, "S8", "forgets that it is suspect when it is restarted"},
  };
  return all;
}

}  // namespace havm::torture
