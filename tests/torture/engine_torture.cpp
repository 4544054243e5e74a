#include <cstdio>
#include <cstdlib>
#include "tests/torture/world.hpp"
int main(int argc, char** argv) {
  using namespace havm::torture;
  unsigned long from = std::strtoul(argv[1], nullptr, 10), n = std::strtoul(argv[2], nullptr, 10);
  bool v = argc > 3;
  Reach sum; unsigned bad = 0;
  for (auto s = from; s < from + n; ++s) {
    World w(s, v);
    auto o = w.run();
    sum.add(o.reach);
    if (v) std::fputs(o.timeline.c_str(), stdout);
    if (!o.violation.empty()) { ++bad; std::printf("seed %lu: %s\n", s, o.violation.c_str()); }
  }
  std::printf("bad %u writes %lu flushes %lu cuts %lu double %lu kills %lu clean %lu promo %lu shrink %lu grow %lu partial %lu full %lu cutre %lu slots %lu log %lu bm %lu starts %lu lost %lu\n", bad, sum.completed_writes, sum.completed_flushes, sum.power_cuts, sum.double_cuts, sum.kills, sum.clean_ends, sum.promotions, sum.shrinks, sum.grows, sum.partial_resyncs, sum.full_resyncs, sum.cut_resyncs, sum.torn_slots, sum.torn_transactions, sum.torn_bitmap_blocks, sum.vm_starts, sum.lost_to_double_faults);
  return bad != 0;
}
