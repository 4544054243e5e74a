// A process with the looks of a QEMU for the tests of havm-guard: several threads that work without
// end and count in a shared file, so that a test can see whether any of them still runs.
//   fake-qemu FILE              four threads
//   fake-qemu FILE unstoppable  one thread that SIGSTOP does not stop: it waits in vfork, as
//   uninterruptible
//                               as a thread in a hung device, but SIGKILL ends it
#include <atomic>
#include <cstdint>
#include <thread>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

namespace {

void work(std::atomic<std::uint64_t>& counter) {
  const timespec pause{0, 200'000};
  while (true) {
    ++counter;
    ::nanosleep(&pause, nullptr);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const int fd = ::open(argv[1], O_RDWR | O_CLOEXEC);
  void* memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd < 0 || memory == MAP_FAILED) return 2;
  auto* counters = static_cast<std::atomic<std::uint64_t>*>(memory);
  if (argc > 2) {
    counters[0] = 1;
    if (::vfork() == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      while (true)
        ::pause();
    }
    return 0;
  }
  std::thread threads[3];
  for (int i = 0; i < 3; ++i)
    threads[i] = std::thread(work, std::ref(counters[i]));
  work(counters[3]);
}
