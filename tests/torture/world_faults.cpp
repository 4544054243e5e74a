// The part of World in which things die and come back.
#include <utility>

#include "tests/torture/world.hpp"

namespace havm::torture {

void World::fault() {
  const bool all_well =
      is_protected() && network_up_ && arbiter_up_ && at(0).fuse == 0 && at(1).fuse == 0;
  if (single_faults_ && !all_well) {
    // What was broken comes back.
    network_up_ = arbiter_up_ = true;
    for (Node& n : nodes_)
      if (!n.up) {
        n.up = true;
        ++n.boot;
      }
    return;
  }
  const int node = static_cast<int>(chance_.pick(2));
  Node& n = at(node);
  switch (chance_.pick(16)) {
    case 0:
    case 1:
    case 2:
      if (n.up) light_fuse(node, true);
      if (n.up && !single_faults_ && chance_.one_in(4) && at(1 - node).up)
        light_fuse(1 - node, true);
      return;
    case 3:
    case 4:
    case 5:
      if (n.engine) light_fuse(node, false);
      return;
    case 6:
    case 7:
    case 8:
      for (int i = 0; i < 2; ++i)
        if (!at(i).up && chance_.one_in(2)) {
          at(i).up = true;
          ++at(i).boot;
          trace(i, "boots");
        }
      return;
    case 9:
    case 10:
      network_up_ = !network_up_;
      trace(-1, network_up_ ? "the network is back" : "the network is cut");
      return;
    case 11:
      arbiter_up_ = !arbiter_up_;
      trace(-1, arbiter_up_ ? "the arbiter is back" : "the arbiter is away");
      return;
    case 12:
      // All connections break, the network stays.
      trace(-1, "the connections break");
      for (auto& [id, link] : links_)
        if (link.open[0] && link.open[1]) {
          const auto end = chance_.pick(2);
          link.open[end] = false;
          if (at(static_cast<int>(end)).engine)
            guarded([&] { at(static_cast<int>(end)).engine->closed(id); });
          return;
        }
      return;
    case 13:
      // A hand-over by hand.
      if (n.engine && register_.owner == node && is_protected() && !n.agent.handover) {
        trace(node, "is asked to hand the VM over");
        n.agent.handover = Handover{register_.epoch, false};
      }
      return;
    case 14:
      if (!n.engine || n.engine->busy()) return;
      trace(node, "the engine is asked to end in order");
      if (vm_node_ == node) kill_vm();
      n.reboots = chance_.one_in(2);
      guarded([&] { n.engine->quit(); });
      return end_engine(node);
    default:
      trace(node, "the agent is started again");
      n.agent = Agent{};
      return;
  }
}

// Now, or some steps into what it does next.
void World::light_fuse(int node, bool cuts) {
  Node& n = at(node);
  n.fuse_cuts = cuts;
  if (!n.engine || chance_.one_in(4)) return die(node);
  n.fuse = 1 + chance_.pick(40);
}

void World::die(int node) {
  Node& n = at(node);
  n.fuse = 0;
  if (n.fuse_cuts)
    power_cut(node);
  else
    kill_engine(node);
}

void World::drop_links(int node) {
  for (auto& [id, link] : links_)
    link.open[static_cast<std::size_t>(node)] = false;
}

void World::power_cut(int node) {
  Node& n = at(node);
  trace(node, "loses its power");
  ++outcome_.reach.power_cuts;
  bool nothing_unflushed = true;
  for (const auto& image : n.disk.images)
    nothing_unflushed = nothing_unflushed && image.contents() == image.durable();
  n.engine.reset();
  drop_links(node);
  if (vm_node_ == node) kill_vm();
  n.disk.power_cut(chance_);
  judge_.power_cut(node, register_, nothing_unflushed);
  n.agent = Agent{};
  n.up = false;
}

void World::kill_engine(int node) {
  Node& n = at(node);
  trace(node, "the engine is killed");
  ++outcome_.reach.kills;
  n.engine.reset();
  drop_links(node);
  n.disk.engine_killed(chance_);
  n.agent.flushed = false;
  n.agent.asked = Asked::nothing;
  n.agent.promotion.reset();
  if (vm_node_ != node) return;
  // QEMU stops on its lost disk; its requests are repeated when it is back.
  vm_paused_ = true;
  if (chance_.one_in(4)) kill_vm();
}

void World::start_engine(int node) {
  Node& n = at(node);
  auto found = recover(n.disk.record.contents(), n.disk.log.contents(), n.disk.bitmap.contents(),
                       n.disk.log_slots);
  if (!found) return violate("the engine cannot start: " + found.error().message);
  Reach& reach = outcome_.reach;
  if (found.value().slot_torn) ++reach.torn_slots;
  if (found.value().log_torn) ++reach.torn_transactions;
  reach.torn_bitmap_blocks += found.value().bitmap_blocks_torn;
  if (verbose_) trace(node, "the engine starts on record " + record_to_json(found.value().record));
  n.agent.flushed = false;
  n.agent.asked = Asked::nothing;
  n.engine = std::make_unique<SimEngine>(*this, node, n.disk,
                                         (node == 0 ? "a" : "b") + std::to_string(n.boot),
                                         std::move(found).value());
}

// An engine that has ended in order; perhaps the host is shut down then.
void World::end_engine(int node) {
  Node& n = at(node);
  if (!n.engine || !n.engine->has_ended()) return;
  trace(node, "the engine has ended in order");
  ++outcome_.reach.clean_ends;
  n.engine.reset();
  n.fuse = 0;
  drop_links(node);
  n.agent = Agent{};
  if (!std::exchange(n.reboots, false)) return;
  bool nothing_unflushed = true;
  for (const auto& image : n.disk.images)
    nothing_unflushed = nothing_unflushed && image.contents() == image.durable();
  judge_.power_cut(node, register_, nothing_unflushed);
  n.disk.power_cut(chance_);
  ++n.boot;
  trace(node, "the host is started again");
}

}  // namespace havm::torture
