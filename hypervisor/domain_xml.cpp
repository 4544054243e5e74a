#include "hypervisor/domain_xml.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <sstream>
#include <string_view>

#include "hypervisor/domain_document.hpp"

namespace havm {
namespace {

// Driver attributes that describe the virtual hardware or its threads, not the host's file: they
// stay when the source changes, or the guest would see another device.
constexpr std::array<std::string_view, 10> kept_driver_attributes = {
    "iothread", "queues", "queue_size",  "ioeventfd", "event_idx",
    "packed",   "iommu",  "page_per_vq", "ats",       "detect_zeroes"};

std::string attribute(pugi::xml_node node, const char* name) {
  return node.attribute(name).as_string();
}

// libvirt's units: "KiB" when absent, "k"/"M"/"G"/"T" are powers of 1024, "KB"/"MB"/… of 1000.
std::uint64_t memory_in_kib(pugi::xml_node memory) {
  const auto value = static_cast<double>(memory.text().as_ullong());
  const std::string unit = memory.attribute("unit").as_string("KiB");
  if (unit == "b" || unit == "bytes") return static_cast<std::uint64_t>(value / 1024);
  const double base = unit.size() == 2 ? 1000 : 1024;
  const std::size_t power = std::string_view("kmgtpe").find(static_cast<char>(
      unit.empty() ? 'k' : std::tolower(static_cast<unsigned char>(unit.front()))));
  const double exponent = power == std::string_view::npos ? 1 : static_cast<double>(power) + 1;
  // Beyond any machine, and still a number that converts exactly.
  constexpr double kib_max = 1ULL << 53U;
  return static_cast<std::uint64_t>(std::min(value * std::pow(base, exponent) / 1024, kib_max));
}

std::string source_of(const std::string& type, pugi::xml_node source) {
  if (type == "block") return attribute(source, "dev");
  if (type == "dir") return attribute(source, "dir");
  if (type == "network") return attribute(source, "name");
  if (type == "volume") return attribute(source, "pool") + "/" + attribute(source, "volume");
  return attribute(source, "file");
}

DomainDisk read_disk(pugi::xml_node node) {
  DomainDisk disk;
  const pugi::xml_node source = node.child("source");
  const pugi::xml_node driver = node.child("driver");
  disk.target = attribute(node.child("target"), "dev");
  disk.bus = attribute(node.child("target"), "bus");
  disk.device = node.attribute("device").as_string("disk");
  disk.type = node.attribute("type").as_string("file");
  disk.format = attribute(driver, "type");
  disk.serial = node.child("serial").text().as_string();
  disk.has_source = source && source.first_attribute();
  if (disk.has_source) disk.source = source_of(disk.type, source);
  if (attribute(source.child("host"), "transport") == "unix")
    disk.nbd_socket = attribute(source.child("host"), "socket");
  for (const pugi::xml_attribute a : driver.attributes())
    disk.driver.emplace_back(a.name(), a.value());
  disk.readonly = !node.child("readonly").empty();
  disk.shareable = !node.child("shareable").empty();
  disk.transient = !node.child("transient").empty();
  disk.mirrored = !node.child("mirror").empty();
  // <backingStore/> without a type only ends the chain.
  disk.has_backing = !node.child("backingStore").attribute("type").empty() ||
                     !node.child("backingStore").child("source").empty();
  disk.encrypted = !node.child("encryption").empty() || !source.child("encryption").empty();
  return disk;
}

Error no_such_disk(const DomainDocument& document, const std::string& target) {
  return Error("VM '" + document.name() + "' has no disk '" + target + "'", ENOENT);
}

// A copy of one <disk> element to be edited, printed at the place of the original.
struct DiskEditor {
  pugi::xml_document copy;

  explicit DiskEditor(pugi::xml_node original) { copy.append_copy(original); }

  pugi::xml_node disk() { return copy.first_child(); }

  // Replaces everything that tells where the bytes are. Returns the new <driver>; <source> follows
  // it.
  std::pair<pugi::xml_node, pugi::xml_node> replace_source(const char* type) {
    pugi::xml_node node = disk();
    pugi::xml_document old_driver;
    if (const pugi::xml_node d = node.child("driver")) old_driver.append_copy(d);
    for (const char* name : {"driver", "source", "backingStore", "mirror", "auth", "encryption"})
      while (node.remove_child(name))
        continue;
    set(node, "type", type);
    pugi::xml_node driver = node.prepend_child("driver");
    for (const pugi::xml_node child : old_driver.child("driver").children())
      driver.append_copy(child);
    return {driver, node.insert_child_after("source", driver)};
  }

  static void set(pugi::xml_node node, const char* name, const std::string& value) {
    pugi::xml_attribute a = node.attribute(name);
    if (!a) a = node.append_attribute(name);
    a.set_value(value.c_str());
  }

