#include "tests/unit/vmrepl/session/generation_model.hpp"

#include <initializer_list>
#include <utility>

#include "tests/unit/vmrepl/session/generation_world.hpp"

namespace havm {
namespace {

using namespace generation_model;

std::vector<Event> events_to(Start start) {
  const std::vector<Event> live = {
      {Kind::write, 0}, {Kind::connect}, {Kind::end}, {Kind::grow}, {Kind::flush}};
  std::vector<Event> events = start == Start::fresh ? std::vector<Event>{} : live;
  const auto then = [&events](std::initializer_list<Event> more) {
    events.insert(events.end(), more);
  };
  if (start == Start::promoted) then({{Kind::link}, {Kind::promote}});
  if (start == Start::alone || start == Start::syncing || start == Start::synced)
    then({{Kind::link}, {Kind::shrink}, {Kind::write, 0}});
  if (start == Start::syncing) then({{Kind::write, 1}, {Kind::connect}, {Kind::copy}});
  if (start == Start::synced) then({{Kind::connect}, {Kind::end}});
  return events;
}

void enabled(const World& w, std::vector<Event>& out) {
  const Node& o = w.nodes[w.owner];
  const Node& t = w.nodes[1 - w.owner];
  const bool session = w.phase != Phase::none;
  const bool held = o.record.may_be_both() && !session;
  const auto uptodate = [](const Node& n) {
    return n.record.record().state == ReplicaState::uptodate;
  };
  for (std::uint8_t b = 0; b < blocks; ++b) {
    if (o.serving && !held) out.push_back({Kind::write, b, w.owner});
    // One that was forced aside and does not know it.
    if (t.serving && !t.record.may_be_both())
      out.push_back({Kind::write, b, static_cast<std::uint8_t>(1 - w.owner)});
    if (session) {
      out.push_back({Kind::write_cut, b, 0});
      out.push_back({Kind::write_cut, b, 1});
    }
  }
  if (o.serving && !held) out.push_back({Kind::flush});
  for (std::uint8_t n = 0; n < 2; ++n)
    for (unsigned i = 0; i < crash_outcomes(w.nodes[n]); ++i)
      out.push_back({Kind::crash, n, static_cast<std::uint8_t>(i)});
  if (o.serving) out.push_back({Kind::kill});
  if (session) out.push_back({Kind::link});
  if (o.serving && held) out.push_back({Kind::shrink});
  if (!o.serving && uptodate(o) && (!w.both || !o.record.suspect() || t.record.suspect()))
    out.push_back({Kind::serve});
  if (w.both && !session && uptodate(t) && !t.record.suspect() && !t.serving)
    out.push_back({Kind::promote});
  if (o.serving && !session && !held) out.push_back({Kind::connect});
  if (w.phase == Phase::streaming) {
    if (w.to_copy != 0) out.push_back({Kind::copy});
    if (w.copied != 0) out.push_back({Kind::checkpoint});
    for (const Kind k : {Kind::end, Kind::end_unheard, Kind::end_unknown})
      out.push_back({k});
  }
  if (w.phase == Phase::synced)
    for (const Kind k : {Kind::grow, Kind::grow_cut, Kind::grow_not_won})
      out.push_back({k});
  for (std::uint8_t n = 0; n < 2; ++n)
    if (!w.nodes[n].serving && uptodate(w.nodes[n]) && (w.both || n != w.owner))
      out.push_back({Kind::force, n});
}

class Walk {
 public:
  explicit Walk(Mutant mutant) : events_(mutant, outcome) {}

  World begin(Start start) {
    World w = first_world();
    for (const Event& e : events_to(start))
      events_.apply(w, e);
    return w;
  }

  void visit(const World& w, int depth) {
    if (depth == 0) {
      ++outcome.histories;
      return;
    }
    std::vector<Event> possible;
    enabled(w, possible);
    for (const Event& e : possible) {
      World next = w;
      outcome.trace.push_back(text(e));
      events_.apply(next, e);
      events_.judge(next);
      ++outcome.states;
      if (!outcome.violation.empty()) return;
      visit(next, depth - 1);
      if (!outcome.violation.empty()) return;
      outcome.trace.pop_back();
    }
  }

  WalkOutcome outcome;

 private:
  Events events_;
};

}  // namespace

const char* to_text(Mutant mutant) {
  constexpr const char* names[] = {"none",
                                   "no_generation_for_a_write",
                                   "generation_for_a_flush",
                                   "generation_at_promotion",
                                   "generation_inside_a_session",
                                   "no_base",
                                   "sync_end_not_told",
                                   "target_keeps_its_generation",
                                   "inconsistent_not_persisted",
                                   "bits_cleared_before_the_flush",
                                   "owner_not_flushed_at_a_checkpoint",
                                   "owner_not_flushed_at_a_grow",
                                   "bits_void_at_sync_end",
                                   "bits_not_all_set_for_full",
                                   "log_forgotten_at_a_loss",
                                   "targets_extents_not_sent",
                                   "target_forgets_early",
                                   "equal_generation_is_equal_data",
                                   "losses_of_the_owner_ignored",
                                   "last_of_the_list"};
  return names[static_cast<std::size_t>(mutant)];
}

const char* to_text(Start start) {
  constexpr const char* names[] = {"fresh",   "live",   "alone",           "promoted",
                                   "syncing", "synced", "last_of_the_list"};
  return names[static_cast<std::size_t>(start)];
}

WalkOutcome walk_generations(Start start, int depth, Mutant mutant) {
  Walk walk(mutant);
  const World world = walk.begin(start);
  if (walk.outcome.violation.empty()) walk.visit(world, depth);
  return std::move(walk.outcome);
}

}  // namespace havm
