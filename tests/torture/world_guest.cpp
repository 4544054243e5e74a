// The part of World that is the guest.
#include <algorithm>
#include <utility>

#include "tests/torture/world.hpp"

namespace havm::torture {

void World::submit() {
  if (vm_node_ < 0 || vm_paused_ || requests_.size() >= requests_most_) return;
  SimEngine* engine = at(vm_node_).engine.get();
  if (engine == nullptr || !engine->is_owner()) return;
  GuestRequest r;
  const auto kind = chance_.pick(16);
  r.what.op = kind < 10   ? DiskOp::write
              : kind < 12 ? DiskOp::zero
              : kind < 14 ? DiskOp::read
                          : DiskOp::flush;
  r.what.disk = static_cast<std::uint16_t>(chance_.pick(disks));
  if (r.what.op != DiskOp::flush) {
    const bool hot = hot_ < clusters && chance_.one_in(2);
    const std::size_t cluster = hot ? hot_ : chance_.pick(clusters);
    const std::size_t from = chance_.pick(cluster_sectors);
    r.count = 1 + chance_.pick(cluster_sectors - from);
    const std::size_t in_disk = cluster * cluster_sectors + from;
    r.first = r.what.disk * disk_sectors + in_disk;
    r.what.offset = offset_of(in_disk);
    r.what.length = static_cast<std::uint32_t>(r.count * sector_bytes);
    r.what.fua = changes_data(r.what) && chance_.one_in(8);
    r.what.may_unmap = r.what.op == DiskOp::zero && chance_.one_in(2);
  }
  submit(std::move(r));
}

void World::submit(GuestRequest r) {
  r.arrival = judge_.next_arrival();
  r.before = judge_.completed();
  if (r.what.op == DiskOp::write && r.values.empty()) r.values.assign(r.count, r.arrival);
  for (std::size_t i = 0; i < r.count && changes_data(r.what); ++i)
    judge_.write_submitted(r.first + i, r.arrival, r.values.empty() ? 0 : r.values[i]);
  if (verbose_) {
    const char* name = r.what.op == DiskOp::write  ? "write "
                       : r.what.op == DiskOp::zero ? "zero "
                       : r.what.op == DiskOp::read ? "read "
                                                   : "flush ";
    trace(vm_node_, std::string("guest ") + name + std::to_string(r.arrival) +
                        (r.what.fua ? " (FUA)" : "") + " of " + name_of(r.first) + " +" +
                        std::to_string(r.count) + ", disk " + std::to_string(r.what.disk));
  }
  const std::uint64_t id = ++last_request_;
  const DiskRequest what = r.what;
  std::vector<std::uint64_t> values = r.values;
  requests_[id] = std::move(r);
  at(vm_node_).engine->submit(id, what, std::move(values));
}

void World::completed(int node, std::uint64_t guest_id, int error,
                      const std::vector<std::uint64_t>& values) {
  const auto found = requests_.find(guest_id);
  if (found == requests_.end()) return;  // of a VM that is gone
  const GuestRequest r = std::move(found->second);
  requests_.erase(found);
  if (error != 0) return violate("a guest request failed");
  if (verbose_) trace(node, "completes " + std::to_string(r.arrival));
  switch (r.what.op) {
    case DiskOp::read:
      return judge_.read_completed(r.first, values, r.before);
    case DiskOp::flush:
      ++outcome_.reach.completed_flushes;
      for (const auto& [id, other] : requests_)
        if (changes_data(other.what) && other.what.disk == r.what.disk && other.arrival < r.arrival)
          return violate("a flush was answered before an older write of its disk");
      return judge_.flush_completed(r.what.disk, r.before);
    case DiskOp::write:
    case DiskOp::zero:
      ++outcome_.reach.completed_writes;
      judge_.write_completed(r.first, r.count, r.arrival, r.what.fua, register_.owner != node);
      judge_.check(register_, at(0).disk, at(1).disk);
  }
}

void World::kill_vm() {
  trace(vm_node_, "the VM ends");
  vm_node_ = -1;
  vm_paused_ = false;
  requests_.clear();
}

// Starts the VM, or lets it go on after its disk was away.
void World::vm_turn(int node) {
  Node& n = at(node);
  const bool may_run = register_.owner == node && n.engine && n.engine->is_owner() &&
                       !n.engine->busy() && n.engine->primary().epoch() == register_.epoch &&
                       n.stopped_epoch != register_.epoch && !n.agent.handover;
  if (!may_run) return;
  if (vm_node_ == node) {
    if (!vm_paused_) return;
    trace(node, "the VM goes on");
    vm_paused_ = false;
    judge_.vm_resumes(node, n.disk);
    for (auto& [id, request] : std::exchange(requests_, {}))
      submit(std::move(request));
    return;
  }
  if (n.engine->primary().guest_requests() != 0) return;  // left from a VM that was killed
  if (vm_node_ >= 0) kill_vm();
  trace(node, "the VM starts");
  judge_.vm_starts(node, n.disk);
  vm_node_ = node;
}

}  // namespace havm::torture
