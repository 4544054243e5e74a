#include "tests/torture/world.hpp"

#include <algorithm>
#include <utility>

#include "tests/torture/pair_check.hpp"

namespace havm::torture {
namespace {

constexpr std::uint64_t heal_steps_max = 20000;

Record first_record(bool owner, bool shared) {
  Record r;
  r.vm = "torture";
  r.vm_id = "torture";
  r.node = owner ? "a" : "b";
  r.disks = identities();
  r.boot_id = owner ? "a1" : "b1";
  r.clean = true;
  if (owner) r.state = ReplicaState::uptodate;
  // Both replicas are empty, so they are equal; or the second is fresh and holds whatever.
  if (shared) r.generation = 1;
  return r;
}

}  // namespace

void Reach::add(const Reach& other) {
  completed_writes += other.completed_writes;
  completed_flushes += other.completed_flushes;
  power_cuts += other.power_cuts;
  double_cuts += other.double_cuts;
  kills += other.kills;
  clean_ends += other.clean_ends;
  promotions += other.promotions;
  shrinks += other.shrinks;
  grows += other.grows;
  partial_resyncs += other.partial_resyncs;
  full_resyncs += other.full_resyncs;
  cut_resyncs += other.cut_resyncs;
  equal_copies += other.equal_copies;
  partial_copies += other.partial_copies;
  verifies += other.verifies;
  torn_slots += other.torn_slots;
  torn_transactions += other.torn_transactions;
  torn_bitmap_blocks += other.torn_bitmap_blocks;
  full_logs += other.full_logs;
  vm_starts += other.vm_starts;
  lost_to_double_faults += other.lost_to_double_faults;
  pairs_checked += other.pairs_checked;
}

World::World(std::uint64_t seed, bool verbose) : chance_(seed), verbose_(verbose) {
  constexpr std::array<std::uint32_t, 4> slots{3, 4, 6, 16};
  const std::uint32_t log_slots = slots[chance_.pick(slots.size())];
  const bool shared = !chance_.one_in(4);
  for (int n = 0; n < 2; ++n)
    nodes_.emplace_back(NodeDisk(first_record(n == 0, shared), log_slots));
  if (!shared) at(1).disk.fill_with_garbage();
  steps_ = 500 + chance_.pick(2500);
  constexpr std::array<std::uint64_t, 4> every{30, 80, 150, 400};
  fault_every_ = every[chance_.pick(every.size())];
  requests_most_ = 2 + chance_.pick(20);
  hot_ = chance_.pick(2 * clusters);
  single_faults_ = chance_.one_in(4);
}

Outcome World::run() {
  while (step_ < steps_ && outcome_.violation.empty())
    step(true);
  heal();
  if (single_faults_ && outcome_.reach.lost_to_double_faults != 0)
    violate(Violation::lost, "a completed write was lost, but never were there two faults at once");
  return std::move(outcome_);
}

void World::trace(int node, const std::string& what) {
  if (!verbose_) return;
  outcome_.timeline += std::to_string(step_) + " " +
                       (node == 0   ? "a: "
                        : node == 1 ? "b: "
                                    : "") +
                       what + "\n";
}

void World::violate(Violation kind, const std::string& what) {
  if (!outcome_.violation.empty()) return;
  outcome_.kind = kind;
  outcome_.violation = what;
  trace(-1, "VIOLATION " + what);
}

void World::burn(int node, const char* what) {
  Node& n = at(node);
  if (n.fuse == 0 || --n.fuse != 0) return;
  if (verbose_) trace(node, std::string("dies ") + what);
  throw Death{node};
}

// ---- one step --------------------------------------------------------------------------------

void World::step(bool faults) {
  ++step_;
  guarded([&] {
    switch (const auto what = chance_.pick(32); what) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
        return faults ? submit() : run_some_io();
      case 6:
      case 7:
      case 8:
      case 9:
      case 10:
      case 11:
      case 12:
      case 13:
        return run_some_io();
      case 14:
      case 15:
      case 16:
      case 17:
      case 18:
      case 19:
      case 20:
      case 21:
      case 22:
        return deliver();
      case 23:
      case 24:
      case 25:
      case 26:
      case 27:
        return agent_turn(static_cast<int>(chance_.pick(2)));
      case 28:
        return connect(static_cast<int>(chance_.pick(2)));
      case 29:
        if (const int node = static_cast<int>(chance_.pick(2)); at(node).engine) {
          at(node).engine->tick(chance_.one_in(2));
          end_engine(node);
        }
        return;
      case 30:
        return end_some_link();
      default:
        return check();
    }
  });
  for (int node = 0; node < 2; ++node)
    end_engine(node);
  if (faults && chance_.one_in(fault_every_)) fault();
}

