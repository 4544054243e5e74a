#include "agent/guard/guard_core.hpp"

#include <algorithm>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace havm {
namespace {

using namespace std::chrono_literals;
using Kind = GuardEventKind;
constexpr GuardTimes times{1000ms};
constexpr TimePoint start = from_ns(1'000'000'000'000);

TimePoint at(Duration d) {
  return start + d;
}

// One VM and the events that happened to it, in the words of a test.
struct Vm {
  GuardVm vm;
  GuardDecision last;

  Vm() { vm.epoch = Epoch(5); }
  GuardDecision on(Kind kind, Duration now, std::optional<Duration> sent = {},
                   std::uint64_t epoch = 5) {
    GuardEvent event;
    event.kind = kind;
    event.now = at(now);
    event.epoch = Epoch(epoch);
    if (sent) event.sent = at(*sent);
    last = guard_step(vm, event, times);
    vm = last.vm;
    return last;
  }
  // Paused and confirmed at `now`, for lack of a lease.
  void paused(Duration now) {
    on(Kind::Watch, now);
    on(Kind::SeenStopped, now);
    ASSERT_EQ(vm.phase, GuardPhase::Paused);
  }
};

TEST(GuardCore, RunsUntilThreeTenthsOfTheLeaseAfterTheGrantWasSent) {
  Vm v;
  EXPECT_EQ(v.on(Kind::Watch, 10ms, 0ms).action, GuardAction::None);
  EXPECT_EQ(guard_deadline(v.vm, times), at(300ms));
  EXPECT_EQ(v.on(Kind::Tick, 299ms).action, GuardAction::None);
  EXPECT_EQ(v.on(Kind::Tick, 300ms).action, GuardAction::Pause);
  EXPECT_EQ(v.vm.phase, GuardPhase::Stopping);
  EXPECT_EQ(guard_deadline(v.vm, times), at(450ms));
}

TEST(GuardCore, ARenewalCountsFromItsSendingAndNeverBackwards) {
  Vm v;
  v.on(Kind::Watch, 0ms, 0ms);
  v.on(Kind::Renew, 250ms, 200ms);
  v.on(Kind::Renew, 260ms, 100ms);
  EXPECT_EQ(v.on(Kind::Tick, 499ms).action, GuardAction::None);
  EXPECT_EQ(v.on(Kind::Tick, 500ms).action, GuardAction::Pause);
}

TEST(GuardCore, AWatchWithoutAValidLeasePausesBeforeItsAnswer) {
  for (const std::optional<Duration> sent :
       {std::optional<Duration>(), std::optional<Duration>(0ms)}) {
    Vm v;
    v.on(Kind::Watch, 400ms, sent);
    EXPECT_EQ(v.last.action, GuardAction::Pause);
    EXPECT_EQ(v.last.answer, GuardAnswer::WhenPaused);
  }
}

TEST(GuardCore, ResumesOnlyOnAGrantSentAfterThePause) {
  Vm v;
  v.paused(100ms);
  EXPECT_EQ(v.on(Kind::Renew, 120ms, 99ms).action, GuardAction::None);
  EXPECT_EQ(v.on(Kind::Renew, 120ms, 100ms).action, GuardAction::None);
  EXPECT_STREQ(v.last.reply, "ok paused");
  EXPECT_EQ(v.on(Kind::Renew, 900ms, 110ms).action, GuardAction::None)
      << "it has run out meanwhile";
  EXPECT_EQ(v.on(Kind::Renew, 905ms, 901ms).action, GuardAction::Resume);
  EXPECT_EQ(v.vm.phase, GuardPhase::Running);
}

TEST(GuardCore, APauseThatIsNotConfirmedBecomesAKillThenAnAlarm) {
  Vm v;
  v.on(Kind::Watch, 0ms, 0ms);
  v.on(Kind::Tick, 300ms);
  v.on(Kind::SeenRunning, 301ms);
  EXPECT_EQ(v.on(Kind::Tick, 449ms).action, GuardAction::None);
  EXPECT_EQ(v.on(Kind::Tick, 450ms).action, GuardAction::Kill);
  EXPECT_EQ(v.on(Kind::Renew, 451ms, 450ms).action, GuardAction::None)
      << "a kill is not taken back";
  EXPECT_EQ(v.on(Kind::Tick, 599ms).action, GuardAction::None);
  EXPECT_EQ(v.on(Kind::Tick, 600ms).action, GuardAction::Alarm);
  EXPECT_EQ(v.on(Kind::Tick, 900ms).action, GuardAction::None) << "said once";
  v.on(Kind::SeenGone, 901ms);
  EXPECT_EQ(v.vm.phase, GuardPhase::Gone);
}

TEST(GuardCore, ALateLoopStillGivesThePauseItsTime) {
  Vm v;
  v.on(Kind::Watch, 0ms, 0ms);
  EXPECT_EQ(v.on(Kind::Tick, 5000ms).action, GuardAction::Pause);
  EXPECT_EQ(v.on(Kind::Tick, 5149ms).action, GuardAction::None);
  EXPECT_EQ(v.on(Kind::Tick, 5150ms).action, GuardAction::Kill);
}

TEST(GuardCore, AGapPausesALeasedVmAndOldGrantsDoNotWakeIt) {
  Vm v;
  v.on(Kind::Watch, 0ms, 0ms);
  EXPECT_EQ(v.on(Kind::Gap, 260ms).action, GuardAction::Pause);
  v.on(Kind::SeenStopped, 261ms);
  EXPECT_EQ(v.on(Kind::Renew, 262ms, 255ms).action, GuardAction::None);
  EXPECT_EQ(v.on(Kind::Gap, 600ms).action, GuardAction::None);
  EXPECT_EQ(v.on(Kind::Renew, 601ms, 590ms).action, GuardAction::None)
      << "sent before the second gap";
  EXPECT_EQ(v.on(Kind::Renew, 650ms, 640ms).action, GuardAction::Resume);
}

TEST(GuardCore, AloneNeedsNoLeaseAndLeaseComesBackOnlyWithAGrant) {
  Vm v;
  v.paused(0ms);
  EXPECT_EQ(v.on(Kind::Alone, 10ms).action, GuardAction::Resume);
  EXPECT_EQ(v.on(Kind::Tick, 9000ms).action, GuardAction::None);
  EXPECT_EQ(v.on(Kind::Gap, 9001ms).action, GuardAction::None);
  EXPECT_STREQ(v.on(Kind::Lease, 9002ms).reply, "error no valid grant is held");
  EXPECT_FALSE(v.vm.needs_lease);
  v.on(Kind::Renew, 9100ms, 9050ms);
  EXPECT_STREQ(v.on(Kind::Lease, 9349ms).reply, "ok");
  EXPECT_TRUE(v.vm.needs_lease);
  EXPECT_EQ(v.on(Kind::Tick, 9350ms).action, GuardAction::Pause);
}

TEST(GuardCore, StopHoldsUntilContinueAndAFreshGrant) {
  Vm v;
  v.on(Kind::Watch, 0ms, 0ms);
  EXPECT_EQ(v.on(Kind::Stop, 50ms).action, GuardAction::Pause);
  EXPECT_EQ(v.last.answer, GuardAnswer::WhenPaused);
  v.on(Kind::SeenStopped, 51ms);
  EXPECT_STREQ(v.on(Kind::Renew, 60ms, 55ms).reply, "ok stopped");
  EXPECT_EQ(v.on(Kind::Alone, 61ms).action, GuardAction::None);
  v.vm.needs_lease = true;
  EXPECT_EQ(v.on(Kind::Continue, 70ms).action, GuardAction::None);
  EXPECT_EQ(v.on(Kind::Renew, 71ms, 49ms).action, GuardAction::None);
  EXPECT_EQ(v.on(Kind::Renew, 72ms, 65ms).action, GuardAction::Resume);
}

TEST(GuardCore, StopOfAVmAloneIsNeverTurnedIntoAKill) {
  Vm v;
  v.on(Kind::Watch, 0ms, 0ms);
  v.on(Kind::Alone, 1ms);
  v.on(Kind::Stop, 1000ms);
  EXPECT_EQ(v.on(Kind::Tick, 1149ms).action, GuardAction::None);
  EXPECT_EQ(v.on(Kind::Tick, 1150ms).action, GuardAction::Alarm);
  EXPECT_EQ(v.on(Kind::Tick, 9000ms).action, GuardAction::None);
  v.on(Kind::SeenStopped, 9001ms);
  EXPECT_EQ(v.on(Kind::Continue, 9002ms).action, GuardAction::Resume);
}

TEST(GuardCore, StaleEpochsChangeNothing) {
  for (const Kind kind : {Kind::Watch, Kind::Renew, Kind::Alone, Kind::Lease, Kind::Continue}) {
    Vm v;
    v.paused(100ms);
    v.vm.held = kind == Kind::Continue;
    const GuardVm before = v.vm;
    EXPECT_EQ(v.on(kind, 200ms, 190ms, 4).action, GuardAction::None);
    const bool told = kind == Kind::Watch || kind == Kind::Renew;
    EXPECT_STREQ(v.last.reply, told ? "ok stale" : "error it is watched at a higher epoch");
    EXPECT_EQ(v.vm.last_sent, before.last_sent);
    EXPECT_EQ(v.vm.held, before.held);
    EXPECT_EQ(v.vm.needs_lease, before.needs_lease);
    EXPECT_EQ(v.vm.phase, before.phase);
  }
}

TEST(GuardCore, AWatchAtAHigherEpochTakesAloneBack) {
  Vm v;
  v.on(Kind::Watch, 0ms, 0ms);
  v.on(Kind::Alone, 1ms);
  EXPECT_EQ(v.on(Kind::Watch, 1000ms, {}, 6).action, GuardAction::Pause);
  EXPECT_EQ(v.vm.epoch, Epoch(6));
}

TEST(GuardCore, AGrantFromTheFutureIsRefused) {
  Vm v;
  v.on(Kind::Watch, 0ms, 0ms);
  EXPECT_STREQ(v.on(Kind::Renew, 10ms, 11ms).reply, "error the grant was sent in the future");
  EXPECT_EQ(v.vm.last_sent, at(0ms));
}

TEST(GuardCore, SomebodyElsesResumeIsUndone) {
  Vm v;
  v.paused(0ms);
  EXPECT_EQ(v.on(Kind::SeenRunning, 10ms).action, GuardAction::Pause);
}

// What the rules of docs/protocol/guard.md say, written as directly as possible.
struct Model {
  bool running = true;
  bool alone = false;
  bool stop = false;
  std::uint64_t epoch = 5;
  TimePoint last_pause{};
  std::vector<TimePoint> grants;

