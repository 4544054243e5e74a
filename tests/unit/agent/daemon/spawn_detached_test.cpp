#include "agent/daemon/spawn_detached.hpp"

#include <chrono>
#include <filesystem>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "vmrepl/base/files.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

std::string temporary(const std::string& name) {
  return (std::filesystem::temp_directory_path() /
          ("havm-spawn-" + std::to_string(::getpid()) + name))
      .string();
}

// The log once the program has written `needle`, or what there is after ten seconds.
std::string log_with(const std::string& path, const std::string& needle) {
  std::string text;
  for (int i = 0; i < 500 && text.find(needle) == std::string::npos; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (auto read = read_file(path)) text = read.value();
  }
  return text;
}

TEST(SpawnDetached, The_program_inherits_no_descriptor_of_ours) {
  const std::string secret = temporary("-secret");
  const std::string log = temporary("-fds.log");
  const UniqueFd inheritable(
      ::open(secret.c_str(), O_RDWR | O_CREAT, 0600));  // no O_CLOEXEC, as Asio's sockets
  ASSERT_TRUE(spawn_detached({"/bin/sh", "-c", "ls -l /proc/$$/fd; echo finished"}, log));
  const std::string text = log_with(log, "finished");
  EXPECT_NE(std::string::npos, text.find("finished")) << text;
  EXPECT_EQ(std::string::npos, text.find(secret)) << text;
  std::filesystem::remove(secret);
  std::filesystem::remove(log);
}

TEST(SpawnDetached, A_program_that_cannot_be_started_is_an_error_that_names_it) {
  const std::string log = temporary("-none.log");
  auto started = spawn_detached({"/nonexistent/program"}, log);
  ASSERT_FALSE(started);
  EXPECT_EQ(ENOENT, started.error().code);
  EXPECT_NE(std::string::npos, started.error().message.find("/nonexistent/program"));
  std::filesystem::remove(log);
}

}  // namespace
}  // namespace havm
