#include "tests/sim/failover_world.hpp"

#include <algorithm>

namespace havm::sim {
namespace {

using std::chrono::milliseconds;

constexpr Duration tick_length = milliseconds(50);
constexpr Duration session_timeout = milliseconds(2000);
constexpr Duration arbiter_deadline = milliseconds(1000);
constexpr std::size_t timeline_lines_max = 1000;

FailoverConfig config_of(int n) {
  FailoverConfig c;
  c.self = n == 0 ? "a" : "b";
  c.partner = n == 0 ? "b" : "a";
  c.lease = milliseconds(6000);
  c.peer_timeout = milliseconds(2000);
  c.boot_grace = milliseconds(30000);
  c.register_poll = milliseconds(1000);
  c.handover_timeout = milliseconds(15000);
  c.retry_delay = milliseconds(200);
  return c;
}

bool arbiter_action(const Action& a) {
  return std::holds_alternative<ReadRegister>(a) || std::holds_alternative<CompareAndSwap>(a);
}

Completed failed(Lane lane, std::string why) {
  Completed c;
  c.lane = lane;
  c.outcome = Completed::Outcome::failed;
  c.error = std::move(why);
  return c;
}

}  // namespace

FailoverWorld::FailoverWorld(std::uint64_t seed, Mutation mutation)
    : random_(seed), mutation_(mutation) {
  reg_ = {Epoch(1), 0, {true, false}};
  now_ = TimePoint(std::chrono::seconds(1000));
  for (int n = 0; n < 2; ++n) {
    SimNode& node = nodes_.at(static_cast<std::size_t>(n));
    node.engine.state = n == 0 ? ReplicaState::uptodate : ReplicaState::inconsistent;
    node.engine.started_at = node.engine.granted_at = now_;
    start_agent(n);
  }
}

Duration FailoverWorld::delay(int max_ms) {
  return milliseconds(std::uniform_int_distribution<int>(1, max_ms)(random_));
}

void FailoverWorld::log(int n, const std::string& text) {
  timeline_.push_back(std::to_string(to_ms(now_ - TimePoint(std::chrono::seconds(1000)))) +
                      " ms  " +
                      (n == 0   ? "a"
                       : n == 1 ? "b"
                                : "-") +
                      "  " + text);
  if (timeline_.size() > timeline_lines_max) timeline_.pop_front();
}

void FailoverWorld::violation(const std::string& text) {
  log(2, "VIOLATION " + text);
  violations_.push_back(text);
}

std::string FailoverWorld::timeline() const {
  std::string all;
  for (const std::string& line : timeline_)
    all += line + "\n";
  return all;
}

// ---- views
// ------------------------------------------------------------------------------------------

WorldRegister FailoverWorld::absolute(int n, const RegisterView& v) const {
  WorldRegister r{v.epoch, v.owned() ? n : 1 - n, {}};
  r.in_sync.at(static_cast<std::size_t>(n)) = v.self_in_sync;
  r.in_sync.at(static_cast<std::size_t>(1 - n)) = v.partner_in_sync;
  return r;
}

RegisterView FailoverWorld::relative(int n, const WorldRegister& r) const {
  return {r.epoch, r.owner == n ? Side::self : Side::partner,
          r.in_sync.at(static_cast<std::size_t>(n)), r.in_sync.at(static_cast<std::size_t>(1 - n))};
}

EngineView FailoverWorld::engine_view(int n) const {
  const SimEngine& e = node(n).engine;
  EngineView v;
  v.role = e.role;
  v.epoch = e.epoch;
  v.promised_epoch = e.promised_epoch;
  v.state = e.state;
  v.in_sync = e.in_sync;
  v.grow_mark = e.grow_mark;
  v.suspect = e.suspect;
  v.failed = e.failed;
  v.granted_at = mutation_ == Mutation::no_lease_wait ? TimePoint{} : e.granted_at;
  if (session_.up) v.session = session_.owner == n ? session_.state : SessionState::secondary;
  const bool owner = e.role == EngineRole::owner;
  v.partner_slow = owner && session_.up && session_.slow;
  v.partner_left = owner && now_ < session_.not_before;
  if (v.partner_slow || v.partner_left) v.slow_reason = "slow partner";
  return v;
}

VmState FailoverWorld::vm_state(int n) const {
  if (!node(n).vm_exists) return VmState::off;
  return node(n).vm_io_error ? VmState::paused_by_error : VmState::running;
}

bool FailoverWorld::running(int n) const {
  const SimNode& s = node(n);
  return s.powered && s.vm_exists && !s.vm_io_error && !s.guard_stopped;
}

bool FailoverWorld::protected_and_running() const {
  return violations_.empty() && node(0).powered && node(1).powered && !links_cut_ &&
         reg_.in_sync[0] && reg_.in_sync[1] && session_.up &&
         session_.state == SessionState::live && running(reg_.owner) &&
         !node(1 - reg_.owner).vm_exists;
}

bool FailoverWorld::needs_lease(int n) const {
  const SimEngine& e = node(n).engine;
  return !(e.in_sync == RecordedSet::self && !e.grow_mark);
}

// ---- faults
// -----------------------------------------------------------------------------------------

void FailoverWorld::close_session() {
  session_.up = false;
  session_.state = SessionState::none;
}

void FailoverWorld::power_cut(int n) {
  SimNode& s = node(n);
  log(n, "POWER CUT");
  s.powered = s.agent_up = s.engine.up = s.vm_exists = false;
  s.guard_stopped = s.must_stop = s.vm_io_error = false;
  s.lease_sent.reset();
  if (session_.up && session_.owner == n) close_session();
  SimEngine& e = s.engine;
  std::uniform_int_distribution<long> kept(e.durable, std::max(e.durable, e.data));
  e.data = kept(random_);
  cut_.at(static_cast<std::size_t>(n)) = true;
  alone_cut_ = alone_cut_ || (reg_.owner == n && !reg_.in_sync.at(static_cast<std::size_t>(1 - n)));
  e.role = EngineRole::none;
}

void FailoverWorld::boot(int n) {
  SimNode& s = node(n);
  if (s.powered) return;
  log(n, "BOOT");
  s.powered = true;
  s.engine.up = true;
  s.engine.suspect = true;
  s.engine.failed = false;
  s.engine.started_at = s.engine.granted_at = now_;
  s.boot_at = now_;
  if (session_.up) close_session();  // rule 1: a session is bound to both boot ids
  start_agent(n);
}

void FailoverWorld::kill_agent(int n) {
  if (!node(n).agent_up) return;
  log(n, "AGENT KILLED");
  node(n).agent_up = false;
}

void FailoverWorld::start_agent(int n) {
  SimNode& s = node(n);
  if (!s.powered) return;
  log(n, "agent starts");
  s.agent_up = true;
  ++s.boots;
  s.core = make_state(config_of(n), now_);
  s.core.desired = s.desired;
  s.core.stopped_epoch = s.stopped_epoch;
  s.heard_partner_at = now_;
  s.partner_up = false;
}

void FailoverWorld::restart_engine(int n) {
  SimNode& s = node(n);
  if (!s.powered) return;
  log(n, "ENGINE KILLED AND RESTARTED");
  if (session_.up) close_session();
  if (s.vm_exists) s.vm_io_error = true;
  s.engine.role = EngineRole::none;
  s.engine.failed = false;
  s.engine.started_at = s.engine.granted_at = now_;
}

void FailoverWorld::fail_disk(int n) {
  SimEngine& e = node(n).engine;
  log(n, "DISK FAILED");
  e.failed = true;
  // A restart must not make it trusted again, where the partner holds everything.
  if (e.in_sync == RecordedSet::both) e.state = ReplicaState::inconsistent;
  if (session_.up && session_.owner != n) close_session();
}

void FailoverWorld::heal() {
  log(2, "ALL FAULTS HEALED");
  links_cut_ = session_.slow = false;
  arbiter_cut_ = {};
  for (int n = 0; n < 2; ++n) {
    if (!node(n).powered) boot(n);
    if (!node(n).agent_up) start_agent(n);
    if (node(n).engine.failed) restart_engine(n);
  }
}

// ---- the run
// ----------------------------------------------------------------------------------------

void FailoverWorld::run_for(Duration duration) {
  const TimePoint end = now_ + duration;
  while (now_ < end && violations_.empty())
    tick();
}

void FailoverWorld::tick() {
  now_ += tick_length;
  sessions();
  for (int n = 0; n < 2; ++n) {
    guard(n);
    guest(n);
  }
  if (running(0) && running(1)) violation("G3: vCPUs of the VM run on both nodes");
  std::deque<InFlight> due;
  for (auto it = flights_.begin(); it != flights_.end();) {
    if (it->at <= now_) {
      due.push_back(std::move(*it));
      it = flights_.erase(it);
    } else {
      ++it;
    }
  }
  if (protected_and_running()) {
    cut_ = {};
    alone_cut_ = false;
  }
  for (InFlight& flight : due)
    arrive(std::move(flight));
  for (int n = 0; n < 2; ++n) {
    if (!node(n).agent_up) continue;
    heartbeats(n);
    deliver(n, EngineChanged{engine_view(n)});
    if (!node(n).core.vm_pending) deliver(n, VmChanged{vm_state(n)});
    if (node(n).lease_sent) deliver(n, LeaseGranted{*node(n).lease_sent});
    deliver(n, Tick{});
  }
}

void FailoverWorld::deliver(int n, const Event& event) {
  SimNode& s = node(n);
  for (Decision& d : step(s.core, now_, event).decisions) {
    log(n, d.kind + ": " + d.reason);
    if (d.kind == "grace-shrink")
      alone_cut_ = true;  // stated: unflushed writes may be lost (rule 8)
    if (d.action) send(n, *d.action);
  }
  s.desired = s.core.desired;
}

void FailoverWorld::heartbeats(int n) {
  SimNode& s = node(n);
  const SimNode& p = node(1 - n);
  if (!links_cut_ && p.agent_up) {
    s.heard_partner_at = now_;
    if (!s.partner_up) deliver(n, PartnerHeard{});
    s.partner_up = true;
    PartnerReport r;
    r.suspect = p.engine.suspect;
    r.promised_epoch = p.engine.promised_epoch;
    r.uptodate = p.engine.state == ReplicaState::uptodate;
    deliver(n, PartnerReported{r});
  } else if (now_ - s.heard_partner_at >= s.core.config.peer_timeout &&
             (s.partner_up || now_ - s.core.born >= s.core.config.boot_grace)) {
    s.partner_up = false;
    deliver(n, PartnerSilent{});
  }
  const bool owner_lease = s.core.reg && s.core.reg->owned() && s.core.reg->both();
  if (owner_lease && !arbiter_cut_.at(static_cast<std::size_t>(n)) && reg_.owner == n &&
      reg_.epoch == s.core.reg->epoch) {
    granted_.at(static_cast<std::size_t>(n)) = now_;
    s.lease_sent = now_ - milliseconds(10);
  }
}

void FailoverWorld::sessions() {
  if (!session_.up) return;
  SimEngine& owner = node(session_.owner).engine;
  SimEngine& other = node(1 - session_.owner).engine;
  const bool alive = node(1 - session_.owner).powered && other.up && owner.up && !links_cut_;
  if (alive) session_.heard_at = now_;
  if (now_ - session_.heard_at > session_timeout) {
    log(session_.owner, "session times out");
    return close_session();
  }
  if (!alive) return;
  if (other.promised_epoch <= session_.epoch) {
    other.granted_at = now_;
    node(session_.owner).lease_sent = now_ - milliseconds(10);
  }
  if (session_.state == SessionState::syncing && now_ >= session_.synced_at) {
    other.data = owner.data;
    other.durable = other.data;
    other.state = ReplicaState::uptodate;
    other.suspect = false;
    session_.state = SessionState::synced;
  }
}

void FailoverWorld::guard(int n) {
  SimNode& s = node(n);
  if (!s.vm_exists) {
    s.guard_stopped = s.must_stop = false;
    return;
  }
  if (s.must_stop) {
    s.guard_stopped = true;
    return;
  }
  const bool leased = s.lease_sent && now_ < *s.lease_sent + lease_use(s.core.config);
  if (!needs_lease(n)) {
    s.guard_stopped = false;
  } else if (!leased && !s.guard_stopped) {
    s.guard_stopped = true;
    s.guard_stopped_at = now_;
    log(n, "guard pauses the VM");
  } else if (s.guard_stopped && leased && *s.lease_sent > s.guard_stopped_at) {
    s.guard_stopped = false;
  }
}

// One write per tick of a VM whose vCPUs run, acknowledged only as the engine's mode allows.
void FailoverWorld::guest(int n) {
  SimNode& s = node(n);
  SimEngine& e = s.engine;
  if (!running(n) || e.role != EngineRole::owner || e.failed) return;
  const bool stream = session_.up && session_.owner == n && session_.heard_at == now_;
  const bool growing = e.grow_mark && mutation_ != Mutation::ack_alone_while_growing;
  const bool synced = session_.up && session_.owner == n && session_.state == SessionState::synced;
  bool partner_needed = e.in_sync == RecordedSet::both || growing || synced;
  if (mutation_ == Mutation::ack_without_partner) partner_needed = false;
  if (mutation_ == Mutation::ack_before_shrink && !session_.up) partner_needed = false;
  if (partner_needed && !stream) return;
  e.data = ++acked_;
  if (stream && session_.state != SessionState::syncing &&
      !(mutation_ == Mutation::ack_without_partner &&
        std::uniform_int_distribution<int>(0, 1)(random_) == 0))
    node(1 - n).engine.data = e.data;
  if (std::uniform_int_distribution<int>(0, 9)(random_) != 0) return;
  e.durable = e.data;
  if (stream) node(1 - n).engine.durable = node(1 - n).engine.data;
  flushed_ = acked_;
}

// ---- actions
// ----------------------------------------------------------------------------------------

void FailoverWorld::send(int n, const Action& action) {
  InFlight f;
  f.node = n;
  f.boot = node(n).boots;
  f.action = action;
  const bool slow = std::uniform_int_distribution<int>(0, 19)(random_) == 0;
  f.at = now_ + delay(slow && arbiter_action(action) ? 3000 : 120);
  f.lost = slow && arbiter_action(action);
  if (f.lost) {  // the agent hears nothing in time, yet the request may still arrive
    InFlight timeout = f;
    timeout.answered = true;
    timeout.lost = false;
    timeout.at = now_ + arbiter_deadline;
    timeout.answer.lane = Lane::storage;
    timeout.answer.outcome = Completed::Outcome::unknown;
    flights_.push_back(std::move(timeout));
  }
  flights_.push_back(std::move(f));
}

void FailoverWorld::arrive(InFlight f) {
  SimNode& s = node(f.node);
  if (f.answered) {
    if (s.agent_up && s.boots == f.boot) deliver(f.node, EngineChanged{engine_view(f.node)});
    if (s.agent_up && s.boots == f.boot) deliver(f.node, f.answer);
    return;
  }
  const bool reachable = !arbiter_cut_.at(static_cast<std::size_t>(f.node)) && s.powered;
  if (arbiter_action(f.action)) {
    if (reachable || f.lost)
      f.answer = execute(f.node, f.action);
    else
      f.answer.outcome = Completed::Outcome::unknown;
  } else if (s.powered) {
    f.answer = execute(f.node, f.action);
  } else {
    return;
  }
  f.answer.lane = lane_of(f.action);
  if (f.lost) return;
  f.answered = true;
  f.at = now_ + delay(60);
  flights_.push_back(std::move(f));
}

Completed FailoverWorld::view_of_register(int n) const {
  Completed c;
  c.register_view = relative(n, reg_);
  const auto& grant = granted_.at(static_cast<std::size_t>(1 - n));
  if (grant) c.partner_granted_at = *grant;
  return c;
}

Completed FailoverWorld::swap(int n, const CompareAndSwap& cas) {
  const WorldRegister to = absolute(n, cas.to);
  const bool applied = reg_ == absolute(n, cas.expect) && to.epoch > reg_.epoch;
  if (applied) reg_ = to;
  Completed c = view_of_register(n);
  c.applied = applied;
  return c;
}

// G1 is promised for any single fault, G2 (flushed writes) for any sequence of them.
void FailoverWorld::check_start(int n) {
  const long data = node(n).engine.data;
  const bool single_fault = !alone_cut_ && !(cut_[0] && cut_[1]);
  if (data < flushed_) violation("G2: the VM starts on a replica that misses flushed writes");
  if (data < acked_ && single_fault)
    violation("G1: the VM starts on a replica that misses completed writes");
  acked_ = data;
}

Completed FailoverWorld::execute(int n, const Action& action) {
  SimNode& s = node(n);
  Completed ok;
  if (std::holds_alternative<ReadRegister>(action)) return view_of_register(n);
  if (const auto* cas = std::get_if<CompareAndSwap>(&action)) return swap(n, *cas);
  if (std::holds_alternative<RequireLease>(action)) {
    const bool held = s.lease_sent && now_ < *s.lease_sent + lease_use(s.core.config);
    return held ? ok : failed(Lane::storage, "no lease");
  }
  if (const auto* stopped = std::get_if<PersistStopped>(&action)) {
    s.stopped_epoch = stopped->epoch;
    return ok;
  }
  if (const auto* ask = std::get_if<AskTakeover>(&action)) {
    if (!links_cut_ && node(1 - n).agent_up) deliver(1 - n, TakeoverAsked{ask->epoch});
    return ok;
  }
  if (std::holds_alternative<StartVm>(action)) {
    if (s.engine.role != EngineRole::owner) return failed(Lane::vm, "the disk is not served here");
    if (s.vm_exists) return failed(Lane::vm, "already running");
    check_start(n);
    s.vm_exists = true;
    s.vm_io_error = false;
    s.guard_stopped = needs_lease(n);
    s.guard_stopped_at = now_;
    return ok;
  }
  if (std::holds_alternative<ResumeVm>(action)) {
    s.vm_io_error = s.engine.role != EngineRole::owner;
    return ok;
  }
  if (std::holds_alternative<PauseVm>(action)) {
    s.must_stop = s.guard_stopped = true;
    return ok;
  }
  if (std::holds_alternative<KillVm>(action)) {
    s.vm_exists = false;
    return ok;
  }
  if (std::holds_alternative<ShutdownVm>(action)) {
    s.vm_exists = false;
    return ok;
  }
  return execute_engine(n, action);
}

Completed FailoverWorld::execute_engine(int n, const Action& action) {
  SimEngine& e = node(n).engine;
  SimEngine& p = node(1 - n).engine;
  Completed ok;
  if (const auto* promise = std::get_if<EnginePromise>(&action)) {
    if (promise->epoch < e.promised_epoch) return failed(Lane::storage, "promised more");
    e.promised_epoch = promise->epoch;
    e.durable = e.data;
    if (session_.up && session_.epoch < promise->epoch) close_session();
    return ok;
  }
  if (const auto* serve = std::get_if<EngineServe>(&action)) {
    if (e.state != ReplicaState::uptodate || serve->epoch < e.promised_epoch)
      return failed(Lane::storage, "cannot serve");
    if (session_.up) close_session();
    e.role = EngineRole::owner;
    e.epoch = e.promised_epoch = serve->epoch;
    e.in_sync = RecordedSet::self;
    e.grow_mark = e.suspect = false;
    return ok;
  }
  if (std::holds_alternative<EngineConnect>(action)) {
    if (session_.up || links_cut_ || !node(1 - n).powered || p.role == EngineRole::owner ||
        e.failed || p.failed || e.epoch < p.promised_epoch || e.role != EngineRole::owner)
      return failed(Lane::storage, "no session");
    if (now_ < session_.not_before) return failed(Lane::storage, "the partner was left");
    session_.up = true;
    session_.owner = n;
    session_.epoch = e.epoch;
    session_.state = SessionState::syncing;
    session_.synced_at = now_ + delay(3000);
    session_.heard_at = now_;
    p.role = EngineRole::secondary;
    p.promised_epoch = e.epoch;
    p.state = ReplicaState::inconsistent;
    p.in_sync = RecordedSet::none;
    return ok;
  }
  if (std::holds_alternative<EngineLeaveSlowPartner>(action)) {
    if (!session_.up || !session_.slow || session_.owner != n)
      return failed(Lane::storage, "the partner is not slow now");
    session_.not_before = now_ + milliseconds(5000);
    close_session();
    return ok;
  }
  if (std::holds_alternative<EngineFlush>(action)) {
    if (e.failed) return failed(Lane::storage, "the disk failed");
    e.durable = e.data;
    return ok;
  }
  if (std::holds_alternative<EngineGrowPrepare>(action)) {
    if (!session_.up || session_.state != SessionState::synced)
      return failed(Lane::storage, "not synced");
    e.grow_mark = true;
    return ok;
  }
  if (const auto* commit = std::get_if<EngineGrowCommit>(&action)) {
    if (!session_.up || session_.owner != n) return failed(Lane::storage, "session lost");
    e.epoch = e.promised_epoch = session_.epoch = commit->epoch;
    e.in_sync = RecordedSet::both;
    if (!links_cut_) p.epoch = p.promised_epoch = commit->epoch;
    e.grow_mark = false;
    session_.state = SessionState::live;
    return ok;
  }
  if (const auto* shrink = std::get_if<EngineShrink>(&action)) {
    if (session_.up) close_session();
    e.epoch = e.promised_epoch = shrink->epoch;
    e.in_sync = RecordedSet::self;
    e.grow_mark = false;
    return ok;
  }
  e.role = EngineRole::none;  // stand-by
  e.in_sync = RecordedSet::none;
  e.grow_mark = false;
  if (session_.up && session_.owner == n) close_session();
  if (e.state == ReplicaState::uptodate) e.state = ReplicaState::outdated;
  return ok;
}

}  // namespace havm::sim
