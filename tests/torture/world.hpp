// The job of World: one torture run: two hosts with their disks and engines, an agent on each that
// follows the storage rules of docs/protocol/failover.md, a register, a network, one VM whose guest
// writes, flushes and reads at random, faults, and a judge. A seed decides everything; the same
// seed replays exactly.
//
// Left out: time (leases and waits are chance), the vCPUs (a VM that starts ends the one before),
// disks that fail, swaps whose outcome is late. tests/sim has those.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/torture/judge.hpp"
#include "tests/torture/sim_engine.hpp"
#include "tests/torture/surroundings.hpp"

namespace havm::torture {

struct Outcome {
  Violation kind = Violation::none;  // of the first one
  std::string violation;             // empty: none
  std::string timeline;              // when asked for
  Reach reach;
};

class World final : public Surroundings {
 public:
  World(std::uint64_t seed, bool verbose);
  Outcome run();

  // Surroundings.
  Chance& chance() override { return chance_; }
  Reach& reach() override { return outcome_.reach; }
  [[nodiscard]] bool verbose() const override { return verbose_; }
  void trace(int node, const std::string& what) override;
  void violate(Violation kind, const std::string& what) override;
  using Surroundings::violate;
  void burn(int node, const char* what) override;
  void send(ConnectionId link, int from, Message message) override;
  void close(ConnectionId link, int from) override;
  void completed(int node, std::uint64_t guest_id, int error,
                 const std::vector<std::uint64_t>& values) override;
  std::uint64_t new_generation_id() override { return ++generations_; }

 private:
  enum class Asked : std::uint8_t { nothing, flush, flush_of_handover, promise };
  struct Handover {
    Epoch epoch;
    bool flushed = false;
  };
  struct Promotion {
    Register from;
    Epoch epoch;
    bool promised = false;
    bool proven = false;
  };
  struct Agent {  // lost with its host, or when it is started again
    Asked asked = Asked::nothing;
    bool flushed = false;
    std::optional<Handover> handover;
    std::optional<Promotion> promotion;
    std::optional<Epoch> takeover_proof;
  };
  struct Node {
    explicit Node(const NodeDisk& d) : disk(d) {}
    NodeDisk disk;
    std::unique_ptr<SimEngine> engine;
    Agent agent;
    bool up = true;
    std::uint64_t boot = 1;
    std::uint64_t fuse = 0;  // steps until it dies; 0: it does not
    bool fuse_cuts = false;  // the host's power, else the engine
    bool reboots = false;    // when the engine has ended in order
    Epoch stopped_epoch;     // durable: the VM does not run here again at this epoch
  };
  struct Link {
    std::array<bool, 2> open{true, true};
    std::array<std::deque<Message>, 2> to;  // by receiver
  };
  struct GuestRequest {
    DiskRequest what;
    std::size_t first = 0;  // of all sectors
    std::size_t count = 0;
    std::uint64_t arrival = 0;
    std::vector<std::uint64_t> values;
    PerSector before;
  };

  // world.cpp
  void step(bool faults);
  void run_some_io();
  void deliver();
  void end_some_link();
  void connect(int node);
  void check();
  void heal();
  // A host without power will have another one.
  [[nodiscard]] std::string boot_id(int node) const;
  [[nodiscard]] bool is_protected() const;  // both in sync, and the VM runs
  template <class Doing>
  void guarded(const Doing& doing) {
    try {
      doing();
    } catch (const Death& death) {
      die(death.node);
    }
  }
  // world_faults.cpp
  void fault();
  void light_fuse(int node, bool cuts);
  void die(int node);
  void power_cut(int node);
  void kill_engine(int node);
  void start_engine(int node);
  void end_engine(int node);
  void drop_links(int node);
  // world_guest.cpp
  void submit();
  void submit(GuestRequest request);
  void kill_vm();
  void vm_turn(int node);
  // world_agent.cpp
  void agent_turn(int node);
  void turn_without_arbiter(int node);
  void take_answer(int node);
  void owner_turn(int node);
  void hand_over(int node);
  void begin_service(int node);
  void suspect_start(int node);
  void serve_turn(int node);
  void become_alone(int node);
  void grow_turn(int node);
  void alone_turn(int node);
  void standby_turn(int node);
  void go_on_promoting(int node);
  void consider_promotion(int node);
  void ask_flush(int node, Asked what);
  [[nodiscard]] bool hears(int node) const;  // its partner's agent
  [[nodiscard]] Epoch next_epoch(int node);
  bool swap(int node, const Register& expected, const Register& next, const char* kind);
  bool swap_to_alone(int node, const char* kind);
  Node& at(int node) { return nodes_[static_cast<std::size_t>(node)]; }
  [[nodiscard]] const Node& at(int node) const { return nodes_[static_cast<std::size_t>(node)]; }

  Chance chance_;
  bool verbose_;
  Outcome outcome_;
  std::uint64_t step_ = 0;
  Judge judge_{*this};
  Register register_;
  bool arbiter_up_ = true;
  bool network_up_ = true;
  std::vector<Node> nodes_;
  std::map<ConnectionId, Link> links_;
  ConnectionId last_link_ = 0;
  std::uint64_t generations_ = 1;

  int vm_node_ = -1;
  bool vm_paused_ = false;
  std::map<std::uint64_t, GuestRequest> requests_;
  std::uint64_t last_request_ = 0;

  // Of this run.
  std::uint64_t steps_ = 0;
  std::uint64_t fault_every_ = 0;
  std::uint64_t requests_most_ = 0;
  std::uint64_t hot_ = 0;       // cluster that gets half of the requests; beyond all: none
  bool single_faults_ = false;  // the next fault only when both are in sync again
  bool healing_ = false;
};

}  // namespace havm::torture
