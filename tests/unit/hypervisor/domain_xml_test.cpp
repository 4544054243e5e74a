#include "hypervisor/domain_xml.hpp"

#include <cerrno>
#include <set>

#include <gmock/gmock.h>

#include "hypervisor/domain_document.hpp"
#include "hypervisor/qemu_img/run_process.hpp"
#include "tests/unit/hypervisor/test_files.hpp"

namespace havm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;

const std::string socket_path = "/run/havm/vms/web1/vda.sock";

std::vector<std::string> all_examples() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(HAVM_TEST_DATA))
    if (entry.path().extension() == ".xml") names.push_back(entry.path().stem());
  return names;
}

std::vector<std::string> problems_of(const std::string& name) {
  const auto problems = check_protectable(example(name));
  EXPECT_TRUE(problems) << name;
  return problems ? problems.value() : std::vector<std::string>{};
}

std::vector<DomainDisk> disks_of(const std::string& xml) {
  return list_disks(xml).value();
}

TEST(DomainXml, summarizes) {
  const auto summary = summarize_domain(example("virtio-raw"));
  ASSERT_TRUE(summary);
  EXPECT_EQ(summary.value().name, "web1");
  EXPECT_EQ(summary.value().title, "Web & shop");
  EXPECT_EQ(summary.value().type, "kvm");
  EXPECT_EQ(summary.value().memory_kib, 2097152U);
  EXPECT_EQ(summary.value().vcpus, 2U);
  EXPECT_EQ(summary.value().uuid.size(), 36U);
}

TEST(DomainXml, knows_units_of_memory) {
  const auto kib = [](const std::string& memory) {
    return summarize_domain("<domain type='kvm'><name>x</name>" + memory + "</domain>")
        .value()
        .memory_kib;
  };
  EXPECT_EQ(kib("<memory>1024</memory>"), 1024U);
  EXPECT_EQ(kib("<memory unit='GiB'>2</memory>"), 2097152U);
  EXPECT_EQ(kib("<memory unit='M'>3</memory>"), 3072U);
  EXPECT_EQ(kib("<memory unit='MB'>1024</memory>"), 1000000U);
  EXPECT_EQ(kib("<memory unit='bytes'>1048576</memory>"), 1024U);
  EXPECT_EQ(kib("<memory unit='E'>18446744073709551615</memory>"), 1ULL << 53U);
}

TEST(DomainXml, lists_disks_with_their_text) {
  const std::string xml = example("several-disks");
  const auto disks = list_disks(xml);
  ASSERT_TRUE(disks);
  ASSERT_EQ(disks.value().size(), 3U);
  const DomainDisk& second = disks.value()[1];
  EXPECT_EQ(second.target, "sda");
  EXPECT_EQ(second.bus, "scsi");
  EXPECT_EQ(second.device, "disk");
  EXPECT_EQ(second.type, "file");
  EXPECT_EQ(second.source, "/var/lib/libvirt/images/files1-data.img");
  EXPECT_EQ(second.format, "raw");
  EXPECT_THAT(second.driver, ElementsAre(Pair("name", "qemu"), Pair("type", "raw"),
                                         Pair("cache", "none"), Pair("io", "native")));
  EXPECT_TRUE(second.xml.starts_with("<disk type='file' device='disk'>"));
  EXPECT_TRUE(second.xml.ends_with("</disk>"));
  EXPECT_THAT(xml, HasSubstr(second.xml));
  const DomainDisk& cdrom = disks.value()[2];
  EXPECT_EQ(cdrom.device, "cdrom");
  EXPECT_FALSE(cdrom.has_source);
  EXPECT_TRUE(cdrom.readonly);
}

TEST(DomainXml, reads_escaped_paths) {
  const auto disk = find_disk(example("virtio-qcow2"), "vda");
  ASSERT_TRUE(disk);
  EXPECT_EQ(disk.value().source, "/srv/vm images/db1's \"disk\".qcow2");
  EXPECT_FALSE(disk.value().has_backing) << "<backingStore/> only ends the chain";
}

