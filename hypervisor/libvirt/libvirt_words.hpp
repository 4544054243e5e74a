// The job of these functions: libvirt's numbers in virsh's words. Pure; any thread.
#pragma once

#include <string>

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include "hypervisor/hypervisor.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

DomainState to_domain_state(int libvirt_state);
// As `virsh domstate --reason` prints it; "unknown" for numbers of a later libvirt.
const char* reason_in_words(int libvirt_state, int reason);

// The event of a lifecycle callback. Kinds we do not know (of a later libvirt) become
// `defined`-like harmless news: Kind::defined with the detail "unknown event".
DomainEvent lifecycle_event(const std::string& domain, int event, int detail);

// "<what>: <libvirt's message>"; code is the errno nearest to libvirt's error number, 0 when none
// is. `error` may be null.
Error to_error(const std::string& what, const virError* error);

}  // namespace havm