  [[nodiscard]] bool valid(TimePoint sent, TimePoint now) const { return now - sent < 300ms; }
  [[nodiscard]] bool leased(TimePoint now) const {
    return std::ranges::any_of(grants, [&](TimePoint sent) { return valid(sent, now); });
  }
  void wake(TimePoint now) {
    const auto wakes = [&](TimePoint sent) { return sent > last_pause && valid(sent, now); };
    if (!stop && (alone || std::ranges::any_of(grants, wakes))) running = true;
  }
  void take(const GuardEvent& e) {
    const bool stale = e.epoch.value < epoch;
    switch (e.kind) {
      case Kind::Watch:
        if (stale) break;
        alone = alone && e.epoch.value == epoch;
        epoch = e.epoch.value;
        grants.push_back(e.sent);
        wake(e.now);
        break;
      case Kind::Renew:
        if (stale || stop) break;
        epoch = e.epoch.value;
        grants.push_back(e.sent);
        wake(e.now);
        break;
      case Kind::Alone:
        if (stale) break;
        epoch = e.epoch.value;
        alone = true;
        wake(e.now);
        break;
      case Kind::Lease:
        if (stale || !running || !leased(e.now)) break;
        epoch = e.epoch.value;
        alone = false;
        break;
      case Kind::Stop:
        if (running) last_pause = e.now;
        running = false;
        stop = true;
        break;
      case Kind::Continue:
        if (stale) break;
        epoch = e.epoch.value;
        stop = false;
        wake(e.now);
        break;
      case Kind::Gap:
        if (running && alone) break;
        running = false;
        last_pause = e.now;
        break;
      default:
        break;
    }
    if (running && !alone && !leased(e.now)) {
      running = false;
      last_pause = e.now;
    }
  }
};

GuardEvent random_event(std::mt19937& random, const Model& model, TimePoint now) {
  constexpr Kind kinds[] = {Kind::Watch, Kind::Renew, Kind::Renew, Kind::Renew,    Kind::Renew,
                            Kind::Alone, Kind::Lease, Kind::Stop,  Kind::Continue, Kind::Continue,
                            Kind::Gap,   Kind::Tick,  Kind::Tick};
  const auto pick = [&random](int n) {
    return static_cast<int>(random() % static_cast<unsigned>(n));
  };
  GuardEvent event;
  event.kind = kinds[pick(std::size(kinds))];
  event.now = now;
  const int shift = pick(8);
  event.epoch = Epoch(model.epoch + (shift == 7 ? 1 : 0) - (shift == 6 ? 1 : 0));
  event.sent = now - std::chrono::milliseconds(pick(3) == 0 ? pick(600) : pick(20));
  return event;
}

TEST(GuardCore, RandomHistoriesAgreeWithTheRules) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    std::mt19937 random(seed);
    Model model;
    GuardVm vm;
    vm.epoch = Epoch(5);
    TimePoint now = start;
    for (int i = 0; i < 400; ++i) {
      now += std::chrono::milliseconds(random() % 60);
      const GuardEvent event = random_event(random, model, now);
      GuardEvent tick;
      tick.now = now;
      // The server looks at the clock and the process before it takes a command.
      for (const GuardEvent& e : {tick, event, tick}) {
        model.take(e);
        vm = guard_step(vm, e, times).vm;
        GuardEvent seen;
        seen.kind = Kind::SeenStopped;  // every pause is confirmed at once in this test
        seen.now = now;
        vm = guard_step(vm, seen, times).vm;
        ASSERT_EQ(vm.phase == GuardPhase::Running, model.running)
            << "seed " << seed << " step " << i << " kind " << static_cast<int>(e.kind);
        ASSERT_NE(vm.phase, GuardPhase::Killing) << "seed " << seed << " step " << i;
      }
      ASSERT_EQ(vm.epoch.value, model.epoch) << "seed " << seed << " step " << i;
      ASSERT_EQ(vm.needs_lease, !model.alone) << "seed " << seed << " step " << i;
      const bool newest_valid = now - vm.last_sent < 300ms;
      if (vm.phase == GuardPhase::Running && vm.needs_lease) {
        ASSERT_TRUE(newest_valid) << "runs past its deadline; seed " << seed << " step " << i;
      }
      if (!vm.needs_lease && !vm.held) {
        ASSERT_EQ(vm.phase, GuardPhase::Running) << "paused while alone; seed " << seed;
      }
    }
  }
}

TEST(GuardCore, UnconfirmedPausesAreAlwaysKilledInTime) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    std::mt19937 random(seed);
    Model model;  // only for the epochs of the events
    GuardVm vm;
    vm.epoch = Epoch(5);
    TimePoint now = start;
    std::optional<TimePoint> unconfirmed_since;
    for (int i = 0; i < 200 && vm.phase != GuardPhase::Killing; ++i) {
      now += std::chrono::milliseconds(random() % 20);
      const GuardEvent event = random_event(random, model, now);
      if (event.kind != Kind::Gap) vm = guard_step(vm, event, times).vm;
      model.epoch = vm.epoch.value;
      GuardEvent tick;
      tick.now = now;
      vm = guard_step(vm, tick, times).vm;
      const bool unconfirmed = vm.phase == GuardPhase::Stopping && vm.needs_lease;
      if (!unconfirmed) unconfirmed_since.reset();
      if (unconfirmed && !unconfirmed_since) unconfirmed_since = now;
      if (unconfirmed) {
        const TimePoint limit = std::max(*unconfirmed_since + 150ms, vm.last_sent + 450ms);
        ASSERT_LT(now, limit) << "seed " << seed << " step " << i;
      }
    }
  }
}

}  // namespace
}  // namespace havm