TEST(DomainXml, tells_which_disk_is_missing) {
  const auto disk = find_disk(example("virtio-raw"), "vdz");
  ASSERT_FALSE(disk);
  EXPECT_EQ(disk.error().message, "VM 'web1' has no disk 'vdz'");
  EXPECT_EQ(disk.error().code, ENOENT);
}

TEST(DomainXml, refuses_what_is_no_domain) {
  EXPECT_THAT(list_disks("<domain><name>x</name>").error().message, HasSubstr("not well-formed"));
  EXPECT_THAT(list_disks("").error().message, HasSubstr("not well-formed"));
  EXPECT_THAT(list_disks("<network/>").error().message, HasSubstr("no <domain>"));
  EXPECT_THAT(list_disks("<domain/>").error().message, HasSubstr("no <name>"));
}

TEST(DomainXml, nbd_disk_has_the_source_and_policies_we_need) {
  const auto xml = disk_to_nbd(example("virtio-raw"), "vda", socket_path, "vda");
  ASSERT_TRUE(xml);
  const DomainDisk disk = find_disk(xml.value(), "vda").value();
  EXPECT_EQ(disk.type, "network");
  EXPECT_EQ(disk.nbd_socket, socket_path);
  EXPECT_EQ(disk.source, "vda");
  EXPECT_EQ(disk.format, "raw");
  const std::set<std::pair<std::string, std::string>> driver(disk.driver.begin(),
                                                             disk.driver.end());
  const std::set<std::pair<std::string, std::string>> wanted = {
      {"name", "qemu"},         {"type", "raw"},           {"cache", "none"}, {"discard", "unmap"},
      {"error_policy", "stop"}, {"rerror_policy", "stop"}, {"queues", "4"},   {"iothread", "1"}};
  EXPECT_EQ(driver, wanted) << "io='threads' belongs to the file, the queues to the guest's device";
}

TEST(DomainXml, nbd_disk_keeps_what_the_guest_sees) {
  const auto xml = disk_to_nbd(example("virtio-raw"), "vda", socket_path, "vda");
  const std::string disk = find_disk(xml.value(), "vda").value().xml;
  for (const char* kept :
       {"<target dev='vda' bus='virtio'", "<total_iops_sec>5000</total_iops_sec>",
        "<serial>WEB1-0001</serial>", "<boot order='1'", "<alias name='ua-system'",
        "<address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'"})
    EXPECT_THAT(disk, HasSubstr(kept));
  for (const char* gone : {"startupPolicy", "seclabel", "web1.img"})
    EXPECT_THAT(disk, Not(HasSubstr(gone)));
  const auto qcow2 = disk_to_nbd(example("virtio-qcow2"), "vda", socket_path, "vda");
  EXPECT_THAT(qcow2.value(), HasSubstr("<max_size unit='bytes'>4194304</max_size>"));
}

TEST(DomainXml, changes_no_byte_outside_the_disk) {
  for (const std::string& name : all_examples()) {
    const std::string xml = example(name);
    for (const DomainDisk& disk : disks_of(xml)) {
      if (disk.device != "disk" || disk.format.empty()) continue;
      const auto changed = disk_to_nbd(xml, disk.target, socket_path, "x");
      ASSERT_TRUE(changed) << name;
      const std::string new_disk = find_disk(changed.value(), disk.target).value().xml;
      std::string expected = xml;
      expected.replace(expected.find(disk.xml), disk.xml.size(), new_disk);
      EXPECT_EQ(changed.value(), expected) << name;
      EXPECT_NE(changed.value(), xml) << name;
    }
  }
}