void World::run_some_io() {
  const int node = static_cast<int>(chance_.pick(2));
  for (std::uint64_t i = 1 + chance_.pick(3); i > 0; --i) {
    SimEngine* engine = at(node).engine.get();
    if (engine == nullptr || engine->io_waiting() == 0) return;
    engine->run_io(chance_.pick(engine->io_waiting()));
    end_engine(node);
  }
}

void World::check() {
  judge_.check(register_, at(0).disk, at(1).disk);
  check_pair(*this, register_, at(0).disk, at(1).disk, {boot_id(0), boot_id(1)});
}

// ---- the network -----------------------------------------------------------------------------

void World::send(ConnectionId link, int from, Message message) {
  const auto it = links_.find(link);
  if (it == links_.end() || !it->second.open[static_cast<std::size_t>(from)]) return;
  it->second.to[static_cast<std::size_t>(1 - from)].push_back(std::move(message));
}

void World::close(ConnectionId link, int from) {
  const auto it = links_.find(link);
  if (it != links_.end()) it->second.open[static_cast<std::size_t>(from)] = false;
}

void World::connect(int node) {
  SimEngine* engine = at(node).engine.get();
  if (engine == nullptr || !network_up_ || !engine->may_connect()) return;
  if (!at(1 - node).engine) return;
  links_.emplace(++last_link_, Link{});
  judge_.session_begins(1 - node);
  engine->connected(last_link_);
  engine->pump();
}

void World::deliver() {
  if (links_.empty() || !network_up_) return;
  auto it = links_.begin();
  std::advance(it, static_cast<std::ptrdiff_t>(chance_.pick(links_.size())));
  const ConnectionId id = it->first;
  for (std::uint64_t i = 1 + chance_.pick(4); i > 0; --i) {
    const int to = static_cast<int>(chance_.pick(2));
    const auto found = links_.find(id);
    if (found == links_.end()) return;
    auto& queue = found->second.to[static_cast<std::size_t>(to)];
    if (queue.empty()) continue;
    const Message message = std::move(queue.front());
    queue.pop_front();
    if (!found->second.open[static_cast<std::size_t>(to)]) continue;
    at(to).engine->receive(id, message);
    end_engine(to);
  }
}

// A connection that one end has left ends for the other too: when it hears of it, or by silence.
void World::end_some_link() {
  if (links_.empty()) return;
  auto it = links_.begin();
  std::advance(it, static_cast<std::ptrdiff_t>(chance_.pick(links_.size())));
  Link& link = it->second;
  if (link.open[0] && link.open[1]) {
    if (network_up_ || !chance_.one_in(3)) return;
    const auto first = chance_.pick(2);  // one end gives up before the other
    link.open[first] = false;
    if (SimEngine* engine = at(static_cast<int>(first)).engine.get()) engine->closed(it->first);
    return;
  }
  const int last = link.open[0] ? 0 : 1;
  if (!link.open[static_cast<std::size_t>(last)]) {
    links_.erase(it);
    return;
  }
  if (!link.to[static_cast<std::size_t>(last)].empty() && !chance_.one_in(8)) return;
  const ConnectionId id = it->first;
  links_.erase(it);
  if (at(last).engine) at(last).engine->closed(id);
}

// ---- the end ---------------------------------------------------------------------------------

std::string World::boot_id(int node) const {
  const Node& n = at(node);
  return (node == 0 ? "a" : "b") + std::to_string(n.up ? n.boot : n.boot + 1);
}

bool World::is_protected() const {
  const Node& owner = at(register_.owner);
  const SimEngine* partner = at(1 - register_.owner).engine.get();
  // The owner may not have noticed yet what happened to its partner.
  if (partner == nullptr || !partner->secondary().has_session()) return false;
  return register_.both() && owner.engine && owner.engine->session() == SessionState::live &&
         vm_node_ == register_.owner && !vm_paused_;
}

void World::heal() {
  healing_ = true;
  network_up_ = arbiter_up_ = true;
  for (Node& n : nodes_)
    n.fuse = 0;
  trace(-1, "everything is healed");
  for (std::uint64_t i = 0; i < heal_steps_max && outcome_.violation.empty(); ++i) {
    if (is_protected() && requests_.empty()) break;
    for (int n = 0; n < 2; ++n)
      if (!at(n).up) {
        at(n).up = true;
        ++at(n).boot;
      }
    step(false);
  }
  if (!outcome_.violation.empty()) return;
  if (!is_protected() || !requests_.empty()) {
    violate("it does not heal: owner " + std::to_string(register_.owner) + ", both " +
            std::to_string(register_.both()) + ", VM on " + std::to_string(vm_node_) + ", " +
            std::to_string(requests_.size()) + " requests left");
    return;
  }
  check();
  judge_.check_equal(at(0).disk, at(1).disk);
}

}  // namespace havm::torture
