#include "tests/unit/vmrepl/session/engine_process.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

namespace havm {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr const char* vm_id = "11111111-2222-4333-8444-555555555555";

// A port that was free a moment ago on 127.0.0.1.
std::uint16_t free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  EXPECT_EQ(::bind(fd, generic, size), 0);
  EXPECT_EQ(::getsockname(fd, generic, &size), 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

}  // namespace

PairPlan make_pair_plan(std::uint64_t disk_bytes) {
  PairPlan plan;
  std::string name = testing::TempDir() + "havm-pair-XXXXXX";
  EXPECT_NE(::mkdtemp(name.data()), nullptr);
  plan.directory = name;
  plan.disk_bytes = disk_bytes;
  plan.port_a = free_port();
  plan.port_b = free_port();
  return plan;
}

EngineProcess::EngineProcess(const PairPlan& plan, const std::string& node,
                             const std::string& program)
    : directory_(plan.directory + "/" + node), program_(program) {
  EXPECT_EQ(::mkdir(directory_.c_str(), 0700), 0);
  const int fd = ::open(image().c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  EXPECT_EQ(::ftruncate(fd, static_cast<off_t>(plan.disk_bytes)), 0);
  ::close(fd);
  const bool is_a = node == "a";
  const auto endpoint = [](std::uint16_t port) {
    return Json::array({{{"address", "127.0.0.1"}, {"port", port}}});
  };
  config = {{"version", 1},
            {"vm", "web1"},
            {"vm_id", vm_id},
            {"node", node},
            {"partner", is_a ? "b" : "a"},
            {"disks", Json::array({{{"name", "vda"},
                                    {"path", image()},
                                    {"size", plan.disk_bytes},
                                    {"nbd_socket", nbd_socket()}}})},
            {"record", directory_ + "/record"},
            {"control_socket", directory_ + "/control.sock"},
            {"guard_socket", directory_ + "/guard.sock"},
            {"listen", endpoint(is_a ? plan.port_a : plan.port_b)},
            {"partner_addresses", endpoint(is_a ? plan.port_b : plan.port_a)},
            {"timing", {{"keepalive_ms", 100}, {"session_timeout_ms", 2000}, {"lease_ms", 6000}}},
            {"nbd_socket_mode", "0600"}};
}

EngineProcess::~EngineProcess() {
  kill();
  if (testing::Test::HasFailure())
    std::fprintf(stderr, "log of %s:\n%s", directory_.c_str(), log().c_str());
}

std::string EngineProcess::log() const {
  std::ifstream file(directory_ + "/log");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

pid_t EngineProcess::spawn(const std::vector<std::string>& arguments) {
  std::ofstream(directory_ + "/config.json") << config.dump(1);
  std::vector<std::string> words{program_, "--config", directory_ + "/config.json"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& w : words)
    argv.push_back(w.data());
  argv.push_back(nullptr);
  const std::string log_path = directory_ + "/log";
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  const int fd = ::open(log_path.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
  ::dup2(fd, STDERR_FILENO);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

int EngineProcess::create(const std::string& state) {
  const pid_t pid = spawn({"--create", state});
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void EngineProcess::start() {
  pid_ = spawn({});
  connect();
  if (socket_ >= 0) ok("subscribe");
}

void EngineProcess::connect() {
  const std::string path = config.at("control_socket").get<std::string>();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof address.sun_path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const auto deadline = Clock::now() + patience;
  while (Clock::now() < deadline) {
    socket_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return;
    ::close(socket_);
    socket_ = -1;
    ASSERT_EQ(::waitpid(pid_, nullptr, WNOHANG), 0) << "the engine ended:\n" << log();
    std::this_thread::sleep_for(milliseconds(10));
  }
  FAIL() << "no control socket at " << path;
}

void EngineProcess::disconnect() {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
  input_.clear();
}

void EngineProcess::kill() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  pid_ = -1;
  disconnect();
}

void EngineProcess::terminate() {
  ::kill(pid_, SIGTERM);
}
void EngineProcess::stop() {
  ::kill(pid_, SIGSTOP);
}

int EngineProcess::wait_for_exit() {
  int status = -1;
  const auto deadline = Clock::now() + patience;
  while (::waitpid(pid_, &status, WNOHANG) == 0) {
    if (Clock::now() > deadline) {
      ADD_FAILURE() << "the engine does not end";
      return -1;
    }
    std::this_thread::sleep_for(milliseconds(10));
  }
  pid_ = -1;
  disconnect();
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool EngineProcess::read_message(Json& message, milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  for (;;) {
    const auto end = input_.find('\n');
    if (end != std::string::npos) {
      message = Json::parse(input_.substr(0, end), nullptr, false);
      input_.erase(0, end + 1);
      return true;
    }
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now()).count();
    pollfd waiting{socket_, POLLIN, 0};
    if (left <= 0 || ::poll(&waiting, 1, static_cast<int>(left)) <= 0) return false;
    char bytes[65536];
    const ssize_t n = ::recv(socket_, bytes, sizeof bytes, 0);
    if (n <= 0) return false;
    input_.append(bytes, static_cast<std::size_t>(n));
  }
}

EngineProcess::Json EngineProcess::call(const std::string& cmd, Json arguments) {
  const std::uint64_t id = next_id_++;
  arguments["id"] = id;
  arguments["cmd"] = cmd;
  const std::string line = arguments.dump() + "\n";
  EXPECT_EQ(::send(socket_, line.data(), line.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(line.size()));
  Json message;
  while (read_message(message, patience)) {
    if (message.contains("event"))
      events_.push_back(message);
    else if (message.value("id", Json()) == Json(id))
      return message;
  }
  ADD_FAILURE() << "no reply to " << cmd << "\n" << log();
  return Json::object();
}

EngineProcess::Json EngineProcess::ok(const std::string& cmd, Json arguments) {
  const Json reply = call(cmd, std::move(arguments));
  EXPECT_TRUE(reply.value("ok", false)) << cmd << ": " << reply.dump();
  return reply.value("result", Json::object());
}

std::string EngineProcess::refused(const std::string& cmd, Json arguments) {
  const Json reply = call(cmd, std::move(arguments));
  EXPECT_FALSE(reply.value("ok", true)) << cmd << " was not refused: " << reply.dump();
  return reply.value("error", "");
}

EngineProcess::Json EngineProcess::wait_until(const std::string& what,
                                              const std::function<bool(const Json&)>& condition) {
  const auto deadline = Clock::now() + patience;
  Json now;
  do {
    now = status();
    if (!now.contains("role") || condition(now)) return now;
    std::this_thread::sleep_for(milliseconds(10));
  } while (Clock::now() < deadline);
  ADD_FAILURE() << directory_ << " never came to this: " << what << "; it is " << now.dump();
  return now;
}

EngineProcess::Json EngineProcess::wait_for_session(const std::string& state) {
  return wait_until("session " + state,
                    [&](const Json& s) { return s["session"]["state"] == state; });
}

EngineProcess::Json EngineProcess::wait_for_event(const std::string& name) {
  const auto deadline = Clock::now() + patience;
  for (;;) {
    for (const Json& e : events_)
      if (e["event"] == name) return e;
    Json message;
    if (Clock::now() > deadline || !read_message(message, patience)) {
      ADD_FAILURE() << "no event " << name << " came";
      return Json::object();
    }
    events_.push_back(message);
  }
}

}  // namespace havm
