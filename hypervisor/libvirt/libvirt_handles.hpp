// The job of these types: own libvirt objects and free them once (libvirt counts references itself;
// one handle is one reference). Internal to hypervisor/libvirt/.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

namespace havm {

struct DomainFree {
  void operator()(virDomainPtr domain) const { virDomainFree(domain); }
};
using DomainHandle = std::unique_ptr<virDomain, DomainFree>;

struct ConnectClose {
  void operator()(virConnectPtr connection) const { virConnectClose(connection); }
};
using ConnectHandle = std::unique_ptr<virConnect, ConnectClose>;

// A string that libvirt allocated with malloc().
struct LibvirtStringFree {
  void operator()(char* text) const { std::free(text); }
};
using LibvirtString = std::unique_ptr<char, LibvirtStringFree>;

}  // namespace havm
