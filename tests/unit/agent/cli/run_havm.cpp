#include "tests/unit/agent/cli/run_havm.hpp"

#include <array>
#include <fstream>
#include <sstream>

#include <fcntl.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

// What execve wants; valid as long as the strings.
std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts)
    out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

std::string content(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

int exit_status_of(pid_t child) {
  int status = 0;
  HAVM_ASSERT(waitpid(child, &status, 0) == child, "the child is ours");
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

std::vector<std::string> with_program(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), HAVM_BINARY);
  return arguments;
}

std::vector<std::string> with_socket(const FakeHavmd& havmd, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"-c", havmd.socket()});
  return arguments;
}

}  // namespace

Outcome run_program(const std::vector<std::string>& arguments, const std::string& folder,
                    std::vector<std::string> environment) {
  std::vector<std::string> words = with_program(arguments);
  std::vector<char*> argv = pointers(words);
  std::vector<char*> envp = pointers(environment);
  const std::string out = folder + "/out";
  const std::string err = folder + "/err";
  const pid_t child = fork();
  if (child == 0) {
    dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    dup2(open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDOUT_FILENO);
    dup2(open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  Outcome outcome;
  outcome.exit_status = exit_status_of(child);
  outcome.out = content(out);
  outcome.err = content(err);
  return outcome;
}

Outcome run_havm(const FakeHavmd& havmd, std::vector<std::string> arguments) {
  return run_program(with_socket(havmd, std::move(arguments)), havmd.folder());
}

Outcome run_havm_on_terminal(const FakeHavmd& havmd, std::vector<std::string> arguments,
                             const std::string& typed, std::vector<std::string> environment) {
  std::vector<std::string> words = with_program(with_socket(havmd, std::move(arguments)));
  std::vector<char*> argv = pointers(words);
  std::vector<char*> envp = pointers(environment);
  int master = -1;
  const pid_t child = forkpty(&master, nullptr, nullptr, nullptr);
  if (child == 0) {
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  HAVM_ASSERT(child > 0, "the tests need a pseudo terminal");
  if (!typed.empty())
    HAVM_ASSERT(write(master, typed.data(), typed.size()) > 0, "typing on a terminal works");
  Outcome outcome;
  std::array<char, 4096> chunk{};
  ssize_t n = 0;
  while ((n = read(master, chunk.data(), chunk.size())) > 0)  // EIO at the end of the child
    outcome.out.append(chunk.data(), static_cast<std::size_t>(n));
  close(master);
  outcome.exit_status = exit_status_of(child);
  return outcome;
}

}  // namespace havm