TEST(DomainXml, to_nbd_and_back_is_the_same_text) {
  int rewritten = 0;
  for (const std::string& name : all_examples()) {
    const std::string xml = example(name);
    std::string changed = xml;
    const auto disks = list_disks(xml).value();
    for (const DomainDisk& disk : disks) {
      if (disk.device != "disk" || disk.format.empty()) continue;
      changed = disk_to_nbd(changed, disk.target, socket_path, disk.target).value();
      ++rewritten;
    }
    for (const DomainDisk& disk : disks)
      changed = restore_disk(changed, disk.target, disk.xml).value();
    EXPECT_EQ(changed, xml) << name;
  }
  EXPECT_GE(rewritten, 15);
}

TEST(DomainXml, rewriting_an_nbd_disk_again_changes_only_the_socket) {
  const std::string once = disk_to_nbd(example("virtio-raw"), "vda", "/a", "x").value();
  const std::string again = disk_to_nbd(once, "vda", "/b", "x").value();
  EXPECT_EQ(again, disk_to_nbd(example("virtio-raw"), "vda", "/b", "x").value());
}

TEST(DomainXml, back_to_a_file_with_the_driver_of_the_original) {
  const std::string original = example("virtio-raw");
  const DomainDisk disk = find_disk(original, "vda").value();
  const std::string nbd = disk_to_nbd(original, "vda", socket_path, "vda").value();
  const auto file =
      disk_to_file(nbd, "vda", FileSource{"/srv/it's <here>.img", "raw", disk.driver});
  ASSERT_TRUE(file);
  const DomainDisk back = find_disk(file.value(), "vda").value();
  EXPECT_EQ(back.type, "file");
  EXPECT_EQ(back.source, "/srv/it's <here>.img");
  EXPECT_EQ(back.driver, disk.driver);
  EXPECT_EQ(back.serial, "WEB1-0001");
  EXPECT_THAT(back.xml, Not(HasSubstr("nbd")));
}

TEST(DomainXml, names_with_special_characters_are_escaped) {
  const auto xml = disk_to_nbd(example("virtio-raw"), "vda", "/run/a&b's \"c\" <d>.sock", "e&x'p");
  ASSERT_TRUE(xml);
  const DomainDisk disk = find_disk(xml.value(), "vda").value();
  EXPECT_EQ(disk.nbd_socket, "/run/a&b's \"c\" <d>.sock");
  EXPECT_EQ(disk.source, "e&x'p");
}

TEST(DomainXml, only_a_disk_with_a_format_is_rewritten) {
  EXPECT_EQ(disk_to_nbd(example("cdrom-media"), "sda", "/s", "x").error().message,
            "'sda' of VM 'inst1' is a cdrom, not a disk");
  EXPECT_THAT(disk_to_nbd(example("no-format"), "vda", "/s", "x").error().message,
              HasSubstr("does not say its format"));
  EXPECT_EQ(disk_to_nbd(example("virtio-raw"), "vdb", "/s", "x").error().code, ENOENT);
  EXPECT_EQ(disk_to_nbd(example("virtio-raw"), "vda", "/s", "").error().code, EINVAL);
  EXPECT_EQ(disk_to_nbd(example("virtio-raw"), "vda", "", "x").error().code, EINVAL);
}

TEST(DomainXml, a_damaged_original_is_not_restored) {
  const std::string xml = example("virtio-raw");
  for (const char* original : {"", "<disk", "<disk/>", "<disk><target dev='vdb'/></disk>", "<x/>",
                               "<disk><target dev='vda'/></disk><disk/>"})
    EXPECT_THAT(restore_disk(xml, "vda", original).error().message, HasSubstr("damaged"))
        << original;
  EXPECT_EQ(restore_disk(xml, "vdb", "<disk/>").error().code, ENOENT);
}

TEST(DomainXml, elements_are_measured_with_comments_and_quotes) {
  for (const char* element :
       {"<disk/>", "<disk a='>' />", "<d><d></d><d/></d>", "<d><!-- </d> --></d>",
        "<d a=\"'>\"></d>", "<d><![CDATA[</d>]]></d>", "<d><?pi </d> ?></d>"})
    EXPECT_EQ(element_length(std::string(element) + "<next></next>"), std::string(element).size())
        << element;
  for (const char* broken : {"<d>", "<d", "<d a='>", "</d>", "<d><!-- </d>", "text"})
    EXPECT_EQ(element_length(broken), 0U) << broken;
}

