#include "vmrepl/session/sync_verdict.hpp"

#include <algorithm>
#include <utility>

#include "vmrepl/base/rules.hpp"

namespace havm {
namespace {

std::string id(std::uint64_t generation) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text(16, '0');
  for (auto digit = text.rbegin(); digit != text.rend(); ++digit, generation >>= 4U)
    *digit = digits[generation & 15U];
  return text;
}

bool contains(const std::vector<std::uint64_t>& history, std::uint64_t generation) {
  return std::ranges::find(history, generation) != history.end();
}

bool knows(const ReplicaHistory& replica, std::uint64_t generation) {
  return generation != 0 &&
         (generation == replica.generation || generation == replica.base_generation ||
          contains(replica.history, generation));
}

// The dirty set is kept against `generation`: R6.
bool is_kept_against(const ReplicaHistory& owner, std::uint64_t generation) {
  if (generation == owner.generation) return true;
  if (owner.base_generation == 0) return false;
  if (generation == owner.base_generation) return true;
  const auto base = std::ranges::find(owner.history, owner.base_generation);
  return std::find(owner.history.begin(), base, generation) != base;
}

SyncVerdict refuse(std::string reason) {
  return {SyncMode::refuse, std::move(reason), false};
}

SyncVerdict two_histories(const std::string& what) {
  return {SyncMode::refuse,
          what + "; both images are kept as they are, and a person must choose which one counts",
          true};
}

SyncVerdict full(std::string reason) {
  return {SyncMode::full, std::move(reason), false};
}

SyncVerdict decide(const ReplicaSummary& owner, const ReplicaSummary& target) {
  if (owner.state != ReplicaState::uptodate || owner.suspect)
    return refuse(std::string("the owner's own replica is ") +
                  (owner.suspect ? "suspect" : to_text(owner.state)) +
                  ": nothing may be copied from it");

  const bool ahead = knows(target, owner.generation) && target.generation != owner.generation;
  if (target.generation != 0 && !target.generation_shared)
    return two_histories(
        "the target's replica was written alone (generation " + id(target.generation) + ")" +
        (ahead ? ", going on from the owner's generation " : ", and so is not in the owner's ") +
        id(owner.generation));
  if (owner.lack_epoch != Epoch() && target.owner_epoch >= owner.lack_epoch)
    return two_histories("the owner's replica lost unflushed writes in a crash at epoch " +
                         std::to_string(owner.lack_epoch.value) +
                         " and went on without them, and the target, which was owner at epoch " +
                         std::to_string(target.owner_epoch.value) + ", may hold them");

  if (target.generation == 0) {
    if (!holds(Rule::fresh_is_copied_in_full))
      return {SyncMode::partial, "marks alone decide", false};
    return full("the target's replica has no generation yet");
  }
  // It is shared: what the target wrote alone is in the owner's replica, or the owner could not be
  // uptodate.
  if (owner.generation == 0) return full("the owner's replica has no generation yet");
  const bool unfinished = target.state == ReplicaState::inconsistent && !target.damaged;
  if (!knows(owner, target.generation)) {
    if (unfinished) return full("the target's replica is left from an unfinished resync");
    return two_histories("the target's generation " + id(target.generation) +
                         (ahead ? " went on from " : " is not known in the history of ") +
                         "the owner's generation " + id(owner.generation));
  }

  if (target.damaged) return full("a disk of the target failed: nothing of it is taken on trust");
  if (!owner.dirty_known) return full("the owner's bitmap or activity log could not be read");
  if (target.owner_epoch != Epoch() && !target.dirty_known)
    return full("the target was owner, and its bitmap or activity log could not be read");
  if (!is_kept_against(owner, target.generation))
    return full("the target's generation " + id(target.generation) +
                " is older than what the owner's bitmap is kept against");
  return {SyncMode::partial, "the target holds generation " + id(target.generation), false};
}

}  // namespace

ReplicaSummary summary_of(const ReplicaRecord& replica, bool dirty_known) {
  const Record& record = replica.record();
  ReplicaSummary summary;
  summary.generation = record.generation;
  summary.base_generation = record.base_generation;
  summary.history = record.generation_history;
  summary.generation_shared = record.generation_shared;
  summary.owner_epoch = record.owner_epoch;
  summary.lack_epoch = record.lack_epoch;
  summary.damaged = record.damaged;
  summary.dirty_known = dirty_known;
  summary.state = record.state;
  summary.suspect = replica.suspect();
  return summary;
}

ReplicaSummary summary_of(const Hello& hello) {
  ReplicaSummary summary;
  static_cast<ReplicaHistory&>(summary) = hello;
  summary.state = ReplicaState::uptodate;
  return summary;
}

ReplicaSummary summary_of(const HelloOk& ok) {
  ReplicaSummary summary;
  static_cast<ReplicaHistory&>(summary) = ok;
  summary.state = ok.state;
  summary.suspect = ok.suspect;
  return summary;
}

SyncVerdict decide_sync(const ReplicaSummary& self, const ReplicaSummary& peer,
                        bool self_is_owner) {
  return self_is_owner ? decide(self, peer) : decide(peer, self);
}

}  // namespace havm
