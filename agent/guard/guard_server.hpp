// The job of GuardServer: one loop that takes commands from the socket, looks at the clock and the
// processes, and does what guard_core decides. Never blocks on a client, a process or the log.
// One thread; run() returns after SIGTERM or SIGINT. VMs are left as they are then.
#pragma once

#include <deque>
#include <map>
#include <string>

#include "agent/guard/guard_process.hpp"
#include "agent/guard/guard_protocol.hpp"

namespace havm {

class GuardServer {
 public:
  GuardServer(UniqueFd listener, UniqueFd timer, UniqueFd signals, GuardTimes times);
  void run();

 private:
  struct Client {
    UniqueFd fd;
    std::deque<std::string> out;
    std::string waits_for;  // VM; empty: not waiting. Nothing is read from a client that waits
    GuardAnswer wait = GuardAnswer::Now;
  };
  struct Watched {
    GuardVm vm;
    GuardProcess process;
  };

  bool wait_for_events();
  void arm_timer();
  void look_at_all(bool after_gap);
  void accept_client();
  bool serve_client(Client& client);
  void execute(Client& client, const GuardCommand& command);
  bool open_process(Client& client, const GuardCommand& command);
  GuardDecision step(const std::string& name, Watched& watched, const GuardEvent& event);
  void answer_waiting();

  UniqueFd listener_, timer_, signals_;
  GuardTimes times_;
  std::map<std::string, Watched> watched_;
  std::map<int, Client> clients_;
  TimePoint loop_at_;      // start of the present turn of the loop
  TimePoint looked_at_{};  // when the processes were last looked at
  TimePoint wake_at_{};    // when they are to be looked at next
};

// On stderr, dropped when that would block: a log that nobody reads must not hold up a deadline.
void guard_log(const std::string& line);

}  // namespace havm
