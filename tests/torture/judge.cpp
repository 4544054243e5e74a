#include "tests/torture/judge.hpp"

#include <algorithm>

namespace havm::torture {

Judge::Judge(Surroundings& world)
    : world_(world),
      history_(all_sectors, std::vector<Write>(1)),
      completed_(all_sectors),
      flushed_(all_sectors),
      secured_(all_sectors),
      told_(all_sectors) {}

bool Judge::find(std::size_t sector, std::uint64_t value, std::uint64_t least,
                 std::uint64_t& arrival) const {
  const auto& writes = history_[sector];
  for (auto it = writes.rbegin(); it != writes.rend() && it->arrival >= least; ++it) {
    if (it->value != value) continue;
    arrival = it->arrival;
    return true;
  }
  return false;
}

void Judge::demand(std::size_t sector, std::uint64_t value, std::uint64_t least,
                   const std::string& who) {
  std::uint64_t arrival = 0;
  if (find(sector, value, least, arrival)) return;
  world_.violate(Violation::lost, who + ": sector " + name_of(sector) + " holds " +
                                      std::to_string(value) + ", but write " +
                                      std::to_string(least) + " was promised");
}

std::uint64_t Judge::certain(std::size_t sector) const {
  return std::max(flushed_[sector], secured_[sector]);
}

void Judge::lower() {
  for (std::size_t s = 0; s < all_sectors; ++s)
    completed_[s] = certain(s);
}

// ---- the guest -------------------------------------------------------------------------------

void Judge::write_submitted(std::size_t sector, std::uint64_t arrival, std::uint64_t value) {
  history_[sector].push_back({arrival, value});
}

void Judge::write_completed(std::size_t first, std::size_t count, std::uint64_t arrival, bool fua,
                            bool owner_has_changed) {
  for (std::size_t s = first; s < first + count; ++s) {
    completed_[s] = std::max(completed_[s], arrival);
    told_[s] = std::max(told_[s], arrival);
    if (fua) flushed_[s] = std::max(flushed_[s], arrival);
    // The old owner tells its guest of what the partner acked before it promised: the promise
    // flushed it.
    if (owner_has_changed) secured_[s] = std::max(secured_[s], arrival);
  }
}

void Judge::flush_completed(std::uint16_t disk, const PerSector& before) {
  const std::size_t first = disk * disk_sectors;
  for (std::size_t s = first; s < first + disk_sectors; ++s)
    flushed_[s] = std::max(flushed_[s], before[s]);
}

void Judge::read_completed(std::size_t first, const std::vector<std::uint64_t>& values,
                           const PerSector& before) {
  for (std::size_t i = 0; i < values.size(); ++i)
    demand(first + i, values[i], before[first + i], "a read");
}

// ---- faults and the register -----------------------------------------------------------------

void Judge::power_cut(int node, const Register& now, bool nothing_unflushed) {
  const auto n = static_cast<std::size_t>(node);
  was_cut_[n] = now.both();
  if (nothing_unflushed || !now.in_sync[n]) return;
  if (!now.both()) return lower();
  lacks_[n] = true;
  if (!lacks_[1 - n]) return;
  ++world_.reach().double_cuts;
  lower();
}

void Judge::swapped(const Register& before, const Register& after, bool partner_is_heard) {
  if (before.both() && !after.both()) {
    const auto n = static_cast<std::size_t>(after.owner);
    if (lacks_[n] && !lacks_[1 - n]) {
      if (partner_is_heard && !was_cut_[1 - n])
        world_.violate(Violation::lost,
                       "a replica that lacks writes went on alone beside one that has them");
      lower();
    }
    secured_ = completed_;
    lacks_ = was_cut_ = {};
  }
  if (!before.both() && !after.both() && before.owner != after.owner)
    world_.violate("a replica that was not in sync became owner");
}

void Judge::vm_starts(int node, const NodeDisk& disk) {
  ++world_.reach().vm_starts;
  for (std::size_t s = 0; s < all_sectors; ++s) {
    const std::uint64_t value = disk.value(s);
    std::uint64_t found = 0;
    if (!find(s, value, completed_[s], found)) {
      demand(s, value, completed_[s], "the VM starts on " + std::string(node == 0 ? "a" : "b"));
      return;
    }
    if (found < told_[s]) ++world_.reach().lost_to_double_faults;
    std::erase_if(history_[s], [&](const Write& w) { return w.arrival > found; });
    completed_[s] = told_[s] = found;
  }
}

void Judge::vm_resumes(int node, const NodeDisk& disk) {
  for (std::size_t s = 0; s < all_sectors; ++s)
    demand(s, disk.value(s), completed_[s],
           "the VM goes on on " + std::string(node == 0 ? "a" : "b"));
}

void Judge::check(const Register& now, const NodeDisk& a, const NodeDisk& b) {
  for (std::size_t n = 0; n < 2; ++n) {
    if (!now.in_sync[n]) continue;
    const NodeDisk& disk = n == 0 ? a : b;
    const std::string who = n == 0 ? "replica a" : "replica b";
    for (std::size_t d = 0; d < disks; ++d) {
      const DiskImage left =
          disk.images[d].after_power_cut(world_.chance(), any_survival(world_.chance()));
      for (std::size_t i = 0; i < disk_sectors; ++i) {
        const std::size_t s = d * disk_sectors + i;
        if (!lacks_[n]) demand(s, disk.value(s), completed_[s], who);
        demand(s, left[i], certain(s), who + " after a power cut");
      }
    }
  }
}

void Judge::check_equal(const NodeDisk& a, const NodeDisk& b) {
  for (std::size_t s = 0; s < all_sectors; ++s)
    if (a.value(s) != b.value(s))
      return world_.violate(Violation::diverged,
                            "the replicas differ in the end, in sector " + name_of(s) + ": " +
                                std::to_string(a.value(s)) + " and " + std::to_string(b.value(s)));
}

}  // namespace havm::torture
