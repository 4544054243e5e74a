// A "core" that does everything it must not. Only compiled by the self-test, never linked.
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <random>
#include <thread>

namespace havm {
inline int broken_rule = 0;
}

long impure(int fd) {
  std::random_device chance;
  std::this_thread::yield();
  std::thread task([] { std::printf("a log line %d\n", 1); });
  task.join();
  char byte = 0;
  if (::read(fd, &byte, 1) != 1) throw 1;
  return ::socket(AF_INET, SOCK_STREAM, 0) +
         std::chrono::steady_clock::now().time_since_epoch().count() + static_cast<long>(chance()) +
         havm::broken_rule;
}