TEST(DomainXml, a_comment_that_looks_like_a_disk_is_left_alone) {
  const std::string xml =
      "<domain type='kvm'><name>c</name><devices><!-- <disk><target dev='vda'/></disk> -->\n"
      "<disk type='file' device='disk'><!-- </disk> --><driver name='qemu' type='raw'/>"
      "<source file='/a>b'/><target dev='vda'/></disk></devices></domain>";
  const auto changed = disk_to_nbd(xml, "vda", "/s", "x");
  ASSERT_TRUE(changed);
  EXPECT_THAT(changed.value(), HasSubstr("<!-- <disk><target dev='vda'/></disk> -->\n"));
  EXPECT_EQ(restore_disk(changed.value(), "vda", find_disk(xml, "vda").value().xml).value(), xml);
}

TEST(DomainXml, rewritten_definitions_satisfy_libvirts_schema) {
  const TemporaryDirectory directory;
  int validated = 0;
  for (const std::string& name : all_examples()) {
    const std::string xml = example(name);
    for (const DomainDisk& disk : disks_of(xml)) {
      if (disk.device != "disk" || disk.format.empty()) continue;
      const std::string file = directory / (name + ".xml");
      write_text(file, disk_to_nbd(xml, disk.target, socket_path, disk.target).value());
      const auto outcome = run_process({"virt-xml-validate", file, "domain"});
      if (!outcome) GTEST_SKIP() << outcome.error().message;
      EXPECT_EQ(outcome.value().exit_status, 0) << name << ": " << outcome.value().err;
      ++validated;
    }
  }
  EXPECT_GE(validated, 15);
}

// --- check_protectable ---

TEST(Protectable, plain_vms_are) {
  EXPECT_THAT(problems_of("virtio-raw"), IsEmpty());
  EXPECT_THAT(problems_of("virtio-qcow2"), IsEmpty());
  EXPECT_THAT(problems_of("several-disks"), IsEmpty()) << "an empty cdrom is fine";
}

TEST(Protectable, others_are_refused_with_one_sentence_each) {
  const std::pair<const char*, const char*> expected[] = {
      {"cdrom-media",
       "cdrom 'sda' has media in it, which is not replicated; eject it first: virsh "
       "change-media inst1 sda --eject --config"},
      {"floppy-media", "floppy 'fda' has media in it"},
      {"shareable", "disk 'vda' is shareable"},
      {"readonly", "disk 'vda' is read-only"},
      {"transient", "disk 'vda' is transient"},
      {"hostdev", "it uses a device of the host (hostdev)"},
      {"lun", "disk 'sda' is a lun (SCSI passthrough)"},
      {"block", "disk 'vda' is on the block device /dev/vg0/lvm1; only image files"},
      {"network", "disk 'vda' is on a network disk; only image files"},
      {"volume", "disk 'vda' is on the pool volume default/pool1.qcow2; only image files"},
      {"encrypted", "disk 'vda' is encrypted"},
      {"no-format", "disk 'vda' does not say its image format"},
      {"vmdk", "disk 'sda' has the format 'vmdk'; only raw and qcow2"},
      {"nvram", "its UEFI variables (NVRAM file) are not replicated yet"},
      {"tpm", "the state of its emulated TPM is not replicated yet"},
      {"virtiofs", "it mounts a directory of the host"},
      {"diskless", "it has no disk"}};
  for (const auto& [name, sentence] : expected)
    EXPECT_THAT(problems_of(name), ElementsAre(HasSubstr(sentence))) << name;
  EXPECT_THAT(problems_of("backing-and-mirror"),
              ElementsAre(HasSubstr("disk 'vda' has a backing file"),
                          HasSubstr("disk 'vda' has a block job under way")));
}

