// The job of these rules: name every rule of the replication engine that a test build can switch
// off, to show that the tests notice. In the product holds() is the constant true, and nothing of
// this is left in the object code. Built with HAVM_MUTATIONS, `broken_rule` chooses one rule that
// does not hold: HAVM_BROKEN_RULE, or whatever a test sets. Such builds are never installed.
// The numbers are those of docs/testing.md, Mutations. One thread.
#pragma once

#include <cstdint>

namespace havm {

enum class Rule : std::uint8_t {
  none,
  write_needs_partner,         // 1: a write completes only with the partner's ack
  write_needs_local,           // 1: and only when the own replica has it
  partner_gets_every_write,    // 1: both legs
  writes_keep_order,           // 2: range locks of the owner
  partner_keeps_order,         // 2: range locks of the partner
  copies_take_locks,           // 2: a resync copy is ordered among the guest's writes
  flush_waits_for_writes,      // 2, 3: held writes count before a later flush
  flush_needs_partner,         // 3
  flush_needs_local,           // 3
  fua_reaches_partner,         // 3
  acked_is_not_durable,        // 4: acked, unflushed ranges become dirty on loss
  in_flight_is_dirty,          // 4: so does what was in flight
  covered_until_answered,      // 4: a flush that was sent is not a flush that was done
  intent_before_data,          // 5: the log is durable before either leg
  eviction_after_flush,        // 5: an extent leaves only after a flush
  eviction_after_both,         // 5: of both legs
  eviction_after_save,         // 5: or as a saved bit
  retired_after_flush,         // 5: idle extents too
  log_extents_are_dirty,       // 5: what the log holds after a crash is compared
  hold_until_shrunk,           // 6: partner lost: nothing completes
  shrink_is_durable_first,     // 6: the held I/O completes only when alone is durable
  frames_carry_the_epoch,      // 6: the partner refuses an epoch below its promise
  mirrored_verdict,            // 8: unknown is refused or copied in full
  partial_needs_base,          // 8
  bit_needs_flush,             // 9: a bit is cleared when the partner has flushed
  equal_is_not_same_data,      // 9: an equal generation is no proof
  partner_marks_count,         // 9: the partner's own dirty set too
  new_generation_first,        // 9: before the first write that completes alone
  bits_outlive_sync,           // 9, 10: marks are void only after the grow
  uptodate_after_flush,        // 10
  uptodate_is_durable,         // 10: before the owner is told
  inconsistent_first,          // 10: durably, before the first byte
  full_needs_saved_bits,       // 10: every bit is saved before a full resync begins
  share_before_end,            // 10: noted before sync_end is sent
  own_set_until_uptodate,      // 10: the target keeps its own dirty set until the end
  zero_reaches_partner,        // 11
  promise_is_durable,          // session 1: before hello_ok
  promise_closes_session,      // session 1: nothing of an older epoch is applied
  promise_waits_for_quiet,     // session 1: what runs ends before the promise's flush
  never_reattach,              // session 1: a lost session while both are in sync means shrink
  suspect_is_noticed,          // session 8
  suspect_stays,               // session 8: over restarts
  promise_flushes,             // session 4
  count,
};

#ifdef HAVM_MUTATIONS

#ifndef HAVM_BROKEN_RULE
#define HAVM_BROKEN_RULE none
#endif
inline Rule broken_rule = Rule::HAVM_BROKEN_RULE;

namespace {
inline bool holds(Rule rule) {
  return rule != broken_rule;
}
}  // namespace

#else

namespace {
constexpr bool holds(Rule) {
  return true;
}
}  // namespace

#endif

}  // namespace havm
