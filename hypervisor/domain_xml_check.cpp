// check_protectable(): which parts of a VM would not be on the other host after a failover.
#include <map>
#include <string>
#include <vector>

#include "hypervisor/domain_document.hpp"
#include "hypervisor/domain_xml.hpp"

namespace havm {
namespace {

using Problems = std::vector<std::string>;

std::string edit_advice(const std::string& name) {
  return "(virsh edit " + name + ")";
}

void check_drive(const DomainDisk& disk, const std::string& name, Problems& problems) {
  if (!disk.has_source) return;
  problems.push_back(disk.device + " '" + disk.target +
                     "' has media in it, which is not replicated; eject it " +
                     "first: virsh change-media " + name + " " + disk.target +
                     " --eject --config (add --live when the VM is running)");
}

void check_source(const DomainDisk& disk, const std::string& name, Problems& problems) {
  const std::string which = "disk '" + disk.target + "'";
  if (!disk.has_source) {
    problems.push_back(which + " has no source; remove it: virsh detach-disk " + name + " " +
                       disk.target + " --config");
    return;
  }
  if (disk.type == "file") return;
  if (!disk.nbd_socket.empty()) {
    problems.push_back(which + " is served by an NBD socket (" + disk.nbd_socket +
                       "); if the VM is protected already see: havm list");
    return;
  }
  const std::map<std::string, std::string> kinds = {{"block", "the block device " + disk.source},
                                                    {"network", "a network disk"},
                                                    {"volume", "the pool volume " + disk.source}};
  const auto kind = kinds.find(disk.type);
  problems.push_back(which + " is on " +
                     (kind == kinds.end() ? "a source of type '" + disk.type + "'" : kind->second) +
                     "; only image files (type='file') can be replicated so far");
}

void check_format(const DomainDisk& disk, const std::string& name, Problems& problems) {
  const std::string which = "disk '" + disk.target + "'";
  if (disk.format.empty()) {
    problems.push_back(
        which + " does not say its image format; write <driver name='qemu' type='raw'/> or " +
        "type='qcow2', as `qemu-img info` on a trusted image tells, " + edit_advice(name));
  } else if (disk.format != "raw" && disk.format != "qcow2") {
    problems.push_back(which + " has the format '" + disk.format +
                       "'; only raw and qcow2 can be replicated: convert it with qemu-img convert");
  }
  for (const auto& [attribute, value] : disk.driver)
    if (attribute == "name" && value != "qemu")
      problems.push_back(which + " uses the driver '" + value + "'; only 'qemu' is supported");
}

void check_disk(const DomainDisk& disk, const std::string& name, Problems& problems) {
  const std::string which = "disk '" + disk.target + "'";
  if (disk.device == "cdrom" || disk.device == "floppy") return check_drive(disk, name, problems);
  if (disk.device != "disk") {
    problems.push_back(which + " is a " + disk.device +
                       " (SCSI passthrough), which cannot be replicated; make it a plain disk " +
                       edit_advice(name));
    return;
  }
  check_source(disk, name, problems);
  if (disk.type == "file") check_format(disk, name, problems);
  const std::pair<bool, const char*> refused[] = {
      {disk.readonly, " is read-only; remove <readonly/> or detach the disk "},
      {disk.shareable, " is shareable, so another VM may write to it; remove <shareable/> "},
      {disk.transient, " is transient: its writes are thrown away; remove <transient/> "},
      {disk.encrypted, " is encrypted by QEMU, which is not supported yet; remove <encryption> "},
      {disk.has_backing,
       " has a backing file; flatten it with virsh blockpull or qemu-img convert "},
  };
  for (const auto& [found, sentence] : refused)
    if (found) problems.push_back(which + sentence + edit_advice(name));
  if (disk.mirrored)
    problems.push_back(which +
                       " has a block job under way; wait for it or end it: virsh blockjob " + name +
                       " " + disk.target + " --abort");
}

void check_disks(const std::vector<DomainDisk>& disks, const std::string& name,
                 Problems& problems) {
  std::map<std::string, std::string> target_of_file;
  bool has_disk = false;
  for (const DomainDisk& disk : disks) {
    check_disk(disk, name, problems);
    has_disk = has_disk || disk.device == "disk" || disk.device == "lun";
    if (disk.type != "file" || disk.source.empty()) continue;
    const auto [other, is_new] = target_of_file.emplace(disk.source, disk.target);
    if (!is_new)
      problems.push_back("disks '" + other->second + "' and '" + disk.target +
                         "' are the same file " + disk.source);
  }
  if (!has_disk) problems.emplace_back("it has no disk, so there is nothing to replicate");
}

void check_firmware(pugi::xml_node domain, const std::string& name, Problems& problems) {
  const pugi::xml_node os = domain.child("os");
  const pugi::xml_node loader = os.child("loader");
  const bool stateless = loader.attribute("stateless").as_bool();
  const bool has_variables = os.child("nvram") ||
                             std::string(os.attribute("firmware").value()) == "efi" ||
                             std::string(loader.attribute("type").value()) == "pflash";
  if (has_variables && !stateless)
    problems.push_back(
        "its UEFI variables (NVRAM file) are not replicated yet; use BIOS, or a firmware with "
        "<loader stateless='yes'> " +
        edit_advice(name));
}

void check_host_devices(pugi::xml_node devices, const std::string& name, Problems& problems) {
  struct Refusal {
    const char* element;
    const char* attribute;  // nullptr: any element of this name is refused
    const char* value;
    const char* sentence;
  };
  constexpr Refusal refusals[] = {
      {"hostdev", nullptr, nullptr,
       "it uses a device of the host (hostdev), which is not on the other host; detach it "},
      {"interface", "type", "hostdev",
       "a network interface is a device of the host (hostdev); use a bridge or network "},
      {"filesystem", nullptr, nullptr,
       "it mounts a directory of the host (filesystem), which is not replicated; remove it "},
      {"shmem", nullptr, nullptr,
       "it shares memory with the host (shmem), which is not replicated; remove it "},
      {"memory", "model", "nvdimm",
       "it has an NVDIMM, whose contents are not replicated; remove it "},
      {"memory", "model", "virtio-pmem",
       "it has persistent memory, whose contents are not replicated; remove it "},
  };
  for (const Refusal& refusal : refusals)
    for (const pugi::xml_node device : devices.children(refusal.element)) {
      const bool matches =
          refusal.attribute == nullptr ||
          std::string(device.attribute(refusal.attribute).value()) == refusal.value;
      if (matches) problems.push_back(refusal.sentence + edit_advice(name));
    }
  for (const pugi::xml_node tpm : devices.children("tpm")) {
    const std::string backend = tpm.child("backend").attribute("type").value();
    problems.push_back(
        (backend == "emulator"
             ? "the state of its emulated TPM is not replicated yet; remove the TPM "
             : "it uses a TPM of the host, which is not on the other host; remove it ") +
        edit_advice(name));
  }
}

}  // namespace

Result<std::vector<std::string>> check_protectable(const std::string& xml) {
  BOOST_OUTCOME_TRY(const DomainDocument document, DomainDocument::parse(xml));
  BOOST_OUTCOME_TRY(const auto disks, list_disks(xml));
  const std::string name = document.name();
  Problems problems;
  const std::string type = document.domain().attribute("type").value();
  if (type != "kvm" && type != "qemu")
    problems.push_back("it is a domain of type '" + type + "'; only kvm and qemu are supported");
  check_disks(disks, name, problems);
  check_firmware(document.domain(), name, problems);
  check_host_devices(document.devices(), name, problems);
  return problems;
}

}  // namespace havm
