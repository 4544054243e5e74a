// The job of this switch: the rule that makes the product, and the one place where a test build
// breaks it. Included by the sources of PrimaryCore only.
#pragma once

namespace havm {
namespace {

#ifdef HAVM_BREAK_ACK_BEFORE_PARTNER
// DELIBERATELY BROKEN: the guest gets its answer before the partner has the data. Compiled only
// into the program havm-repl-broken-ack, which is never installed: it shows that our checkers
// notice.
constexpr bool ack_needs_partner = false;
#else
constexpr bool ack_needs_partner = true;
#endif

}  // namespace
}  // namespace havm
