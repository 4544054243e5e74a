#include "tests/unit/vmrepl/session/generation_world.hpp"

namespace havm::generation_model {
namespace {

Record first_record(ReplicaState state) {
  Record r;
  r.state = state;
  r.boot_id = "0";
  return r;
}

// Holds nothing of anything.
constexpr Version garbage = versions_max - 1;

// ---- the disk --------------------------------------------------------------------------------

void put(Block& block, Version v) {
  block.now = v;
  block.unflushed[block.unflushed_count++] = v;
}

void make_durable(Node& n) {
  for (Block& b : n.disk) {
    b.durable = b.now;
    b.unflushed_count = 0;
  }
}

void lose_unflushed(Node& n, unsigned outcome) {
  for (Block& b : n.disk) {
    const unsigned survivors = 1U + b.unflushed_count;
    const unsigned which = outcome % survivors;
    outcome /= survivors;
    if (which != 0) b.durable = b.unflushed[which - 1];
    b.now = b.durable;
    b.unflushed_count = 0;
  }
}

}  // namespace

std::string text(const Event& e) {
  constexpr const char* names[] = {
      "write",       "write_cut", "flush",    "crash",        "kill",       "link", "shrink",
      "serve",       "promote",   "connect",  "copy",         "checkpoint", "end",  "end_unheard",
      "end_unknown", "grow",      "grow_cut", "grow_not_won", "force"};
  return std::string(names[static_cast<std::size_t>(e.kind)]) + "(" + std::to_string(e.a) + "," +
         std::to_string(e.b) + ")";
}

unsigned crash_outcomes(const Node& node) {
  unsigned outcomes = 1;
  for (const Block& b : node.disk)
    outcomes *= 1U + b.unflushed_count;
  return outcomes;
}

World first_world() {
  World w{{Node{ReplicaRecord(first_record(ReplicaState::uptodate), "0")},
           Node{ReplicaRecord(first_record(ReplicaState::inconsistent), "0")}}};
  for (Version v = 0; v < blocks; ++v)
    w.descent[v] = bit(v);
  w.versions = blocks;
  for (Node& n : w.nodes)
    for (std::size_t b = 0; b < blocks; ++b)
      n.disk[b].now = n.disk[b].durable = static_cast<Version>(b);
  w.nodes[0].record.serve(Epoch(1));
  w.nodes[0].serving = true;
  w.nodes[1].disk[0].now = w.nodes[1].disk[0].durable = garbage;
  w.nodes[1].mixed = true;
  return w;
}

void Events::violate(const std::string& what) {
  if (outcome_.violation.empty()) outcome_.violation = what;
}

void Events::apply(World& w, const Event& e) {
  Node& o = w.nodes[w.owner];
  switch (e.kind) {
    case Kind::write:
      return write(w, e.b, e.a);
    case Kind::write_cut:
      return write_cut(w, e.a, e.b != 0);
    case Kind::flush:
      return flush(w);
    case Kind::crash:
      return crash(w, e.a, e.b);
    case Kind::kill:
      o.record = ReplicaRecord(o.record.record(), std::to_string(o.boot));
      return stop(w, o);
    case Kind::link:
      return lose_session(w);
    case Kind::shrink:
      return shrink(w);
    case Kind::serve:
      return serve(w);
    case Kind::promote:
      return promote(w);
    case Kind::connect:
      return connect(w);
    case Kind::copy:
      return copy(w);
    case Kind::checkpoint:
      return checkpoint(w);
    case Kind::end:
    case Kind::end_unheard:
    case Kind::end_unknown:
      return end(w, e.kind);
    case Kind::grow:
    case Kind::grow_cut:
    case Kind::grow_not_won:
      return grow(w, e.kind);
    case Kind::force:
      return force(w, e.a);
  }
}

namespace {

bool was_owner(const Node& n) {
  return n.record.record().owner_epoch != Epoch();
}

}  // namespace

// ---- what is judged always ----------------------------------------------------------------

Versions Events::has(const World& w, const Node& n) {
  Versions all = 0;
  for (const Block& b : n.disk)
    all |= w.descent[b.now];
  return all;
}

void Events::judge(const World& w) {
  const Node& o = w.nodes[w.owner];
  if (o.serving && (w.required & ~has(w, o)) != 0) violate("the owner lacks a completed write");
  if (w.both)
    for (const Node& n : w.nodes)
      if (!n.record.suspect() && n.record.record().state == ReplicaState::uptodate &&
          (w.required & ~has(w, n)) != 0)
        violate("a replica in sync lacks a completed write");
}

// ---- the owner's data path ----------------------------------------------------------------

void Events::complete(World& w, const Node& n, Versions what) {
  w.completed |= what;
  if (&n == &w.nodes[w.owner]) w.required |= what;
}

void Events::new_generation(World& w, Node& n) {
  n.record.new_generation(++w.generations);
}

void Events::alone(World& w, Node& n) {
  if (n.record.generation_due() && !broken(Mutant::no_generation_for_a_write)) {
    const Record before = n.record.record();
    new_generation(w, n);
    if (broken(Mutant::no_base)) {
      Record r = n.record.record();
      r.base_generation = before.base_generation;
      n.record = ReplicaRecord(r, std::to_string(n.boot));
    }
  }
  n.own = true;
}

Version Events::next_version(World& w, const Node& n, std::size_t block) {
  const Version v = w.versions++;
  w.descent[v] = w.descent[n.disk[block].now] | bit(v);
  return v;
}

void Events::write(World& w, std::size_t node, std::size_t block) {
  Node& n = w.nodes[node];
  const bool streams = node == w.owner && w.phase != Phase::none;
  if (streams) {
    n.log |= 1U << block;
    if (broken(Mutant::generation_inside_a_session) && n.record.generation_due() &&
        !n.record.may_be_both())
      new_generation(w, n);
  } else {
    alone(w, n);
    n.dirty |= 1U << block;
  }
  const Version v = next_version(w, n, block);
  put(n.disk[block], v);
  if (streams) put(w.nodes[1 - node].disk[block], v);
  complete(w, n, bit(v));
}

void Events::write_cut(World& w, std::size_t block, bool partner_got_it) {
  Node& o = w.nodes[w.owner];
  o.log |= 1U << block;
  const Version v = next_version(w, o, block);
  put(o.disk[block], v);
  if (partner_got_it) put(w.nodes[1 - w.owner].disk[block], v);
  lose_session(w);
  if (o.record.may_be_both()) {
    o.held |= bit(v);
    return;
  }
  alone(w, o);
  complete(w, o, bit(v));
}

void Events::flush(World& w) {
  Node& o = w.nodes[w.owner];
  make_durable(o);
  if (w.phase != Phase::none) {
    make_durable(w.nodes[1 - w.owner]);
    o.log = 0;
  } else if (broken(Mutant::generation_for_a_flush) && o.record.generation_due()) {
    new_generation(w, o);
  }
  w.flushed |= w.completed & has(w, o);
}

// ---- faults -------------------------------------------------------------------------------

void Events::lose_session(World& w) {
  if (w.phase == Phase::none) return;
  w.phase = Phase::none;
  w.to_copy = w.copied = 0;
  settle_log(w.nodes[w.owner]);
}

// What the log holds becomes dirty bits.
void Events::settle_log(Node& n) {
  if (!broken(Mutant::log_forgotten_at_a_loss)) n.dirty |= n.log;
  n.log = 0;
}

void Events::stop(World& w, Node& n) {
  lose_session(w);
  n.serving = false;
  n.held = 0;
  settle_log(n);
}

void Events::crash(World& w, std::size_t node, unsigned which) {
  Node& n = w.nodes[node];
  lose_unflushed(n, which);
  ++n.boot;
  n.record = ReplicaRecord(n.record.record(), std::to_string(n.boot));
  stop(w, n);
}

// ---- who is owner -------------------------------------------------------------------------

void Events::become_owner(World& w, std::size_t node, bool is_alone_already) {
  Node& n = w.nodes[node];
  if (n.mixed) violate("a replica in the middle of a resync is served");
  lose_session(w);
  make_durable(n);
  w.owner = static_cast<std::uint8_t>(node);
  w.both = false;
  if (!is_alone_already) ++w.epoch;
  if (!was_owner(n)) n.dirty = n.log = 0;
  n.record.promise(Epoch(w.epoch));
  n.record.serve(Epoch(w.epoch));
  n.serving = true;
  if (broken(Mutant::generation_at_promotion) && n.record.generation_due()) new_generation(w, n);
}

// The guest's own machine lost its power: what no flush covered may be gone.
void Events::give_up_unflushed(World& w, std::size_t node) {
  const Versions missing = w.required & ~has(w, w.nodes[node]);
  if ((missing & w.flushed) != 0) violate("a write that a completed flush covered is lost");
  w.given_up |= missing;
  w.required &= ~missing;
}

void Events::serve(World& w) {
  if (w.nodes[w.owner].record.suspect()) give_up_unflushed(w, w.owner);
  become_owner(w, w.owner, !w.both);
}

void Events::promote(World& w) {
  become_owner(w, 1U - w.owner, false);
}

void Events::force(World& w, std::size_t node) {
  Node& n = w.nodes[node];
  n.forced = n.forced || (n.record.record().lack_epoch != Epoch() && node != w.owner);
  if (node == w.owner)
    give_up_unflushed(w, node);
  else
    w.required &= has(w, n);
  w.person = w.person || node != w.owner;
  become_owner(w, node, false);
}

void Events::shrink(World& w) {
  Node& o = w.nodes[w.owner];
  make_durable(o);
  w.both = false;
  o.record.shrink(Epoch(++w.epoch));
  if (o.held == 0) return;
  alone(w, o);
  complete(w, o, o.held);
  o.held = 0;
}

// ---- resync -------------------------------------------------------------------------------

ReplicaSummary Events::summary(const Node& n) const {
  ReplicaSummary s = summary_of(n.record, true);
  if (broken(Mutant::losses_of_the_owner_ignored)) s.lack_epoch = Epoch();
  return s;
}

void Events::connect(World& w) {
  Node& o = w.nodes[w.owner];
  Node& t = w.nodes[1 - w.owner];
  if (t.serving) {  // it learns that it was replaced
    stop(w, t);
    t.record.stand_by(true);
  }
  const SyncVerdict verdict = decide_sync(summary(o), summary(t), true);
  const SyncVerdict mirrored = decide_sync(summary(t), summary(o), false);
  if (verdict.mode != mirrored.mode || verdict.split_brain != mirrored.split_brain)
    violate("the verdicts differ");
  if (verdict.mode == SyncMode::refuse) {
    ++outcome_.refused;
    if (!t.own && !o.forced) violate("refused, and the target has nothing of its own");
    if (!w.person) violate("refused, and no person forced the partner to go on");
    if (!verdict.split_brain) violate("refused without a reason in the data");
    return;
  }
  if ((w.completed & has(w, t) & ~has(w, o) & ~w.given_up) != 0)
    violate("the owner is about to overwrite what it lacks");
  const bool is_full = verdict.mode == SyncMode::full;
  ++(is_full ? outcome_.full : outcome_.partial);
  if (is_full && (t.record.record().generation != 0 || t.begun))
    violate("a full resync that need not be");
  if (is_full && !broken(Mutant::bits_not_all_set_for_full)) o.dirty = all_blocks;
  w.to_copy = is_full ? all_blocks : o.dirty | o.log;
  const bool same = t.record.record().generation == o.record.record().generation;
  if (broken(Mutant::equal_generation_is_equal_data) && same && !is_full) w.to_copy = 0;
  if (was_owner(t) && !broken(Mutant::targets_extents_not_sent)) w.to_copy |= t.dirty | t.log;
  begin_sync(w, o, t, verdict.mode);
}

void Events::begin_sync(World& w, const Node& o, Node& t, SyncMode mode) {
  const Record before = t.record.record();
  t.record.promise(Epoch(w.epoch));
  t.record.begin_sync(Epoch(w.epoch), {mode, o.record.record().generation});
  if (broken(Mutant::inconsistent_not_persisted))
    t.record = ReplicaRecord(before, std::to_string(t.boot));
  if (broken(Mutant::target_keeps_its_generation)) {
    Record r = t.record.record();
    r.generation = before.generation;
    r.generation_shared = before.generation_shared;
    t.record = ReplicaRecord(r, std::to_string(t.boot));
  }
  if (broken(Mutant::target_forgets_early)) t.dirty = t.log = 0;
  t.mixed = true;
  t.begun = o.record.record().generation != 0;
  w.phase = Phase::streaming;
}

void Events::copy(World& w) {
  for (std::size_t b = 0; b < blocks; ++b) {
    const unsigned mask = 1U << b;
    if ((w.to_copy & mask) == 0) continue;
    put(w.nodes[1 - w.owner].disk[b], w.nodes[w.owner].disk[b].now);
    w.to_copy &= ~mask;
    w.copied |= mask;
    if (broken(Mutant::bits_cleared_before_the_flush)) w.nodes[w.owner].dirty &= ~mask;
    return;
  }
}

void Events::checkpoint(World& w) {
  if (!broken(Mutant::owner_not_flushed_at_a_checkpoint)) make_durable(w.nodes[w.owner]);
  make_durable(w.nodes[1 - w.owner]);
  w.nodes[w.owner].dirty &= ~w.copied;
  w.copied = 0;
}

void Events::end(World& w, Kind kind) {
  Node& o = w.nodes[w.owner];
  Node& t = w.nodes[1 - w.owner];
  while (w.to_copy != 0)
    copy(w);
  if (!broken(Mutant::sync_end_not_told)) o.record.sync_end_sent();
  if (broken(Mutant::bits_void_at_sync_end)) o.dirty = 0;
  if (kind == Kind::end_unheard) return lose_session(w);
  make_durable(t);
  const Record& from = o.record.record();
  t.record.end_sync(Epoch(w.epoch), {from.generation, from.generation_history});
  t.dirty = t.log = 0;
  t.mixed = t.own = o.own = t.forced = false;
  ++outcome_.ended;
  for (std::size_t b = 0; b < blocks; ++b)
    if (t.disk[b].now != o.disk[b].now) violate("a resync ended and the replicas differ");
  w.phase = Phase::synced;
  if (kind == Kind::end_unknown) lose_session(w);
}

void Events::grow(World& w, Kind kind) {
  Node& o = w.nodes[w.owner];
  if (broken(Mutant::sync_end_not_told)) return;  // what it leads to without a grow is looked for
  if (!o.record.generation_due()) return violate("grown with a generation only the owner has");
  if (!broken(Mutant::owner_not_flushed_at_a_grow)) make_durable(o);
  o.record.grow_prepare();
  if (kind == Kind::grow_not_won) return lose_session(w);
  ++w.epoch;
  w.both = true;
  if (kind == Kind::grow_cut) return lose_session(w);
  o.record.grow_commit(Epoch(w.epoch));
  o.dirty = 0;
  o.forced = false;
  w.nodes[1 - w.owner].record.join(Epoch(w.epoch));
  w.phase = Phase::live;
}

}  // namespace havm::generation_model
