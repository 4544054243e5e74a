#include "agent/failover/failover_core.hpp"

#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

template <class... Ts>
struct Overload : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overload(Ts...) -> Overload<Ts...>;

Verdict read_register(std::string phase, std::string reason) {
  return {std::move(phase), {"read-register", std::move(reason), Action{ReadRegister{}}}};
}

// FO-2: an unsettled swap goes before everything else that the register could decide.
std::optional<Verdict> settle(State& s) {
  if (!s.unsettled) return std::nullopt;
  const CompareAndSwap cas = *s.unsettled;
  if (s.want_read)
    return Verdict{
        "settling",
        {"", "the outcome of a swap is unknown and the arbiter does not answer", std::nullopt}};
  HAVM_ASSERT(s.reg->epoch == cas.expect.epoch,
              "a settled swap is forgotten when the register is read");
  const bool growing = cas.to.both();
  const bool stream = s.engine && (s.engine->session == SessionState::synced ||
                                   s.engine->session == SessionState::live);
  if (growing && !stream) {
    const RegisterView fence{cas.expect.epoch.next(), Side::self, true, false};
    return Verdict{"fencing",
                   {"fence-swap",
                    "the swap to both may still arrive and the stream is gone: raise the epoch so "
                    "that only one of the two can win",
                    Action{CompareAndSwap{cas.expect, fence}}}};
  }
  return Verdict{
      "settling",
      {"repeat-swap", "the register is unchanged, so the swap may still be on its way: repeat it",
       Action{cas}}};
}

// Rule 12: without an arbiter only a replica that knows itself to be the only one in sync may
// serve; nobody else can have become owner.
Verdict serve_by_record(const State& s) {
  const bool alone = s.engine && s.engine->role == EngineRole::none && !s.engine->failed &&
                     s.engine->in_sync == RecordedSet::self && !s.engine->grow_mark &&
                     s.engine->state == ReplicaState::uptodate &&
                     s.engine->promised_epoch == s.engine->epoch;
  if (!alone)
    return {"starting", {"", "waiting for the arbiter: it does not answer", std::nullopt}};
  return {"taking-over",
          {"serve",
           "the arbiter does not answer, but the own record says that no other replica is in sync",
           Action{EngineServe{s.engine->epoch}}}};
}

Verdict decide_storage(State& s) {
  if (s.now < s.storage_retry_at) return {s.phase, {"", s.reason, std::nullopt}};
  const bool unread = !s.reg && !s.reg_missing;
  const bool due = s.want_read || unread || s.now - s.reg_read_at >= s.config.register_poll;
  if (due && s.now >= s.read_retry_at) return read_register(s.phase, s.reason);
  if (unread) return serve_by_record(s);
  if (auto verdict = settle(s)) return *verdict;
  if (s.reg_missing)
    return {"unregistered", {"", "the arbiter knows no register of this VM", std::nullopt}};
  if (!s.engine)
    return {"engine-away", {"", "the engine of this node does not answer", std::nullopt}};
  return s.reg->owned() ? decide_owner(s) : decide_standby(s);
}

void start_action(State& s, const Decision& decision) {
  if (!decision.action) return;
  const Action& action = *decision.action;
  if (lane_of(action) == Lane::storage) {
    s.storage_pending = action;
    if (std::holds_alternative<ReadRegister>(action)) s.want_read = false;
    if (const auto* cas = std::get_if<CompareAndSwap>(&action)) s.unsettled = *cas;
  } else {
    s.vm_pending = action;
  }
}

}  // namespace

Lane lane_of(const Action& action) {
  return std::visit(
      Overload{[](const StartVm&) { return Lane::vm; }, [](const ResumeVm&) { return Lane::vm; },
               [](const PauseVm&) { return Lane::vm; }, [](const KillVm&) { return Lane::vm; },
               [](const ShutdownVm&) { return Lane::vm; },
               [](const auto&) { return Lane::storage; }},
      action);
}

const char* name_of(const Action& action) {
  return std::visit(
      Overload{[](const ReadRegister&) { return "read-register"; },
               [](const CompareAndSwap&) { return "compare-and-swap"; },
               [](const EnginePromise&) { return "engine-promise"; },
               [](const EngineServe&) { return "engine-serve"; },
               [](const EngineConnect&) { return "engine-connect"; },
               [](const EngineLeaveSlowPartner&) { return "engine-leave-slow-partner"; },
               [](const EngineFlush&) { return "engine-flush"; },
               [](const EngineShrink&) { return "engine-shrink"; },
               [](const EngineGrowPrepare&) { return "engine-grow-prepare"; },
               [](const EngineGrowCommit&) { return "engine-grow-commit"; },
               [](const EngineStandBy&) { return "engine-stand-by"; },
               [](const RequireLease&) { return "require-lease"; },
               [](const PersistStopped&) { return "persist-stopped"; },
               [](const AskTakeover&) { return "ask-takeover"; },
               [](const StartVm&) { return "start-vm"; },
               [](const ResumeVm&) { return "resume-vm"; },
               [](const PauseVm&) { return "pause-vm"; }, [](const KillVm&) { return "kill-vm"; },
               [](const ShutdownVm&) { return "shutdown-vm"; }},
      action);
}

Duration lease_wait(const FailoverConfig& config) {
  return config.lease + config.lease / 1'000'000 * config.drift_ppm;
}

Duration lease_use(const FailoverConfig& config) {
  return config.lease * 3 / 10;
}

std::string describe(const State& s, const RegisterView& view) {
  std::string members;
  if (view.self_in_sync) members = s.config.self;
  if (view.partner_in_sync) members += (members.empty() ? "" : ",") + s.config.partner;
  return "epoch " + std::to_string(view.epoch.value) + ", owner " +
         (view.owned() ? s.config.self : s.config.partner) + ", in-sync {" + members + "}";
}

State make_state(FailoverConfig config, TimePoint now) {
  HAVM_ASSERT(config.lease > Duration::zero(), "a lease must last");
  State state;
  state.config = std::move(config);
  state.now = now;
  state.born = now;
  return state;
}

StepResult step(State& s, TimePoint now, const Event& event) {
  HAVM_ASSERT(now >= s.now, "time does not go back");
  s.now = now;
  StepResult result;
  apply_event(s, event, result.decisions);

  if (!s.storage_pending) {
    Verdict verdict = decide_storage(s);
    s.phase = verdict.phase;
    s.reason = verdict.decision.reason;
    start_action(s, verdict.decision);
    if (verdict.decision.action) result.decisions.push_back(std::move(verdict.decision));
  }
  if (!s.vm_pending && s.now >= s.vm_retry_at) {
    Verdict verdict = decide_vm(s);
    start_action(s, verdict.decision);
    if (verdict.decision.action) result.decisions.push_back(std::move(verdict.decision));
  }
  return result;
}

}  // namespace havm
