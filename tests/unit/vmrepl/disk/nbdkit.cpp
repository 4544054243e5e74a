#include "tests/unit/vmrepl/disk/nbdkit.hpp"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmrepl/base/unique_fd.hpp"

extern char** environ;  // NOLINT: POSIX demands this declaration

namespace havm {
namespace {

constexpr std::chrono::seconds patience{20};

bool answers(const std::string& path) {
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

std::string text_of_file(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

}  // namespace

Nbdkit::Nbdkit(std::vector<std::string> arguments) : arguments_(std::move(arguments)) {
  directory_ = testing::TempDir() + "havm-nbdkit-XXXXXX";
  EXPECT_NE(::mkdtemp(directory_.data()), nullptr);
  socket_ = directory_ + "/socket";
  log_ = directory_ + "/log";
  start();
}

Nbdkit::~Nbdkit() {
  kill();
  std::filesystem::remove_all(directory_);
}

std::string Nbdkit::uri() const {
  return "nbd+unix:///?socket=" + socket_;
}

void Nbdkit::start() {
  ASSERT_EQ(pid_, -1);
  ASSERT_LT(socket_.size(), sizeof(sockaddr_un{}.sun_path)) << socket_;
  ::unlink(socket_.c_str());
  std::vector<std::string> words{"nbdkit", "-f", "--exit-with-parent", "-U", socket_};
  words.insert(words.end(), arguments_.begin(), arguments_.end());
  std::vector<char*> argv;
  for (std::string& word : words)
    argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  for (const int fd : {1, 2})
    posix_spawn_file_actions_addopen(&actions, fd, log_.c_str(), O_CREAT | O_WRONLY | O_APPEND,
                                     0600);
  const int error = ::posix_spawnp(&pid_, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) pid_ = -1;
  ASSERT_EQ(error, 0) << "nbdkit cannot be started: " << std::strerror(error);
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!answers(socket_)) {
    if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = -1;
      FAIL() << "nbdkit ended:\n" << text_of_file(log_);
    }
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "nbdkit does not answer";
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

void Nbdkit::kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void Nbdkit::freeze() {
  ::kill(pid_, SIGSTOP);
}

void Nbdkit::thaw() {
  ::kill(pid_, SIGCONT);
}

std::vector<std::string> eval_with_flush_fault(const std::string& file, std::uint64_t size_bytes,
                                               const std::string& fault) {
  // $3 is the length, $4 the offset; write data comes on standard input.
  const std::string in_place = " conv=notrunc bs=64k iflag=count_bytes,fullblock ";
  return {"eval",
          "get_size=echo " + std::to_string(size_bytes),
          "pread=dd if=" + file + " bs=64k iflag=skip_bytes,count_bytes skip=$4 count=$3",
          "pwrite=dd of=" + file + in_place + "count=$3 oflag=seek_bytes seek=$4",
          "can_zero=exit 0",
          "zero=dd if=/dev/zero of=" + file + in_place + "count=$3 oflag=seek_bytes seek=$4",
          "can_flush=exit 0",
          "flush=if [ -e " + fault + " ]; then echo EIO the flush fails >&2; exit 1; fi"};
}

}  // namespace havm
