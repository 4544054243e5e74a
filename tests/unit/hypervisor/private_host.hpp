// The job of PrivateHost: a libvirtd of our own with QEMU, unseen by the rest of the machine. The
// whole test program runs in mount, network and pid namespaces of its own (enter_private_host()),
// so nothing of it is left when it ends, however it ends. Needs root.
#pragma once

#include <string>

#include <sys/types.h>

namespace havm {

// To be called first in main(). Returns true inside the namespaces; false when they cannot be made
// (not root), the tests then skip. Does not return in the outer process: it waits for the inner one
// and exits with its status.
bool enter_private_host(int argc, char** argv);

class PrivateHost {
 public:
  // Empty directories over /run, /var/lib, /etc/libvirt, …; installs the hook; starts libvirtd.
  PrivateHost();
  ~PrivateHost();
  PrivateHost(const PrivateHost&) = delete;
  PrivateHost& operator=(const PrivateHost&) = delete;

  void start_libvirtd();
  void kill_libvirtd();  // SIGKILL

 private:
  pid_t libvirtd_ = -1;
};

}  // namespace havm
