// The job of FailoverWorld: two nodes, their engines and guards, an arbiter and a network, modelled
// just deep enough to run the production failover core of both nodes against faults, on a virtual
// clock. A run is a function of its seed. The checkers inside are independent of the core: they
// look at replicas and vCPUs only.
#pragma once

#include <array>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "agent/failover/failover_core.hpp"

namespace havm::sim {

struct WorldRegister {
  Epoch epoch;
  int owner = 0;
  std::array<bool, 2> in_sync{};
  bool operator==(const WorldRegister&) const = default;
};

struct SimEngine {
  bool up = true;
  EngineRole role = EngineRole::none;
  Epoch epoch, promised_epoch;
  ReplicaState state = ReplicaState::inconsistent;
  RecordedSet in_sync = RecordedSet::none;
  bool grow_mark = false;
  bool suspect = false;
  bool failed = false;  // a disk of it: nothing of the guest completes any more
  TimePoint started_at{};
  TimePoint granted_at{};
  long data = 0;     // number of the newest write this replica holds
  long durable = 0;  // … that would survive a power cut
};

struct SimSession {
  bool up = false;
  int owner = 0;
  Epoch epoch;
  SessionState state = SessionState::none;  // as the owner sees it
  TimePoint synced_at{};
  TimePoint heard_at{};
  bool slow = false;       // the partner answers, too slowly for the guest
  TimePoint not_before{};  // a partner that was left is not tried again before
};

struct SimNode {
  bool powered = true;
  bool agent_up = true;
  bool vm_exists = false;
  bool vm_io_error = false;  // paused by libvirt because its disk went away
  bool guard_stopped = false;
  bool must_stop = false;  // guard `stop`
  TimePoint guard_stopped_at{};
  std::optional<TimePoint> lease_sent;
  std::optional<Epoch> stopped_epoch;  // durable
  Desired desired = Desired::running;  // durable
  SimEngine engine;
  State core;
  TimePoint boot_at{};
  TimePoint heard_partner_at{};
  bool partner_up = false;
  int boots = 1;
};

struct InFlight {
  TimePoint at{};
  int node = 0;
  int boot = 0;  // of the agent that sent it
  Action action;
  bool answered = false;  // phase 2: the effect took place, the answer travels
  bool lost = false;      // the answer never arrives
  Completed answer;
};

class FailoverWorld {
 public:
  // What a broken variant of the rules leaves out, to show that the checkers notice.
  enum class Mutation {
    none,
    ack_without_partner,
    ack_before_shrink,
    ack_alone_while_growing,
    no_lease_wait
  };

  explicit FailoverWorld(std::uint64_t seed, Mutation mutation = Mutation::none);

  void run_for(Duration duration);

  // Faults. `node` 0 or 1.
  void power_cut(int node);
  void boot(int node);
  void kill_agent(int node);
  void start_agent(int node);
  void restart_engine(int node);
  void fail_disk(int node);
  void cut_links(bool cut) { links_cut_ = cut; }
  void slow_partner(bool slow) { session_.slow = slow; }
  void cut_arbiter(int node, bool cut) { arbiter_cut_.at(static_cast<std::size_t>(node)) = cut; }
  void heal();

  [[nodiscard]] bool running(int node) const;  // vCPUs run
  [[nodiscard]] const SimNode& node(int n) const { return nodes_.at(static_cast<std::size_t>(n)); }
  [[nodiscard]] SimNode& node(int n) { return nodes_.at(static_cast<std::size_t>(n)); }
  [[nodiscard]] const WorldRegister& reg() const { return reg_; }
  [[nodiscard]] long acked() const { return acked_; }
  [[nodiscard]] bool protected_and_running() const;
  [[nodiscard]] const std::vector<std::string>& violations() const { return violations_; }
  [[nodiscard]] std::string timeline() const;
  [[nodiscard]] TimePoint now() const { return now_; }
  void deliver(int node, const Event& event);
  std::mt19937_64& random() { return random_; }

 private:
  void tick();
  void heartbeats(int n);
  void sessions();
  void guard(int n);
  void guest(int n);
  void send(int n, const Action& action);
  void arrive(InFlight flight);
  Completed execute(int n, const Action& action);
  Completed execute_engine(int n, const Action& action);
  Completed swap(int n, const CompareAndSwap& cas);
  Completed view_of_register(int n) const;
  WorldRegister absolute(int n, const RegisterView& view) const;
  RegisterView relative(int n, const WorldRegister& reg) const;
  EngineView engine_view(int n) const;
  VmState vm_state(int n) const;
  void close_session();
  bool needs_lease(int n) const;
  void check_start(int n);
  void violation(const std::string& text);
  void log(int n, const std::string& text);
  Duration delay(int max_ms);

  std::mt19937_64 random_;
  Mutation mutation_;
  TimePoint now_{};
  std::array<SimNode, 2> nodes_;
  std::array<bool, 2> arbiter_cut_{};
  bool links_cut_ = false;
  SimSession session_;
  WorldRegister reg_;
  std::array<std::optional<TimePoint>, 2> granted_;
  std::deque<InFlight> flights_;
  long acked_ = 0;             // newest write whose completion the guest saw
  long flushed_ = 0;           // … that a completed flush covers
  std::array<bool, 2> cut_{};  // power cuts since the VM was last protected
  bool alone_cut_ = false;
  std::vector<std::string> violations_;
  std::deque<std::string> timeline_;
};

}  // namespace havm::sim
