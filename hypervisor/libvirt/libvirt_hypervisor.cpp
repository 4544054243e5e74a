#include "hypervisor/libvirt/libvirt_hypervisor.hpp"

#include <cerrno>
#include <sstream>
#include <utility>

#include "hypervisor/domain_xml.hpp"
#include "hypervisor/libvirt/libvirt_connection.hpp"
#include "hypervisor/libvirt/libvirt_event_loop.hpp"
#include "hypervisor/libvirt/libvirt_words.hpp"
#include "hypervisor/libvirt/qemu_process.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

std::string version_text(unsigned long number) {
  return std::to_string(number / 1'000'000) + "." + std::to_string(number / 1'000 % 1'000) + "." +
         std::to_string(number % 1'000);
}

std::string title_of(virDomainPtr domain) {
  const LibvirtString title(
      virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_TITLE, nullptr, VIR_DOMAIN_AFFECT_CURRENT));
  return title == nullptr ? "" : title.get();
}

// False when the domain is gone or the connection broke; virGetLastError() tells.
bool read_info(virDomainPtr domain, DomainInfo& info) {
  int state = 0;
  int reason = 0;
  virDomainInfo numbers{};
  char uuid[VIR_UUID_STRING_BUFLEN] = {};
  int autostart = 0;
  if (virDomainGetState(domain, &state, &reason, 0) < 0 || virDomainGetInfo(domain, &numbers) < 0 ||
      virDomainGetUUIDString(domain, uuid) < 0)
    return false;
  const int persistent = virDomainIsPersistent(domain);
  if (persistent < 0) return false;
  // A transient domain has no autostart; libvirt calls that an error.
  if (persistent == 1 && virDomainGetAutostart(domain, &autostart) < 0) return false;
  info.name = virDomainGetName(domain);
  info.uuid = uuid;
  info.title = title_of(domain);
  info.state = to_domain_state(state);
  info.reason = reason_in_words(state, reason);
  info.persistent = persistent == 1;
  info.autostart = autostart == 1;
  info.memory_kib = numbers.maxMem;
  info.vcpus = numbers.nrVirtCpu;
  return true;
}

// An error of libvirt for a call that was under way on this connection.
Error call_error(LibvirtConnection& connection, const std::string& what) {
  // First: any further call of libvirt forgets the error.
  Error error = to_error(what, virGetLastError());
  if (connection.lost()) error.code = ENOTCONN;
  return error;
}

class LibvirtHypervisor final : public Hypervisor {
 public:
  LibvirtHypervisor(std::shared_ptr<LibvirtEventLoop> loop, const std::string& uri)
      : loop_(std::move(loop)),
        connector_(uri, queue_),
        events_(queue_, [this] { (void)connector_.connection().has_value(); }) {}

  Result<void> connect() {
    BOOST_OUTCOME_TRY(const auto connection, connector_.connection());
    return success();
  }

  Result<std::vector<DomainInfo>> list_domains() override;
  Result<DomainInfo> domain_info(const std::string& name) override;
  Result<std::string> domain_xml(const std::string& name, bool inactive) override;
  Result<void> define(const std::string& xml) override;
  Result<void> undefine(const std::string& name) override;
  Result<void> set_autostart(const std::string& name, bool on) override;
  Result<void> start(const std::string& name, bool paused) override;
  Result<void> resume(const std::string& name) override;
  Result<void> suspend(const std::string& name) override;
  Result<void> shutdown(const std::string& name) override;
  Result<void> destroy(const std::string& name) override;
  Result<int> process_id(const std::string& name) override;
  Result<std::uint64_t> free_memory_bytes() override;
  Result<std::string> version() override;
  void on_event(std::function<void(DomainEvent)> handler) override;

 private:
  using Connection = std::shared_ptr<LibvirtConnection>;
  struct Domain {
    Connection connection;  // before the handle: outlives it
    DomainHandle handle;
  };

