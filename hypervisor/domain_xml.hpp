// The job of these functions: read a libvirt domain definition and change nothing in it but the
// disk that was named. They are pure: strings in, strings out; no libvirt, no files, no clock. Any
// thread.
//
// Guarantees
//  1. Outside the rewritten <disk> element every byte of the definition stays as it was.
//  2. restore_disk(disk_to_nbd(xml, t, …), t, original element of t) == xml, byte for byte.
//  3. What the guest can see of a disk (target, bus, serial, wwn, boot order, address, alias,
//  queues)
//     is the same before and after a rewrite.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "vmrepl/base/result.hpp"

namespace havm {

using XmlAttributes = std::vector<std::pair<std::string, std::string>>;

struct DomainSummary {
  std::string name;
  std::string uuid;   // empty when the definition has none yet
  std::string title;  // empty when none
  std::string type;   // "kvm", "qemu", …
  std::uint64_t memory_kib = 0;
  unsigned vcpus = 1;
};

struct DomainDisk {
  std::string target;  // "vda"
  std::string bus;     // "virtio"; empty when not written
  std::string device;  // "disk", "cdrom", "floppy" or "lun"
  std::string type;    // "file", "block", "network", "volume", …
  std::string source;  // file path, device path, volume or export name; empty without a source
  std::string format;  // driver type: "raw", "qcow2", …; empty when not written
  std::string serial;
  std::string nbd_socket;   // of a network disk over a unix socket
  XmlAttributes driver;     // all attributes of <driver>, in their order
  bool has_source = false;  // false: an empty drive
  bool readonly = false;
  bool shareable = false;
  bool transient = false;
  bool has_backing = false;  // a backing file is written in the definition
  bool mirrored = false;     // a block job (copy, commit) is under way
  bool encrypted = false;
  std::string xml;  // the <disk> element exactly as written; what restore_disk() takes
};

struct FileSource {
  std::string path;
  std::string format;    // "raw" or "qcow2"
  XmlAttributes driver;  // the driver attributes of the original disk; name and type may be absent
};

Result<DomainSummary> summarize_domain(const std::string& xml);
Result<std::string> domain_name(const std::string& xml);

// All <disk> elements (disks, cdroms, floppies) in the order of the definition.
Result<std::vector<DomainDisk>> list_disks(const std::string& xml);
// Error.code is ENOENT when the domain has no disk with that target.
Result<DomainDisk> find_disk(const std::string& xml, const std::string& target);

// The definition with disk `target` (device='disk', any source) served by an NBD export on a unix
// socket; errors of the export stop the VM (error_policy) instead of reaching the guest. The export
// name must not be empty: libvirt (9.0) drops the I/O error events of a disk without one.
Result<std::string> disk_to_nbd(const std::string& xml, const std::string& target,
                                const std::string& socket_path, const std::string& export_name);

// The definition with disk `target` backed by an image file again.
Result<std::string> disk_to_file(const std::string& xml, const std::string& target,
                                 const FileSource& file);

// The definition with disk `target` replaced by `original_disk_xml` (a DomainDisk::xml kept
// earlier).
Result<std::string> restore_disk(const std::string& xml, const std::string& target,
                                 const std::string& original_disk_xml);

// Everything that keeps this (inactive) definition from being protected, one sentence each, with
// what to do; empty when it can be protected.
Result<std::vector<std::string>> check_protectable(const std::string& xml);

}  // namespace havm