TEST(Protectable, every_example_is_judged_here) {
  for (const std::string& name : all_examples()) {
    const bool plain = name == "virtio-raw" || name == "virtio-qcow2" || name == "several-disks";
    EXPECT_EQ(problems_of(name).empty(), plain) << name;
  }
}

TEST(Protectable, a_protected_vm_is_not_protected_twice) {
  const std::string xml = disk_to_nbd(example("virtio-raw"), "vda", socket_path, "vda").value();
  EXPECT_THAT(
      check_protectable(xml).value(),
      ElementsAre(HasSubstr("disk 'vda' is served by an NBD socket (" + socket_path + ")")));
}

std::string vm_with(const std::string& os, const std::string& devices,
                    const std::string& type = "kvm") {
  return "<domain type='" + type + "'><name>x</name>" + os +
         "<devices><disk type='file' device='disk'><driver name='qemu' type='raw'/>"
         "<source file='/x.img'/><target dev='vda' bus='virtio'/></disk>" +
         devices + "</devices></domain>";
}

TEST(Protectable, firmware) {
  const auto problems = [](const std::string& os) {
    return check_protectable(vm_with(os, "")).value();
  };
  EXPECT_THAT(problems(""), IsEmpty());
  EXPECT_THAT(problems("<os firmware='bios'/>"), IsEmpty());
  EXPECT_THAT(problems("<os firmware='efi'/>"), ElementsAre(HasSubstr("NVRAM")))
      << "libvirt makes the NVRAM file at the first start";
  EXPECT_THAT(problems("<os><loader type='pflash' stateless='yes'>/x.fd</loader></os>"), IsEmpty());
  EXPECT_THAT(problems("<os><kernel>/boot/vmlinuz</kernel></os>"), IsEmpty());
}

TEST(Protectable, devices) {
  const auto problems = [](const std::string& devices) {
    return check_protectable(vm_with("", devices)).value();
  };
  EXPECT_THAT(problems("<interface type='bridge'/>"), IsEmpty());
  EXPECT_THAT(problems("<interface type='hostdev'/>"), ElementsAre(HasSubstr("network interface")));
  EXPECT_THAT(problems("<memory model='dimm'/>"), IsEmpty());
  EXPECT_THAT(problems("<memory model='nvdimm'/>"), ElementsAre(HasSubstr("NVDIMM")));
  EXPECT_THAT(problems("<shmem name='a'/>"), ElementsAre(HasSubstr("shares memory")));
  EXPECT_THAT(problems("<tpm><backend type='passthrough'/></tpm>"),
              ElementsAre(HasSubstr("TPM of the host")));
}

TEST(Protectable, disks_that_make_no_sense) {
  const auto problems = [](const std::string& devices) {
    return check_protectable(vm_with("", devices)).value();
  };
  EXPECT_THAT(problems("<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
                       "<source file='/x.img'/><target dev='vdb'/></disk>"),
              ElementsAre("disks 'vda' and 'vdb' are the same file /x.img"));
  EXPECT_THAT(problems("<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
                       "<target dev='vdb'/></disk>"),
              ElementsAre(HasSubstr("disk 'vdb' has no source")));
  EXPECT_THAT(problems("<disk type='nvme' device='disk'><driver name='qemu' type='raw'/>"
                       "<source type='pci' namespace='1'/><target dev='vdb'/></disk>"),
              ElementsAre(HasSubstr("disk 'vdb' is on a source of type 'nvme'")));
  EXPECT_THAT(problems("<disk type='file' device='disk'><driver name='phy' type='raw'/>"
                       "<source file='/y.img'/><target dev='vdb'/></disk>"),
              ElementsAre(HasSubstr("disk 'vdb' uses the driver 'phy'")));
  EXPECT_THAT(check_protectable(vm_with("", "", "xen")).value(),
              ElementsAre(HasSubstr("domain of type 'xen'")));
}

}  // namespace
}  // namespace havm
