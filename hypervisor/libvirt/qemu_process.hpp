// The job of qemu_process_id(): find the QEMU of a running domain without asking libvirtd, which
// may be away or waiting just when a VM must be stopped. Reads the pid file libvirt keeps and makes
// sure that the process is that QEMU (a pid file can outlive its process, and ids are used again).
// Any thread.
#pragma once

#include <string>
#include <vector>

#include "vmrepl/base/result.hpp"

namespace havm {

// Where libvirt's system driver keeps NAME.pid.
inline const std::vector<std::string> qemu_run_directories{"/run/libvirt/qemu",
                                                           "/var/run/libvirt/qemu"};

// ENOENT: the domain has no running QEMU here.
Result<int> qemu_process_id(const std::string& domain, const std::vector<std::string>& directories);

// True when a command line as in /proc/PID/cmdline (arguments ended by NUL) is the QEMU of this
// domain.
bool is_qemu_of(const std::string& command_line, const std::string& domain);

}  // namespace havm
