// The job of these rules: name every rule of the replication engine that a test build can switch
// off, to show that the tests notice. In the product holds() is the constant true, and nothing of
// this is left in the object code. Built with HAVM_MUTATIONS, `broken_rule` chooses one rule that
// does not hold: HAVM_BROKEN_RULE, or whatever a test sets. Such builds are never installed.
// The numbers are those of the design rules, told in docs/testing.md, Mutations. One thread.
#pragma once

#include <cstdint>

namespace havm {

enum class Rule : std::uint8_t {
  none,
  // 1: both legs
  write_needs_partner,
  write_needs_local,
  partner_gets_every_write,
  // 2: one order
  writes_keep_order,
  copies_take_locks,
  flush_waits_for_writes,
  // 3: flush
  flush_needs_partner,
  flush_needs_local,
  flush_gets_own_round,
  fua_reaches_partner,
  // 4: an ack is not durability
  acked_is_not_durable,
  covered_until_answered,
  in_flight_is_dirty,
  // 5: intent before data
  intent_before_data,
  eviction_after_flush,
  eviction_after_both,
  eviction_after_save,
  log_extents_are_dirty,
  // 6: the order of degrading
  hold_until_shrunk,
  own_replica_is_flushed,
  shrink_is_recorded,
  // 8: the verdict
  fresh_is_copied_in_full,
  // 9: generation and bits
  bit_needs_flush,
  equal_is_not_same_data,
  partner_marks_count,
  own_set_until_uptodate,
  // 10: the end of a resync
  full_needs_saved_bits,
  inconsistent_first,
  uptodate_after_flush,
  uptodate_is_durable,
  share_before_end,
  bits_outlive_sync,
  // 11: discard
  zero_reaches_partner,
  // Session rule 1
  promise_is_durable,
  promise_ends_session,
  hello_below_promise,
  never_reattach,
  // Session rule 4
  promise_flushes,
  // Session rule 8
  suspect_is_noticed,
  suspect_stays,
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