  // A call that only looks: `look(connection)` is repeated once when the connection turns out to be
  // lost.
  template <class Look>
  auto looking(const Look& look) -> decltype(look(std::declval<Connection>()));
  Result<Domain> find(const std::string& name);
  // `call(domain)` returns libvirt's int; below zero is "failed to <verb> domain '<name>': …".
  template <class Call>
  Result<void> on_domain(const char* verb, const std::string& name, const Call& call);

  // Destroyed from the last to the first: delivery stops, connections close, the loop ends.
  std::shared_ptr<LibvirtEventLoop> loop_;
  std::shared_ptr<EventQueue> queue_ = std::make_shared<EventQueue>();
  LibvirtConnector connector_;
  LibvirtEvents events_;
};

template <class Look>
auto LibvirtHypervisor::looking(const Look& look) -> decltype(look(std::declval<Connection>())) {
  for (int attempt = 0;; ++attempt) {
    auto connection = connector_.connection();
    if (!connection) return connection.error();
    auto result = look(connection.value());
    if (result || result.error().code != ENOTCONN || attempt == 1) return result;
  }
}

Result<LibvirtHypervisor::Domain> LibvirtHypervisor::find(const std::string& name) {
  return looking([&name](const Connection& connection) -> Result<Domain> {
    Domain found{connection, DomainHandle(virDomainLookupByName(connection->get(), name.c_str()))};
    if (found.handle != nullptr) return found;
    const virError* error = virGetLastError();
    if (error != nullptr && error->code == VIR_ERR_NO_DOMAIN)
      return Error("failed to get domain '" + name + "'", ENOENT);
    return call_error(*connection, "failed to get domain '" + name + "'");
  });
}

template <class Call>
Result<void> LibvirtHypervisor::on_domain(const char* verb, const std::string& name,
                                          const Call& call) {
  BOOST_OUTCOME_TRY(const Domain domain, find(name));
  if (call(domain.handle.get()) >= 0) return success();
  return call_error(*domain.connection,
                    "failed to " + std::string(verb) + " domain '" + name + "'");
}

Result<std::vector<DomainInfo>> LibvirtHypervisor::list_domains() {
  return looking([](const Connection& connection) -> Result<std::vector<DomainInfo>> {
    virDomainPtr* raw = nullptr;
    const int count = virConnectListAllDomains(connection->get(), &raw, 0);
    if (count < 0) return call_error(*connection, "failed to list domains");
    std::vector<DomainHandle> domains;
    for (int i = 0; i < count; ++i)
      domains.emplace_back(raw[i]);
    std::free(raw);
    std::vector<DomainInfo> infos;
    for (const DomainHandle& domain : domains) {
      DomainInfo info;
      if (read_info(domain.get(), info)) {
        infos.push_back(std::move(info));
        continue;
      }
      const virError* error = virGetLastError();
      // Undefined or ended since it was listed.
      if (error != nullptr && error->code == VIR_ERR_NO_DOMAIN) continue;
      return call_error(*connection, "failed to list domains");
    }
    return infos;
  });
}

Result<DomainInfo> LibvirtHypervisor::domain_info(const std::string& name) {
  DomainInfo info;
  BOOST_OUTCOME_TRY(on_domain("get information of", name, [&info](virDomainPtr domain) {
    return read_info(domain, info) ? 0 : -1;
  }));
  return info;
}

Result<std::string> LibvirtHypervisor::domain_xml(const std::string& name, bool inactive) {
  std::string text;
  const unsigned flags =
      VIR_DOMAIN_XML_SECURE | (inactive ? unsigned{VIR_DOMAIN_XML_INACTIVE} : 0U);
  BOOST_OUTCOME_TRY(on_domain("get the definition of", name, [&](virDomainPtr domain) {
    const LibvirtString xml(virDomainGetXMLDesc(domain, flags));
    if (xml == nullptr) return -1;
    text = xml.get();
    return 0;
  }));
  return text;
}

