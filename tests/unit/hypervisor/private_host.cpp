#include "tests/unit/hypervisor/private_host.hpp"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/hypervisor/test_files.hpp"

namespace havm {
namespace {

using namespace std::chrono_literals;

constexpr const char* stage_variable = "HAVM_PRIVATE_HOST_STAGE";
constexpr const char* socket_path = "/run/libvirt/libvirt-sock";

// Process 1 of the pid namespace: runs the tests in a child and buries everybody else's orphans,
// for libvirt takes a zombie QEMU for a running one.
[[noreturn]] void be_init(char** argv) {
  ::setenv(stage_variable, "test", 1);
  const pid_t child = ::fork();
  if (child == 0) {
    ::execv("/proc/self/exe", argv);
    ::_exit(127);
  }
  while (true) {
    int status = 0;
    const pid_t ended = ::waitpid(-1, &status, 0);
    if (ended == child) ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
}

bool answers() {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket_path, sizeof address.sun_path - 1);
  const int connected = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
  ::close(fd);
  return connected == 0;
}

}  // namespace

bool enter_private_host(int argc, char** argv) {
  for (int i = 1; i < argc; ++i)
    if (std::string(argv[i]) == "--gtest_list_tests") return false;
  if (::geteuid() != 0) return false;
  const char* stage = std::getenv(stage_variable);
  if (stage != nullptr && std::string(stage) == "test") return true;
  if (stage != nullptr) be_init(argv);
  const int possible =
      std::system("unshare --mount --net --pid --fork --kill-child --mount-proc true 2>/dev/null");
  if (possible != 0) return false;
  ::setenv(stage_variable, "init", 1);
  std::vector<char*> command;
  std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  std::string words[] = {"unshare", "--mount",      "--net",       "--pid",
                         "--fork",  "--kill-child", "--mount-proc"};
  for (std::string& word : words)
    command.push_back(word.data());
  command.push_back(self.data());
  for (int i = 1; i < argc; ++i)
    command.push_back(argv[i]);
  command.push_back(nullptr);
  ::execvp("unshare", command.data());
  return false;
}

PrivateHost::PrivateHost() {
  for (const char* directory : {"/run", "/var/lib", "/var/log", "/var/cache", "/etc/libvirt"})
    if (::mount("tmpfs", directory, "tmpfs", 0, "mode=0755") != 0)
      throw std::runtime_error(std::string("cannot mount over ") + directory);
  for (const char* directory :
       {"/run/lock", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"})
    std::filesystem::create_directories(directory);
  write_text(
      "/etc/libvirt/qemu.conf",
      "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\ncgroup_controllers = []\n"
      "namespaces = []\nremember_owner = 0\nstdio_handler = \"file\"\n");
  write_text("/etc/libvirt/libvirtd.conf", "auth_unix_rw = \"none\"\n");
  std::filesystem::create_directories("/etc/libvirt/hooks/qemu.d");
  std::filesystem::copy_file(HAVM_HOOK, "/etc/libvirt/hooks/qemu.d/50-havm");
  start_libvirtd();
}

PrivateHost::~PrivateHost() {
  if (libvirtd_ > 0) kill_libvirtd();
}

void PrivateHost::start_libvirtd() {
  libvirtd_ = ::fork();
  if (libvirtd_ == 0) {
    const int log = ::open("/var/log/libvirtd.log", O_WRONLY | O_CREAT | O_APPEND, 0644);
    ::dup2(log, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    ::execlp("libvirtd", "libvirtd", nullptr);
    ::_exit(127);
  }
  for (int i = 0; i < 300 && !answers(); ++i)
    std::this_thread::sleep_for(100ms);
  if (!answers())
    throw std::runtime_error("libvirtd does not answer: " + read_text("/var/log/libvirtd.log"));
}

void PrivateHost::kill_libvirtd() {
  ::kill(libvirtd_, SIGKILL);
  ::waitpid(libvirtd_, nullptr, 0);
  libvirtd_ = -1;
}

}  // namespace havm
