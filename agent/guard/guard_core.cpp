#include "agent/guard/guard_core.hpp"

#include <algorithm>

namespace havm {
namespace {

bool grant_valid(const GuardVm& vm, TimePoint now, const GuardTimes& times) {
  return vm.last_sent != TimePoint{} && now < vm.last_sent + times.pause_after();
}

bool pausing(const GuardVm& vm) {
  return vm.phase == GuardPhase::Stopping || vm.phase == GuardPhase::Paused;
}

bool ending(const GuardVm& vm) {
  return vm.phase == GuardPhase::Killing || vm.phase == GuardPhase::Gone;
}

// A late pause gets its time for a confirmation too: the loop may just have come back from a gap.
TimePoint kill_at(const GuardVm& vm, const GuardTimes& times) {
  return std::max(vm.last_sent + times.kill_after(), vm.paused_at + times.confirm_within());
}

GuardDecision act(GuardVm vm, GuardAction action, const char* reason) {
  return {vm, action, GuardAnswer::Now, "ok", reason};
}

GuardDecision answer(GuardVm vm, const char* reply) {
  return {vm, GuardAction::None, GuardAnswer::Now, reply, ""};
}

GuardDecision pause(GuardVm vm, TimePoint now, const char* reason) {
  vm.phase = GuardPhase::Stopping;
  vm.paused_at = now;
  vm.alarmed = false;
  GuardDecision decision = act(vm, GuardAction::Pause, reason);
  decision.answer = GuardAnswer::WhenPaused;
  return decision;
}

GuardDecision resume(GuardVm vm, const char* reason) {
  vm.phase = GuardPhase::Running;
  vm.alarmed = false;
  return act(vm, GuardAction::Resume, reason);
}

GuardDecision kill(GuardVm vm, TimePoint now, const char* reason) {
  vm.phase = GuardPhase::Killing;
  vm.killed_at = now;
  vm.alarmed = false;
  GuardDecision decision = act(vm, GuardAction::Kill, reason);
  decision.answer = GuardAnswer::WhenGone;
  return decision;
}

GuardDecision alarm(GuardVm vm, const char* reason) {
  vm.alarmed = true;
  return act(vm, GuardAction::Alarm, reason);
}

GuardDecision wait_for(GuardVm vm, GuardAnswer what) {
  return {vm, GuardAction::None, what, "ok", ""};
}

// Guarantee 2: what ends a pause.
bool may_resume(const GuardVm& vm, TimePoint now, const GuardTimes& times) {
  if (!pausing(vm) || vm.held) return false;
  return !vm.needs_lease || (vm.last_sent > vm.paused_at && grant_valid(vm, now, times));
}

GuardDecision take_grant(GuardVm vm, const GuardEvent& event, const GuardTimes& times) {
  vm.last_sent = std::max(vm.last_sent, event.sent);
  if (ending(vm)) return answer(vm, "ok gone");
  if (may_resume(vm, event.now, times)) return resume(vm, "a grant sent after the pause arrived");
  return answer(vm, pausing(vm) ? "ok paused" : "ok");
}

GuardDecision on_watch(GuardVm vm, const GuardEvent& event, const GuardTimes& times) {
  if (event.epoch > vm.epoch) vm.needs_lease = true;  // `alone` was said of the old epoch only
  vm.epoch = event.epoch;
  const GuardDecision taken = take_grant(vm, event, times);
  const GuardVm& next = taken.vm;
  const bool lacking = next.needs_lease && !grant_valid(next, event.now, times);
  if (next.phase == GuardPhase::Running && taken.action == GuardAction::None && lacking)
    return pause(next, event.now, "it is watched without a valid lease");
  if (next.phase == GuardPhase::Stopping) return wait_for(next, GuardAnswer::WhenPaused);
  return taken;
}

GuardDecision on_renew(GuardVm vm, const GuardEvent& event, const GuardTimes& times) {
  if (vm.held) return answer(vm, "ok stopped");
  vm.epoch = event.epoch;
  return take_grant(vm, event, times);
}

GuardDecision on_alone(GuardVm vm, const GuardEvent& event, const GuardTimes& times) {
  if (ending(vm)) return answer(vm, "error its process was killed or is gone");
  vm.epoch = event.epoch;
  vm.needs_lease = false;
  if (may_resume(vm, event.now, times))
    return resume(vm, "this node is the only in-sync one: no lease needed");
  return answer(vm, vm.held ? "ok stopped" : "ok");
}

GuardDecision on_lease(GuardVm vm, const GuardEvent& event, const GuardTimes& times) {
  if (vm.phase != GuardPhase::Running || !grant_valid(vm, event.now, times))
    return answer(vm, "error no valid grant is held");
  vm.epoch = event.epoch;
  vm.needs_lease = true;
  return answer(vm, "ok");
}

GuardDecision on_stop(GuardVm vm, TimePoint now) {
  if (vm.phase == GuardPhase::Gone) return answer(vm, "ok gone");
  vm.held = true;
  if (vm.phase == GuardPhase::Killing) return wait_for(vm, GuardAnswer::WhenGone);
  if (vm.phase == GuardPhase::Running) return pause(vm, now, "a stop was asked for");
  return wait_for(vm, GuardAnswer::WhenPaused);  // Stopping, Paused
}

GuardDecision on_kill(const GuardVm& vm, TimePoint now) {
  if (vm.phase == GuardPhase::Gone) return answer(vm, "ok gone");
  if (vm.phase == GuardPhase::Killing) return wait_for(vm, GuardAnswer::WhenGone);
  return kill(vm, now, "a kill was asked for");
}

GuardDecision on_continue(GuardVm vm, const GuardEvent& event, const GuardTimes& times) {
  if (ending(vm)) return answer(vm, "error its process was killed or is gone");
  vm.epoch = event.epoch;
  vm.held = false;
  if (may_resume(vm, event.now, times)) return resume(vm, "the stop was taken back and it may run");
  return answer(vm, pausing(vm) ? "ok paused" : "ok");
}

GuardDecision on_tick(const GuardVm& vm, TimePoint now, const GuardTimes& times) {
  switch (vm.phase) {
    case GuardPhase::Running:
      if (vm.needs_lease && !grant_valid(vm, now, times))
        return pause(vm, now, "its lease was not renewed in time");
      break;
    case GuardPhase::Stopping:
      if (now < kill_at(vm, times)) break;
      if (vm.needs_lease) return kill(vm, now, "its pause was not confirmed in time");
      if (vm.alarmed) break;
      return alarm(vm, "the pause that was asked for could not be confirmed");
    case GuardPhase::Killing:
      if (!vm.alarmed && now >= vm.killed_at + times.confirm_within())
        return alarm(vm,
                     "neither pause nor kill was confirmed: reset this host, for instance by "
                     "its watchdog");
      break;
    case GuardPhase::Paused:
    case GuardPhase::Gone:
      break;
  }
  return answer(vm, "ok");
}

// The guard was not able to act during the gap, so nothing it was told before counts for a resume.
GuardDecision on_gap(GuardVm vm, TimePoint now) {
  if (vm.phase == GuardPhase::Running && vm.needs_lease)
    return pause(vm, now, "the guard itself was not running for too long");
  if (pausing(vm)) vm.paused_at = now;
  return answer(vm, "ok");
}

bool carries_epoch(GuardEventKind kind) {
  return kind == GuardEventKind::Watch || kind == GuardEventKind::Renew ||
         kind == GuardEventKind::Alone || kind == GuardEventKind::Lease ||
         kind == GuardEventKind::Continue;
}

}  // namespace

GuardDecision guard_step(const GuardVm& vm, const GuardEvent& event, const GuardTimes& times) {
  if (carries_epoch(event.kind) && event.epoch < vm.epoch) {
    const bool harmless =
        event.kind == GuardEventKind::Renew || event.kind == GuardEventKind::Watch;
    return answer(vm, harmless ? "ok stale" : "error it is watched at a higher epoch");
  }
  if (event.sent > event.now) return answer(vm, "error the grant was sent in the future");
  GuardVm next = vm;
  switch (event.kind) {
    case GuardEventKind::Watch:
      return on_watch(vm, event, times);
    case GuardEventKind::Renew:
      return on_renew(vm, event, times);
    case GuardEventKind::Alone:
      return on_alone(vm, event, times);
    case GuardEventKind::Lease:
      return on_lease(vm, event, times);
    case GuardEventKind::Stop:
      return on_stop(vm, event.now);
    case GuardEventKind::Kill:
      return on_kill(vm, event.now);
    case GuardEventKind::Continue:
      return on_continue(vm, event, times);
    case GuardEventKind::Tick:
      return on_tick(vm, event.now, times);
    case GuardEventKind::Gap:
      return on_gap(vm, event.now);
    case GuardEventKind::SeenRunning:
      if (vm.phase == GuardPhase::Paused)
        return pause(vm, event.now, "somebody else resumed it during its pause");
      return answer(vm, "ok");
    case GuardEventKind::SeenStopped:
      if (vm.phase == GuardPhase::Stopping) next.phase = GuardPhase::Paused;
      return answer(next, "ok");
    case GuardEventKind::SeenGone:
      next.phase = GuardPhase::Gone;
      return answer(next, "ok");
  }
  return answer(vm, "error unknown event");
}

TimePoint guard_deadline(const GuardVm& vm, const GuardTimes& times) {
  if (vm.phase == GuardPhase::Running && vm.needs_lease) return vm.last_sent + times.pause_after();
  if (vm.phase == GuardPhase::Stopping && (vm.needs_lease || !vm.alarmed))
    return kill_at(vm, times);
  if (vm.phase == GuardPhase::Killing && !vm.alarmed) return vm.killed_at + times.confirm_within();
  return TimePoint::max();
}

}  // namespace havm
