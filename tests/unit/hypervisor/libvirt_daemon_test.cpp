// LibvirtHypervisor and the hook against a real libvirtd and real QEMU processes (TCG, no guest
// needed), on a private host (private_host.hpp). Skipped without root.
#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>

#include "hypervisor/domain_xml.hpp"
#include "hypervisor/libvirt/libvirt_hypervisor.hpp"
#include "hypervisor/qemu_img/qemu_img.hpp"
#include "tests/unit/hypervisor/private_host.hpp"
#include "tests/unit/hypervisor/test_files.hpp"

namespace havm {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

bool inside = false;

const std::string plain_vm =
    "<domain type='qemu'><name>web1</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>"
    "<os><type arch='x86_64' machine='pc'>hvm</type></os>"
    "<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>"
    "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='writeback'/>"
    "<source file='/var/lib/web1.img'/><target dev='vda' bus='virtio'/><serial>S1</serial>"
    "<boot order='1'/></disk></devices></domain>";

class LibvirtDaemonTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!inside) GTEST_SKIP() << "needs root and namespaces";
    host = std::make_unique<PrivateHost>();
    auto connected = connect_libvirt();
    ASSERT_TRUE(connected) << connected.error().message;
    hypervisor = std::move(connected).value();
    hypervisor->on_event([this](const DomainEvent& event) {
      const std::lock_guard lock(mutex);
      news.push_back(event.domain + " " + event.detail);
      changed.notify_all();
    });
    ASSERT_TRUE(QemuImg().create("/var/lib/web1.img", "raw", std::uint64_t{4} << 20));
    const auto defined = hypervisor->define(plain_vm);
    ASSERT_TRUE(defined) << defined.error().message;
  }
  void TearDown() override {
    if (host == nullptr) return;
    // A stopped QEMU would hold up libvirt's destroy.
    if (const auto pid = hypervisor->process_id("web1")) ::kill(pid.value(), SIGKILL);
    hypervisor.reset();
  }

  void start(bool paused = false) {
    const auto started = hypervisor->start("web1", paused);
    ASSERT_TRUE(started) << started.error().message;
  }
  DomainInfo info() { return hypervisor->domain_info("web1").value(); }
  bool saw(const std::string& part) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, 15s, [&] {
      return std::ranges::any_of(
          news, [&](const std::string& n) { return n.find(part) != std::string::npos; });
    });
  }

  std::unique_ptr<PrivateHost> host;
  std::unique_ptr<Hypervisor> hypervisor;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> news;
};

TEST_F(LibvirtDaemonTest, a_life_that_starts_paused) {
  EXPECT_EQ(hypervisor->process_id("web1").error().code, ENOENT);
  start(true);
  EXPECT_EQ(info().state, DomainState::paused);
  const int pid = hypervisor->process_id("web1").value();
  EXPECT_THAT(read_text("/proc/" + std::to_string(pid) + "/cmdline"), HasSubstr("guest=web1,"));
  ASSERT_TRUE(hypervisor->resume("web1"));
  EXPECT_EQ(info().state, DomainState::running);
  ASSERT_TRUE(hypervisor->suspend("web1"));
  EXPECT_EQ(info().reason, "user");
  ASSERT_TRUE(hypervisor->destroy("web1"));
  EXPECT_EQ(info().state, DomainState::shut_off);
  EXPECT_EQ(info().reason, "destroyed");
  EXPECT_EQ(hypervisor->process_id("web1").error().code, ENOENT);
  ASSERT_TRUE(hypervisor->undefine("web1"));
  for (const char* event : {"added", "booted", "paused", "unpaused", "destroyed", "removed"})
    EXPECT_TRUE(saw(std::string("web1 ") + event)) << event;
  EXPECT_THAT(hypervisor->version().value(), StartsWith("QEMU "));
}

TEST_F(LibvirtDaemonTest, the_hook_refuses_what_havm_did_not_start) {
  write_text("/var/lib/havm/vms/web1/vm.json", "{}");
  const auto refused = hypervisor->start("web1", false);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EPERM);
  EXPECT_THAT(refused.error().message,
              AllOf(StartsWith("failed to start domain 'web1': "),
                    HasSubstr("VM 'web1' is protected by havm; start it with: havm start web1")));
  EXPECT_EQ(info().state, DomainState::shut_off);

  write_text("/run/havm/permit/web1", "");
  start();
  EXPECT_EQ(info().state, DomainState::running);
  EXPECT_FALSE(std::filesystem::exists("/run/havm/permit/web1")) << "for one start only";
  ASSERT_TRUE(hypervisor->destroy("web1"));
  EXPECT_EQ(hypervisor->start("web1", false).error().code, EPERM);
}