  std::string print(std::size_t indentation) {
    std::ostringstream out;
    disk().print(out, "  ", pugi::format_indent | pugi::format_attribute_single_quote,
                 pugi::encoding_utf8, static_cast<unsigned>(indentation / 2));
    const std::string text = out.str();
    const std::size_t first = text.find('<');
    return text.substr(first, text.find_last_of('>') - first + 1);
  }
};

// The <disk> to rewrite; only a real disk can change its source.
Result<pugi::xml_node> rewritable_disk(const DomainDocument& document, const std::string& target) {
  const pugi::xml_node node = document.disk(target);
  if (!node) return no_such_disk(document, target);
  const DomainDisk disk = read_disk(node);
  if (disk.device != "disk")
    return Error(
        "'" + target + "' of VM '" + document.name() + "' is a " + disk.device + ", not a disk",
        EINVAL);
  return node;
}

}  // namespace

Result<DomainSummary> summarize_domain(const std::string& xml) {
  BOOST_OUTCOME_TRY(const DomainDocument document, DomainDocument::parse(xml));
  const pugi::xml_node domain = document.domain();
  DomainSummary summary;
  summary.name = document.name();
  summary.uuid = domain.child("uuid").text().as_string();
  summary.title = domain.child("title").text().as_string();
  summary.type = attribute(domain, "type");
  summary.memory_kib = memory_in_kib(domain.child("memory"));
  summary.vcpus = domain.child("vcpu").text().as_uint(1);
  return summary;
}

Result<std::string> domain_name(const std::string& xml) {
  BOOST_OUTCOME_TRY(const DomainDocument document, DomainDocument::parse(xml));
  return document.name();
}

Result<std::vector<DomainDisk>> list_disks(const std::string& xml) {
  BOOST_OUTCOME_TRY(const DomainDocument document, DomainDocument::parse(xml));
  std::vector<DomainDisk> disks;
  for (const pugi::xml_node node : document.devices().children("disk")) {
    DomainDisk disk = read_disk(node);
    BOOST_OUTCOME_TRY(const std::string_view text, document.text_of(node));
    disk.xml = std::string(text);
    disks.push_back(std::move(disk));
  }
  return disks;
}

Result<DomainDisk> find_disk(const std::string& xml, const std::string& target) {
  BOOST_OUTCOME_TRY(auto disks, list_disks(xml));
  for (DomainDisk& disk : disks)
    if (disk.target == target) return std::move(disk);
  BOOST_OUTCOME_TRY(const DomainDocument document, DomainDocument::parse(xml));
  return no_such_disk(document, target);
}

Result<std::string> disk_to_nbd(const std::string& xml, const std::string& target,
                                const std::string& socket_path, const std::string& export_name) {
  BOOST_OUTCOME_TRY(const DomainDocument document, DomainDocument::parse(xml));
  BOOST_OUTCOME_TRY(const pugi::xml_node node, rewritable_disk(document, target));
  const DomainDisk disk = read_disk(node);
  if (disk.format.empty())
    return Error("disk '" + target + "' of VM '" + document.name() +
                     "' does not say its format (<driver type=…>)",
                 EINVAL);
  if (export_name.empty() || socket_path.empty())
    return Error(
        "disk '" + target + "' of VM '" + document.name() + "' needs a socket and an export name",
        EINVAL);
  DiskEditor editor(node);
  auto [driver, source] = editor.replace_source("network");
  DiskEditor::set(driver, "name", "qemu");
  DiskEditor::set(driver, "type", disk.format);
  DiskEditor::set(driver, "cache", "none");
  DiskEditor::set(driver, "error_policy", "stop");
  DiskEditor::set(driver, "rerror_policy", "stop");
  DiskEditor::set(driver, "discard", "unmap");
  for (const auto& [name, value] : disk.driver)
    if (std::ranges::find(kept_driver_attributes, name) != kept_driver_attributes.end())
      DiskEditor::set(driver, name.c_str(), value);
  DiskEditor::set(source, "protocol", "nbd");
  DiskEditor::set(source, "name", export_name);
  const pugi::xml_node host = source.append_child("host");
  DiskEditor::set(host, "transport", "unix");
  DiskEditor::set(host, "socket", socket_path);
  return document.with_replaced(node, editor.print(document.indentation_of(node)));
}

Result<std::string> disk_to_file(const std::string& xml, const std::string& target,
                                 const FileSource& file) {
  BOOST_OUTCOME_TRY(const DomainDocument document, DomainDocument::parse(xml));
  BOOST_OUTCOME_TRY(const pugi::xml_node node, rewritable_disk(document, target));
  if (file.path.empty() || file.format.empty())
    return Error("disk '" + target + "' of VM '" + document.name() +
                     "' needs the path and the format of its image file",
                 EINVAL);
  DiskEditor editor(node);
  auto [driver, source] = editor.replace_source("file");
  DiskEditor::set(driver, "name", "qemu");
  DiskEditor::set(driver, "type", file.format);
  for (const auto& [name, value] : file.driver)
    if (name != "type") DiskEditor::set(driver, name.c_str(), value);
  DiskEditor::set(source, "file", file.path);
  return document.with_replaced(node, editor.print(document.indentation_of(node)));
}

Result<std::string> restore_disk(const std::string& xml, const std::string& target,
                                 const std::string& original_disk_xml) {
  BOOST_OUTCOME_TRY(const DomainDocument document, DomainDocument::parse(xml));
  const pugi::xml_node node = document.disk(target);
  if (!node) return no_such_disk(document, target);
  pugi::xml_document original;
  const auto parsed = original.load_buffer(original_disk_xml.data(), original_disk_xml.size(),
                                           pugi::parse_default, pugi::encoding_utf8);
  const pugi::xml_node disk = original.child("disk");
  if (!parsed || !disk || disk.next_sibling() ||
      target != disk.child("target").attribute("dev").value())
    return Error("the kept definition of disk '" + target + "' of VM '" + document.name() +
                     "' is damaged; edit the disk by hand: virsh edit " + document.name(),
                 EINVAL);
  return document.with_replaced(node, original_disk_xml);
}

}  // namespace havm
