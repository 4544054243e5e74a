// The job of EngineProcess: one real havm-repl in a directory of its own, and its control socket,
// for tests with real engines over loopback. Blocking; everything has a time limit. What it started
// ends with it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <sys/types.h>

namespace havm {

// Two directories, two ports, one VM: what both engines of a pair agree on.
struct PairPlan {
  std::string directory;
  std::uint64_t disk_bytes = 0;
  std::uint16_t port_a = 0;
  std::uint16_t port_b = 0;
};
// A fresh directory under TMPDIR and two free ports.
PairPlan make_pair_plan(std::uint64_t disk_bytes);

class EngineProcess {
 public:
  using Json = nlohmann::json;
  static constexpr std::chrono::seconds patience{30};

  // node: "a" or "b". Writes its configuration and a sparse disk; starts nothing.
  EngineProcess(const PairPlan& plan, const std::string& node,
                const std::string& program = HAVM_REPL_PROGRAM);
  ~EngineProcess();
  EngineProcess(const EngineProcess&) = delete;
  EngineProcess& operator=(const EngineProcess&) = delete;

  // Runs `--create STATE`; the exit code.
  int create(const std::string& state);
  // Starts the engine, waits for its control socket and subscribes.
  void start();
  // SIGKILL, and waits for the end.
  void kill();
  // SIGTERM or after `quit`: the exit code.
  int wait_for_exit();
  void terminate();
  // SIGSTOP: alive, and silent.
  void stop();
  [[nodiscard]] bool running() const { return pid_ > 0; }

  // The whole reply.
  Json call(const std::string& cmd, Json arguments = Json::object());
  // Its result; a refusal fails the test.
  Json ok(const std::string& cmd, Json arguments = Json::object());
  // The sentence of a refusal; success fails the test.
  std::string refused(const std::string& cmd, Json arguments = Json::object());
  Json status() { return ok("status"); }
  // Until status() fulfils it; the last status. Running out of patience fails the test.
  Json wait_until(const std::string& what, const std::function<bool(const Json&)>& condition);
  Json wait_for_session(const std::string& state);
  // Until an event of this name was received since the start or the last forget_events().
  Json wait_for_event(const std::string& name);
  void forget_events() { events_.clear(); }

  [[nodiscard]] std::string nbd_socket() const { return directory_ + "/vda.nbd"; }
  [[nodiscard]] std::string image() const { return directory_ + "/vda.raw"; }
  [[nodiscard]] const std::string& directory() const { return directory_; }
  [[nodiscard]] std::string log() const;
  Json config;  // changes count from the next start()

 private:
  pid_t spawn(const std::vector<std::string>& arguments);
  void connect();
  void disconnect();
  bool read_message(Json& message, std::chrono::milliseconds limit);

  std::string directory_;
  std::string program_;
  pid_t pid_ = -1;
  int socket_ = -1;
  std::string input_;
  std::uint64_t next_id_ = 1;
  std::vector<Json> events_;
};

}  // namespace havm