TEST_F(LibvirtDaemonTest, survives_a_restart_of_libvirtd) {
  write_text("/var/lib/havm/vms/web1/vm.json", "{}");
  write_text("/run/havm/permit/web1", "");
  start();
  const int pid = hypervisor->process_id("web1").value();
  host->kill_libvirtd();
  EXPECT_EQ(hypervisor->process_id("web1").value(), pid) << "needs no libvirtd";
  const auto before = std::chrono::steady_clock::now();
  EXPECT_FALSE(hypervisor->domain_info("web1"));
  EXPECT_THAT(hypervisor->list_domains().error().message,
              HasSubstr("failed to connect to libvirt"));
  EXPECT_LT(std::chrono::steady_clock::now() - before, 5s);

  host->start_libvirtd();
  const auto found = hypervisor->domain_info("web1");
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found.value().state, DomainState::running) << "the hook is open at reconnect";
  EXPECT_EQ(hypervisor->process_id("web1").value(), pid);
}

TEST_F(LibvirtDaemonTest, events_flow_again_without_any_call) {
  start();
  const int pid = hypervisor->process_id("web1").value();
  host->kill_libvirtd();
  host->start_libvirtd();
  std::this_thread::sleep_for(3s);
  ::kill(pid, SIGKILL);
  EXPECT_TRUE(saw("web1 failed"));
}

TEST_F(LibvirtDaemonTest, a_killed_qemu_is_seen) {
  start();
  ::kill(hypervisor->process_id("web1").value(), SIGKILL);
  EXPECT_TRUE(saw("web1 failed")) << testing::PrintToString(news);
  EXPECT_EQ(hypervisor->process_id("web1").error().code, ENOENT);
  EXPECT_EQ(info().state, DomainState::shut_off);
  EXPECT_EQ(info().reason, "crashed");
}

TEST_F(LibvirtDaemonTest, a_stopped_qemu_hangs_neither_list_nor_info) {
  start();
  const int pid = hypervisor->process_id("web1").value();
  ::kill(pid, SIGSTOP);
  const auto before = std::chrono::steady_clock::now();
  EXPECT_EQ(hypervisor->list_domains().value().size(), 1U);
  EXPECT_EQ(info().state, DomainState::running);
  EXPECT_TRUE(hypervisor->domain_xml("web1", true));
  EXPECT_TRUE(hypervisor->domain_xml("web1", false));
  EXPECT_EQ(hypervisor->process_id("web1").value(), pid);
  EXPECT_LT(std::chrono::steady_clock::now() - before, 3s);
}

// Serves 4 MiB of zeroes until it is destroyed.
class NbdServer {
 public:
  explicit NbdServer(const std::string& socket) {
    pid_ = ::fork();
    if (pid_ == 0) {
      ::execlp("nbdkit", "nbdkit", "--foreground", "--exit-with-parent", "-U", socket.c_str(),
               "memory", "4M", nullptr);
      ::_exit(127);
    }
    for (int i = 0; i < 100 && !std::filesystem::exists(socket); ++i)
      std::this_thread::sleep_for(50ms);
  }
  NbdServer(const NbdServer&) = delete;
  NbdServer& operator=(const NbdServer&) = delete;
  ~NbdServer() { kill(); }
  void kill() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
};

TEST_F(LibvirtDaemonTest, libvirt_takes_the_nbd_disk_and_gives_back_the_original) {
  const std::string original = hypervisor->domain_xml("web1", true).value();
  ASSERT_THAT(check_protectable(original).value(), IsEmpty());
  const DomainDisk disk = find_disk(original, "vda").value();
  const std::string socket = "/run/it's vda.sock";
  NbdServer server(socket);
  const auto defined = hypervisor->define(disk_to_nbd(original, "vda", socket, "vda").value());
  ASSERT_TRUE(defined) << defined.error().message;
  const std::string protected_xml = hypervisor->domain_xml("web1", true).value();
  EXPECT_EQ(find_disk(protected_xml, "vda").value().nbd_socket, socket);
  EXPECT_EQ(find_disk(protected_xml, "vda").value().serial, "S1");
  start(true);
  ASSERT_TRUE(hypervisor->destroy("web1"));

  ASSERT_TRUE(hypervisor->define(restore_disk(protected_xml, "vda", disk.xml).value()));
  EXPECT_EQ(hypervisor->domain_xml("web1", true).value(), original);
}

TEST_F(LibvirtDaemonTest, an_io_error_stops_the_vm_and_is_told) {
  const std::string original = hypervisor->domain_xml("web1", true).value();
  const std::string socket = "/run/vda.sock";
  NbdServer server(socket);
  ASSERT_TRUE(hypervisor->define(disk_to_nbd(original, "vda", socket, "vda").value()));
  start(true);
  server.kill();
  // The BIOS reads the boot sector.
  ASSERT_TRUE(hypervisor->resume("web1"));
  EXPECT_TRUE(saw("web1 I/O error on virtio-disk0")) << testing::PrintToString(news);
  EXPECT_EQ(info().state, DomainState::paused);
  EXPECT_EQ(info().reason, "I/O error");
}

}  // namespace
}  // namespace havm

int main(int argc, char** argv) {
  // As havmd does: libvirt's client writes to the socket of a libvirtd that was just killed.
  ::signal(SIGPIPE, SIG_IGN);
  havm::inside = havm::enter_private_host(argc, argv);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
