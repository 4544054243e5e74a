// decide_sync by table, and the transitions of the record that feed it. Every history of two
// replicas is in generation_model_test.cpp; here is what two nodes alone cannot come to.
#include "vmrepl/session/sync_verdict.hpp"

#include <gtest/gtest.h>

namespace havm {
namespace {

constexpr std::uint64_t g0 = 0xa0, g1 = 0xa1, g2 = 0xa2, other = 0xb1;

ReplicaSummary owner_at(std::uint64_t generation, std::uint64_t base = 0,
                        std::vector<std::uint64_t> history = {}) {
  ReplicaSummary s;
  s.state = ReplicaState::uptodate;
  s.generation = generation;
  s.base_generation = base;
  s.history = std::move(history);
  s.generation_shared = false;
  s.owner_epoch = Epoch(9);
  s.dirty_known = true;
  return s;
}

ReplicaSummary target_at(std::uint64_t generation, std::vector<std::uint64_t> history = {}) {
  ReplicaSummary s = owner_at(generation, 0, std::move(history));
  s.generation_shared = true;
  s.owner_epoch = Epoch();
  return s;
}

// The verdict, after both sides have been asked and all that must not matter was varied.
SyncVerdict decide(const ReplicaSummary& owner, const ReplicaSummary& target) {
  const SyncVerdict verdict = decide_sync(owner, target, true);
  for (const bool suspect : {false, true}) {
    ReplicaSummary varied = target;
    varied.suspect = suspect;
    varied.base_generation = 0;
    const SyncVerdict mirrored = decide_sync(varied, owner, false);
    EXPECT_EQ(mirrored.mode, verdict.mode) << verdict.reason;
    EXPECT_EQ(mirrored.split_brain, verdict.split_brain) << verdict.reason;
  }
  EXPECT_FALSE(verdict.reason.empty());
  EXPECT_EQ(verdict.split_brain, verdict.reason.find("a person must choose") != std::string::npos);
  return verdict;
}

SyncMode mode(const ReplicaSummary& owner, const ReplicaSummary& target) {
  const SyncVerdict verdict = decide(owner, target);
  EXPECT_FALSE(verdict.split_brain) << verdict.reason;
  return verdict.mode;
}

void expect_split(const ReplicaSummary& owner, const ReplicaSummary& target) {
  const SyncVerdict verdict = decide(owner, target);
  EXPECT_EQ(verdict.mode, SyncMode::refuse) << verdict.reason;
  EXPECT_TRUE(verdict.split_brain) << verdict.reason;
}

TEST(SyncVerdict, WhatTheBitmapIsKeptAgainstIsPartial) {
  EXPECT_EQ(mode(owner_at(g1), target_at(g1)), SyncMode::partial);
  EXPECT_EQ(mode(owner_at(g1, g0, {g0}), target_at(g0)), SyncMode::partial);
  EXPECT_EQ(mode(owner_at(g2, g0, {g1, g0}), target_at(g1)), SyncMode::partial);
  // The base has dropped out of the history: whatever is left is newer.
  EXPECT_EQ(mode(owner_at(g2, g0, {g1}), target_at(g0)), SyncMode::partial);
  EXPECT_EQ(mode(owner_at(g2, g0, {g1}), target_at(g1)), SyncMode::partial);
}

TEST(SyncVerdict, WhatIsOlderThanTheBitmapIsFull) {
  EXPECT_EQ(mode(owner_at(g1, 0, {g0}), target_at(g0)), SyncMode::full);
  EXPECT_EQ(mode(owner_at(g2, g1, {g1, g0}), target_at(g0)), SyncMode::full);
}

TEST(SyncVerdict, WithoutAGenerationItIsFull) {
  EXPECT_EQ(mode(owner_at(g1), target_at(0)), SyncMode::full);
  EXPECT_EQ(mode(owner_at(0), target_at(0)), SyncMode::full);
  EXPECT_EQ(mode(owner_at(0), target_at(g1)), SyncMode::full);
}

TEST(SyncVerdict, AnEngineOfProtocol1IsCopiedInFull) {
  Hello hello;
  HelloOk ok;
  ok.state = ReplicaState::uptodate;
  EXPECT_EQ(mode(summary_of(hello), summary_of(ok)), SyncMode::full);
  EXPECT_EQ(mode(owner_at(g1), summary_of(ok)), SyncMode::full);
  EXPECT_EQ(mode(summary_of(hello), target_at(g1)), SyncMode::full);
}

TEST(SyncVerdict, WhatTheTargetWroteAloneIsNeverOverwritten) {
  for (const std::uint64_t generation : {g0, g1, g2, other}) {
    ReplicaSummary target = target_at(generation, {g0});
    target.generation_shared = false;
    for (const ReplicaState state :
         {ReplicaState::uptodate, ReplicaState::outdated, ReplicaState::inconsistent}) {
      target.state = state;
      expect_split(owner_at(g1, g0, {g0}), target);
      expect_split(owner_at(0), target);
    }
  }
}

TEST(SyncVerdict, ATargetAheadIsSaidToBe) {
  ReplicaSummary target = target_at(g1, {g0});
  target.generation_shared = false;
  EXPECT_NE(decide(owner_at(g0), target).reason.find("going on from the owner's generation"),
            std::string::npos);
  EXPECT_NE(decide(owner_at(other), target).reason.find("is not in the owner's"),
            std::string::npos);
}

TEST(SyncVerdict, NothingInCommonIsRefused) {
  expect_split(owner_at(g1, g0, {g0}), target_at(other));
  expect_split(owner_at(g0), target_at(g1, {g0}));
}

TEST(SyncVerdict, AnUnfinishedResyncHoldsNothingOfItsOwn) {
  ReplicaSummary target = target_at(other);
  target.state = ReplicaState::inconsistent;
  EXPECT_EQ(mode(owner_at(g1), target), SyncMode::full);
  target.damaged = true;  // inconsistent because its disk failed: it may be nearly whole
  expect_split(owner_at(g1), target);
}

TEST(SyncVerdict, ADamagedTargetIsFull) {
  ReplicaSummary target = target_at(g1);
  target.state = ReplicaState::inconsistent;
  EXPECT_EQ(mode(owner_at(g1), target), SyncMode::partial);
  target.damaged = true;
  EXPECT_EQ(mode(owner_at(g1), target), SyncMode::full);
}

TEST(SyncVerdict, AnUnreadableDirtySetIsFull) {
  ReplicaSummary owner = owner_at(g1, g0, {g0});
  owner.dirty_known = false;
  EXPECT_EQ(mode(owner, target_at(g0)), SyncMode::full);

  owner.dirty_known = true;
  ReplicaSummary target = target_at(g0);
  target.dirty_known = false;
  EXPECT_EQ(mode(owner, target), SyncMode::partial);  // never owner: it has none
  target.owner_epoch = Epoch(3);
  EXPECT_EQ(mode(owner, target), SyncMode::full);
}

TEST(SyncVerdict, AnOwnerThatLostWritesDoesNotOverwriteWhoeverOwnedThem) {
  ReplicaSummary owner = owner_at(g1, g0, {g0});
  owner.lack_epoch = Epoch(5);
  ReplicaSummary target = target_at(g0);
  EXPECT_EQ(mode(owner, target), SyncMode::partial);
  target.owner_epoch = Epoch(4);  // before: the owner has taken over from it since
  EXPECT_EQ(mode(owner, target), SyncMode::partial);
  for (const std::uint64_t epoch : {5U, 6U}) {
    target.owner_epoch = Epoch(epoch);
    expect_split(owner, target);
  }
  owner.lack_epoch = Epoch();
  EXPECT_EQ(mode(owner, target), SyncMode::partial);
}

TEST(SyncVerdict, OnlyAGoodReplicaIsCopiedFrom) {
  ReplicaSummary owner = owner_at(g1);
  owner.suspect = true;
  EXPECT_EQ(mode(owner, target_at(g1)), SyncMode::refuse);
  owner.suspect = false;
  for (const ReplicaState state : {ReplicaState::outdated, ReplicaState::inconsistent}) {
    owner.state = state;
    EXPECT_EQ(mode(owner, target_at(0)), SyncMode::refuse);
  }
}

// ---- the record ------------------------------------------------------------------------------

Record record_of(ReplicaState state) {
  Record r;
  r.vm = r.vm_id = r.node = "x";
  r.state = state;
  r.boot_id = "boot";
  return r;
}

ReplicaRecord served() {
  ReplicaRecord r(record_of(ReplicaState::uptodate), "boot");
  r.serve(Epoch(1));
  return r;
}

TEST(GenerationRecord, ANewOneIsDueOnlyWhileThePartnerMayHoldThePresentOne) {
  ReplicaRecord r = served();
  EXPECT_TRUE(r.generation_due());
  r.new_generation(g0);
  EXPECT_FALSE(r.generation_due());
  r.sync_end_sent();
  EXPECT_TRUE(r.generation_due());
  r.grow_prepare();
  r.grow_commit(Epoch(2));
  r.shrink(Epoch(3));
  EXPECT_TRUE(r.generation_due());
  r.new_generation(g1);
  EXPECT_FALSE(r.generation_due());
  // Not again for a restart: nobody else has heard of g1.
  ReplicaRecord restarted(r.record(), "boot");
  restarted.serve(Epoch(3));
  EXPECT_FALSE(restarted.generation_due());
  EXPECT_EQ(restarted.record().generation_history, std::vector<std::uint64_t>{g0});
}

TEST(GenerationRecord, TheBaseIsTheOldestTheDirtySetIsKeptAgainst) {
  ReplicaRecord r = served();
  r.new_generation(g0);
  EXPECT_EQ(r.record().base_generation, 0u);
  r.sync_end_sent();
  r.new_generation(g1);
  EXPECT_EQ(r.record().base_generation, g0);
  r.sync_end_sent();
  r.new_generation(g2);  // whether the partner ever got g1 is not known
  EXPECT_EQ(r.record().base_generation, g0);
  EXPECT_EQ(r.record().generation_history, (std::vector<std::uint64_t>{g1, g0}));
  r.sync_end_sent();
  r.grow_prepare();
  r.grow_commit(Epoch(2));
  EXPECT_EQ(r.record().base_generation, 0u);
}

TEST(GenerationRecord, TheHistoryHasABound) {
  ReplicaRecord r = served();
  for (std::uint64_t i = 1; i <= 20; ++i)
    r.new_generation(i);
  EXPECT_EQ(r.record().generation_history,
            (std::vector<std::uint64_t>{19, 18, 17, 16, 15, 14, 13, 12}));
  ReplicaRecord t(record_of(ReplicaState::inconsistent), "boot");
  t.end_sync(Epoch(2), {21, std::vector<std::uint64_t>(30, 7)});
  EXPECT_EQ(t.record().generation_history.size(), generation_history_max);
}

TEST(GenerationRecord, ATargetTakesTheOwnersGenerationFromTheStart) {
  ReplicaRecord t = served();
  t.new_generation(g0);
  t.sync_end_sent();
  t.begin_sync(Epoch(2), {SyncMode::partial, g1});
  EXPECT_EQ(t.record().generation, g1);
  EXPECT_EQ(t.record().state, ReplicaState::inconsistent);
  EXPECT_EQ(t.record().generation_history, std::vector<std::uint64_t>{g0});
  EXPECT_EQ(t.record().owner_epoch, Epoch(1));  // its own extents count until the end
  t.begin_sync(Epoch(2), {SyncMode::partial, g1});
  EXPECT_EQ(t.record().generation_history, std::vector<std::uint64_t>{g0});
  t.end_sync(Epoch(2), {g2, {g1, g0}});
  EXPECT_EQ(t.record().generation, g2);
  EXPECT_EQ(t.record().generation_history, (std::vector<std::uint64_t>{g1, g0}));
  EXPECT_TRUE(t.record().generation_shared);
  EXPECT_EQ(t.record().owner_epoch, Epoch());
}

TEST(GenerationRecord, DamageEndsOnlyWithAFullResync) {
  ReplicaRecord t(record_of(ReplicaState::uptodate), "boot");
  t.lost_data();
  EXPECT_TRUE(t.record().damaged);
  t.begin_sync(Epoch(2), {SyncMode::partial, g1});
  EXPECT_TRUE(t.record().damaged);
  t.begin_sync(Epoch(2), {SyncMode::full, g1});
  EXPECT_FALSE(t.record().damaged);
}

TEST(GenerationRecord, AnUncleanEndIsRememberedUntilBothAreEqual) {
  Record live = served().record();
  live.promised_epoch = Epoch(2);  // after a flush
  ReplicaRecord r(live, "next boot");
  EXPECT_EQ(r.record().lack_epoch, Epoch(2));
  r.promise(Epoch(7));
  EXPECT_EQ(ReplicaRecord(r.record(), "third boot").record().lack_epoch, Epoch(2));
  r.serve(Epoch(7));
  EXPECT_FALSE(r.suspect());
  EXPECT_EQ(r.record().lack_epoch, Epoch(2));
  EXPECT_EQ(ReplicaRecord(r.record(), "third boot").record().lack_epoch, Epoch(2));

  ReplicaRecord target = r;
  target.begin_sync(Epoch(8), {SyncMode::full, g1});
  EXPECT_EQ(target.record().lack_epoch, Epoch(2));
  target.end_sync(Epoch(8), {g1, {}});
  EXPECT_EQ(target.record().lack_epoch, Epoch());

  r.grow_prepare();
  EXPECT_EQ(r.record().lack_epoch, Epoch(2));
  r.grow_commit(Epoch(8));
  EXPECT_EQ(r.record().lack_epoch, Epoch());

  live.clean = true;
  EXPECT_EQ(ReplicaRecord(live, "next boot").record().lack_epoch, Epoch());
  live.clean = false;
  EXPECT_EQ(ReplicaRecord(live, "boot").record().lack_epoch, Epoch());
}

TEST(GenerationRecord, TheEpochOwnedIsTheNewest) {
  ReplicaRecord r = served();
  EXPECT_EQ(r.record().owner_epoch, Epoch(1));
  r.grow_prepare();
  r.grow_commit(Epoch(2));
  EXPECT_EQ(r.record().owner_epoch, Epoch(2));
  r.shrink(Epoch(3));
  EXPECT_EQ(r.record().owner_epoch, Epoch(3));
  r.stand_by(true);
  r.promise(Epoch(9));
  EXPECT_EQ(r.record().owner_epoch, Epoch(3));
}

TEST(GenerationRecordDeathTest, AGenerationThatOnlyTheOwnerHasIsNotGrownWith) {
  ReplicaRecord r = served();
  r.new_generation(g0);
  EXPECT_DEATH(r.grow_prepare(), "does not hold this generation");
}

TEST(GenerationRecordDeathTest, ANewGenerationIsNotZeroAndNotForBoth) {
  ReplicaRecord r = served();
  EXPECT_DEATH(r.new_generation(0), "means none");
  r.grow_prepare();
  r.grow_commit(Epoch(2));
  EXPECT_DEATH(r.new_generation(g1), "begins alone");
}

TEST(GenerationRecord, TheSummaryIsWhatTheRecordSays) {
  ReplicaRecord r = served();
  r.new_generation(g0);
  r.sync_end_sent();
  r.new_generation(g1);
  const ReplicaSummary s = summary_of(r, true);
  ReplicaSummary expected = owner_at(g1, g0, {g0});
  expected.owner_epoch = Epoch(1);
  EXPECT_EQ(s, expected);
  EXPECT_FALSE(summary_of(r, false).dirty_known);
  HelloOk ok;
  static_cast<ReplicaHistory&>(ok) = s;
  ok.state = s.state;
  EXPECT_EQ(summary_of(ok), s);
  ok.suspect = true;
  EXPECT_TRUE(summary_of(ok).suspect);
  Hello hello;
  static_cast<ReplicaHistory&>(hello) = s;
  EXPECT_EQ(summary_of(hello), s);
}

}  // namespace
}  // namespace havm
