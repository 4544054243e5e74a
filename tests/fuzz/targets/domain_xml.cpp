// Domain definitions: read, rewritten, restored (hypervisor/domain_xml.hpp).
//
// Input: the XML text.
#include "hypervisor/domain_xml.hpp"

#include <algorithm>

#include "tests/fuzz/support/fuzz_target.hpp"

namespace havm::fuzz {
namespace {

constexpr std::size_t disks_looked_at_max = 4;
const std::string socket_path = "/run/havm/vms/web1/vda.nbd";
const std::string export_name = "vda";

// What the guest sees of a disk, by the summary of it.
void check_same_for_the_guest(const DomainDisk& before, const DomainDisk& after) {
  FUZZ_CHECK(before.target == after.target && before.bus == after.bus &&
                 before.device == after.device && before.serial == after.serial &&
                 before.readonly == after.readonly && before.shareable == after.shareable &&
                 before.transient == after.transient,
             "the guest sees the same disk");
}

// The first disk of this target in a definition that was made by us.
DomainDisk disk_in(const std::string& xml, const std::string& target) {
  const auto disk = find_disk(xml, target);
  FUZZ_CHECK(disk.has_value(), "a rewritten definition can be read");
  return disk.value();
}

// Only the element changed: what is in front of it and behind it is as it was.
void check_rest(const std::string& before, const std::string& after, const std::string& element) {
  std::size_t same = 0;
  while (same < before.size() && same < after.size() && before[same] == after[same])
    ++same;
  const std::size_t at = before.rfind(element, same);
  FUZZ_CHECK(at != std::string::npos && at <= same, "what is in front of the disk stays");
  const std::string tail = before.substr(at + element.size());
  FUZZ_CHECK(after.size() >= at + tail.size() && after.ends_with(tail),
             "what is behind the disk stays");
}

void check_rewrite(const std::string& xml, const DomainDisk& disk) {
  const auto nbd = disk_to_nbd(xml, disk.target, socket_path, export_name);
  if (nbd) {
    const DomainDisk now = disk_in(nbd.value(), disk.target);
    check_same_for_the_guest(disk, now);
    FUZZ_CHECK(now.type == "network" && now.nbd_socket == socket_path &&
                   now.source == export_name && now.format == disk.format,
               "the disk is served by the engine");
    FUZZ_CHECK(!now.has_backing && !now.encrypted && !now.mirrored, "nothing of the file is left");
    check_rest(xml, nbd.value(), disk.xml);
    const auto back = restore_disk(nbd.value(), disk.target, disk.xml);
    FUZZ_CHECK(back.has_value() && back.value() == xml, "restore(rewrite(x)) == x");
  }
  FileSource file;
  file.path = "/images/web1.img";
  file.format = "raw";
  file.driver = disk.driver;
  const auto as_file = disk_to_file(xml, disk.target, file);
  if (!as_file) return;
  const DomainDisk now = disk_in(as_file.value(), disk.target);
  check_same_for_the_guest(disk, now);
  FUZZ_CHECK(now.type == "file" && now.source == file.path && now.format == file.format,
             "the disk is the file");
  check_rest(xml, as_file.value(), disk.xml);
}

}  // namespace

void one_input(Bytes input) {
  const std::string xml = string_of(input);
  const auto summary = summarize_domain(xml);
  const auto problems = check_protectable(xml);
  const auto disks = list_disks(xml);
  if (!summary) {
    FUZZ_CHECK(!summary.error().message.empty() && !disks && !problems,
               "what is no domain has no disks");
    return;
  }
  FUZZ_CHECK(domain_name(xml).value() == summary.value().name && !summary.value().name.empty(),
             "a domain has a name");
  if (problems)
    for (const std::string& problem : problems.value())
      FUZZ_CHECK(!problem.empty(), "an obstacle is a sentence");
  if (!disks) return;
  std::size_t count = 0;
  for (const DomainDisk& disk : disks.value()) {
    if (++count > disks_looked_at_max) return;
    FUZZ_CHECK(xml.find(disk.xml) != std::string::npos && disk.xml.starts_with("<disk"),
               "the element of a disk is a part of the text");
    // Of several disks of one target the first is meant.
    const auto first = find_disk(xml, disk.target);
    if (first && first.value().xml == disk.xml) check_rewrite(xml, disk);
  }
}

std::vector<std::string> seeds() {
  return {
      R"(<domain type='kvm'>
  <name>web1</name>
  <uuid>6f1c9c1e-4a7b-4c0e-9d5a-000000abc001</uuid>
  <title>Web &amp; shop</title>
  <memory unit='KiB'>2097152</memory>
  <vcpu placement='static'>2</vcpu>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='writeback' io='threads' queues='4' iothread='1'/>
      <source file='/images/web1.img' startupPolicy='optional'>
        <seclabel model='dac' relabel='no'/>
      </source>
      <target dev='vda' bus='virtio'/>
      <serial>WEB1-0001</serial>
      <boot order='1'/>
      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>
    </disk>
    <disk type='block' device='lun'><driver type='raw'/><source dev='/dev/x'/>
      <target dev='sda'/></disk>
    <disk type='file' device='cdrom'><target dev='hda' bus='ide'/><readonly/></disk>
  </devices>
</domain>
)",
      R"(<?xml version="1.0"?><!-- <disk> --><domain><name>x</name><devices>
<disk><driver type='qcow2'><metadata_cache/></driver><source file="a>b'&lt;"/>
<backingStore type='file'><source file='/b'/></backingStore><target dev='vda'/>
<mirror type='file'/><!-- > --><![CDATA[</disk>]]></disk>
<disk type='volume'><source pool='p' volume='v'/><target dev='vdb'/><transient/><shareable/>
<encryption format='luks'/></disk></devices></domain>)",
      R"(<domain><name>x</name><memory unit='E'>18446744073709551615</memory>
<vcpu>-1</vcpu><devices>
<disk type='network'><driver type='raw'/><source protocol='nbd' name='vda'><host transport='unix'
socket='/s'/></source><target dev='vda'/></disk>
<disk type='dir'><source dir='/d'/><target dev=''/></disk>
</devices></domain>)"};
}

}  // namespace havm::fuzz
