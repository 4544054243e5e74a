// The job of connect_libvirt(): the Hypervisor of a real host, through libvirt.
//
// Guarantees
//  1. When libvirtd was restarted the next call works, and events flow again, without the caller
//  doing
//     anything. A call that was under way while the connection broke is an error (ENOTCONN) and may
//     or may not have happened; calls that only look are repeated once.
//  2. Nothing is printed: what libvirt says is in the errors, in virsh's words.
//  3. process_id() and free_memory_bytes() do not need libvirtd.
//  4. No call asks QEMU for statistics, so a stopped QEMU cannot hang list_domains() or
//  domain_info().
//     suspend() and destroy() do talk to QEMU: never call them on a VM whose disk I/O is held.
// The handler of on_event() may call back into the Hypervisor but must not destroy it. The process
// must ignore SIGPIPE: libvirt's client writes to the socket of a libvirtd that has just died.
#pragma once

#include <memory>
#include <string>

#include "hypervisor/hypervisor.hpp"

namespace havm {

// An error when libvirt cannot be reached now.
Result<std::unique_ptr<Hypervisor>> connect_libvirt(const std::string& uri = "qemu:///system");

}  // namespace havm
