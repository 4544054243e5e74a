#include "tests/torture/pair_check.hpp"

#include <algorithm>
#include <utility>

#include "vmrepl/bitmap/replica_marks.hpp"
#include "vmrepl/session/sync_verdict.hpp"

namespace havm::torture {
namespace {

struct Returned {
  HostImage image;
  ReplicaRecord record;
  ReplicaMarks marks;
};

std::optional<Returned> come_back(Surroundings& world, const NodeDisk& disk, bool power_cut) {
  HostImage image = power_cut ? disk.after_power_cut(world.chance()) : disk.as_it_is();
  auto found = recover(image.record, image.log, image.bitmap, disk.log_slots);
  if (!found) {
    world.violate("after a crash: " + found.error().message);
    return std::nullopt;
  }
  Recovered& r = found.value();
  const std::string boot = power_cut ? "another boot" : r.record.boot_id;
  ReplicaRecord record(std::move(r.record), boot);
  ReplicaMarks marks(std::move(r.bitmaps), r.table, r.next_transaction);
  if (record.record().owner_epoch == Epoch()) marks.forget(r.next_transaction);
  return Returned{std::move(image), std::move(record), std::move(marks)};
}

bool covered(const Returned& owner, const Returned& target, std::uint16_t disk,
             std::size_t sector) {
  const std::uint64_t offset = offset_of(sector);
  return owner.marks.dirty(disk).any_in(offset, sector_bytes) ||
         target.marks.dirty(disk).any_in(offset, sector_bytes);
}

}  // namespace

void check_pair(Surroundings& world, const Register& now, const NodeDisk& a, const NodeDisk& b) {
  ++world.reach().pairs_checked;
  const bool cut_a = world.chance().one_in(2);
  const bool cut_b = world.chance().one_in(2);
  auto at_a = come_back(world, a, cut_a);
  auto at_b = come_back(world, b, cut_b);
  if (!at_a || !at_b) return;
  int owner = now.owner;
  const auto& incumbent = owner == 0 ? *at_a : *at_b;
  const auto& other = owner == 0 ? *at_b : *at_a;
  // A suspect incumbent hands over to a partner that is not (decision 2).
  if (now.both() && incumbent.record.suspect() && !other.record.suspect()) owner = 1 - owner;
  Returned& up = owner == 0 ? *at_a : *at_b;
  const Returned& target = owner == 0 ? *at_b : *at_a;
  if (up.record.record().state != ReplicaState::uptodate)
    return world.violate("the replica that must be owner is " +
                         std::string(to_text(up.record.record().state)));
  const Epoch epoch = std::max({now.epoch, up.record.record().promised_epoch,
                                target.record.record().promised_epoch})
                          .next();
  up.record.serve(epoch);
  const ReplicaSummary of_owner = summary_of(up.record, true);
  const ReplicaSummary of_target = summary_of(target.record, true);
  const SyncVerdict verdict = decide_sync(of_owner, of_target, true);
  const SyncVerdict mirrored = decide_sync(of_target, of_owner, false);
  if (verdict.mode != mirrored.mode || verdict.split_brain != mirrored.split_brain)
    return world.violate("the verdicts are not mirrored: " + verdict.reason + " / " +
                         mirrored.reason);
  if (verdict.mode == SyncMode::refuse)
    return world.violate(Violation::diverged,
                         "the returned pair would refuse to resync" +
                             std::string(verdict.split_brain ? " (split brain): " : ": ") +
                             verdict.reason);
  if (verdict.mode == SyncMode::full) return;
  for (std::uint16_t disk = 0; disk < disks; ++disk)
    for (std::size_t i = 0; i < disk_sectors; ++i)
      if (up.image.images[disk][i] != target.image.images[disk][i] && !covered(up, target, disk, i))
        return world.violate(
            Violation::diverged,
            "after crashes the replicas may differ in sector " + name_of(disk * disk_sectors + i) +
                ", and no durable mark tells (" + std::to_string(up.image.images[disk][i]) +
                " and " + std::to_string(target.image.images[disk][i]) + ")");
}

}  // namespace havm::torture