Result<void> LibvirtHypervisor::define(const std::string& xml) {
  BOOST_OUTCOME_TRY(const std::string name, havm::domain_name(xml));
  BOOST_OUTCOME_TRY(const Connection connection, connector_.connection());
  const DomainHandle domain(virDomainDefineXMLFlags(connection->get(), xml.c_str(), 0));
  if (domain != nullptr) return success();
  return call_error(*connection, "failed to define domain '" + name + "'");
}

Result<void> LibvirtHypervisor::undefine(const std::string& name) {
  return on_domain("undefine", name, [](virDomainPtr domain) {
    // A libvirt older than 8.9 does not know KEEP_TPM, other drivers not even KEEP_NVRAM; without
    // the flag libvirt refuses when there is an NVRAM file, so nothing is lost by asking for less.
    for (const unsigned flags : {VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | VIR_DOMAIN_UNDEFINE_KEEP_TPM,
                                 static_cast<int>(VIR_DOMAIN_UNDEFINE_KEEP_NVRAM), 0}) {
      if (virDomainUndefineFlags(domain, flags) >= 0) return 0;
      const virError* error = virGetLastError();
      if (error == nullptr || error->code != VIR_ERR_INVALID_ARG) return -1;
    }
    return -1;
  });
}

Result<void> LibvirtHypervisor::set_autostart(const std::string& name, bool on) {
  return on_domain(on ? "mark as autostarted" : "unmark as autostarted", name,
                   [on](virDomainPtr domain) { return virDomainSetAutostart(domain, on ? 1 : 0); });
}

Result<void> LibvirtHypervisor::start(const std::string& name, bool paused) {
  return on_domain("start", name, [paused](virDomainPtr domain) {
    return virDomainCreateWithFlags(domain, paused ? unsigned{VIR_DOMAIN_START_PAUSED} : 0U);
  });
}

Result<void> LibvirtHypervisor::resume(const std::string& name) {
  return on_domain("resume", name, virDomainResume);
}

Result<void> LibvirtHypervisor::suspend(const std::string& name) {
  return on_domain("suspend", name, virDomainSuspend);
}

Result<void> LibvirtHypervisor::shutdown(const std::string& name) {
  return on_domain("shutdown", name, virDomainShutdown);
}

Result<void> LibvirtHypervisor::destroy(const std::string& name) {
  return on_domain("destroy", name, virDomainDestroy);
}

Result<int> LibvirtHypervisor::process_id(const std::string& name) {
  return qemu_process_id(name, qemu_run_directories);
}

Result<std::uint64_t> LibvirtHypervisor::free_memory_bytes() {
  // The kernel's own estimate of what new programs can get; libvirt only knows what lies unused.
  BOOST_OUTCOME_TRY(const std::string text, read_file("/proc/meminfo"));
  std::istringstream lines(text);
  std::string key;
  std::uint64_t kib = 0;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    if (fields >> key >> kib && key == "MemAvailable:") return kib * 1024;
  }
  return Error("/proc/meminfo has no MemAvailable", ENOTSUP);
}

Result<std::string> LibvirtHypervisor::version() {
  return looking([](const Connection& connection) -> Result<std::string> {
    unsigned long hypervisor = 0;
    unsigned long library = 0;
    const char* type = virConnectGetType(connection->get());
    if (type == nullptr || virConnectGetVersion(connection->get(), &hypervisor) < 0 ||
        virConnectGetLibVersion(connection->get(), &library) < 0)
      return call_error(*connection, "failed to get the version of the hypervisor");
    return std::string(type) + " " + version_text(hypervisor) + " / libvirt " +
           version_text(library);
  });
}

void LibvirtHypervisor::on_event(std::function<void(DomainEvent)> handler) {
  events_.on_event(std::move(handler));
}

}  // namespace

Result<std::unique_ptr<Hypervisor>> connect_libvirt(const std::string& uri) {
  BOOST_OUTCOME_TRY(auto loop, LibvirtEventLoop::shared());
  auto hypervisor = std::make_unique<LibvirtHypervisor>(std::move(loop), uri);
  BOOST_OUTCOME_TRY(hypervisor->connect());
  return std::unique_ptr<Hypervisor>(std::move(hypervisor));
}

}  // namespace havm
