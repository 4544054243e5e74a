// LibvirtHypervisor against libvirt's own test driver (test:///default), and its parts alone.
#include "hypervisor/libvirt/libvirt_hypervisor.hpp"

#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hypervisor/libvirt/libvirt_events.hpp"
#include "hypervisor/libvirt/libvirt_words.hpp"
#include "hypervisor/libvirt/qemu_process.hpp"
#include "tests/unit/hypervisor/test_files.hpp"

namespace havm {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

// A definition the test driver takes.
std::string test_domain(const std::string& name) {
  return "<domain type='test'><name>" + name +
         "</name><title>A title</title><memory unit='MiB'>64</memory><vcpu>2</vcpu>"
         "<os><type>hvm</type></os><devices><disk type='file' device='disk'>"
         "<driver name='qemu' type='raw'/><source file='/x.img'/><target dev='vda' bus='virtio'/>"
         "</disk></devices></domain>";
}

class NewsList {
 public:
  void add(const DomainEvent& event) {
    const std::lock_guard lock(mutex_);
    lines_.push_back(event.domain + " " + event.detail);
    changed_.notify_all();
  }
  // All events once there are `count`, or what there is after 10 s.
  std::vector<std::string> wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, 10s, [&] { return lines_.size() >= count; });
    return lines_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
};

class LibvirtHypervisorTest : public testing::Test {
 protected:
  void SetUp() override {
    auto connected = connect_libvirt("test:///default");
    ASSERT_TRUE(connected) << connected.error().message;
    hypervisor = std::move(connected).value();
  }
  DomainInfo info(const std::string& name) { return hypervisor->domain_info(name).value(); }

  NewsList news;
  std::unique_ptr<Hypervisor> hypervisor;
};

TEST_F(LibvirtHypervisorTest, lists_what_is_there) {
  const auto domains = hypervisor->list_domains();
  ASSERT_TRUE(domains) << domains.error().message;
  ASSERT_EQ(domains.value().size(), 1U);
  const DomainInfo& domain = domains.value()[0];
  EXPECT_EQ(domain.name, "test");
  EXPECT_EQ(domain.uuid, "6695eb01-f6a4-8304-79aa-97f2502e193f");
  EXPECT_EQ(domain.state, DomainState::running);
  EXPECT_EQ(domain.memory_kib, 8388608U);
  EXPECT_EQ(domain.vcpus, 2U);
  EXPECT_TRUE(domain.persistent);
}

TEST_F(LibvirtHypervisorTest, a_life) {
  ASSERT_TRUE(hypervisor->define(test_domain("vm1")));
  EXPECT_EQ(info("vm1").state, DomainState::shut_off);
  EXPECT_EQ(info("vm1").title, "A title");
  EXPECT_EQ(info("vm1").memory_kib, 65536U);
  EXPECT_FALSE(info("vm1").autostart);
  ASSERT_TRUE(hypervisor->set_autostart("vm1", true));
  EXPECT_TRUE(info("vm1").autostart);
  ASSERT_TRUE(hypervisor->set_autostart("vm1", false));
  EXPECT_FALSE(info("vm1").autostart);
  ASSERT_TRUE(hypervisor->start("vm1", false));
  EXPECT_EQ(info("vm1").state, DomainState::running);
  EXPECT_EQ(info("vm1").reason, "booted");
  ASSERT_TRUE(hypervisor->suspend("vm1"));
  EXPECT_EQ(info("vm1").state, DomainState::paused);
  EXPECT_EQ(info("vm1").reason, "user");
  ASSERT_TRUE(hypervisor->resume("vm1"));
  EXPECT_EQ(info("vm1").state, DomainState::running);
  ASSERT_TRUE(hypervisor->destroy("vm1"));
  EXPECT_EQ(info("vm1").state, DomainState::shut_off);
  EXPECT_EQ(info("vm1").reason, "destroyed");
  ASSERT_TRUE(hypervisor->undefine("vm1"));
  EXPECT_EQ(hypervisor->domain_info("vm1").error().code, ENOENT);
}

TEST_F(LibvirtHypervisorTest, events_arrive_in_order) {
  hypervisor->on_event([this](const DomainEvent& event) { news.add(event); });
  ASSERT_TRUE(hypervisor->define(test_domain("vm1")));
  ASSERT_TRUE(hypervisor->start("vm1", false));
  ASSERT_TRUE(hypervisor->suspend("vm1"));
  ASSERT_TRUE(hypervisor->resume("vm1"));
  ASSERT_TRUE(hypervisor->destroy("vm1"));
  ASSERT_TRUE(hypervisor->undefine("vm1"));
  EXPECT_THAT(news.wait_for(6), ElementsAre("vm1 added", "vm1 booted", "vm1 paused", "vm1 unpaused",
                                            "vm1 destroyed", "vm1 removed"));
}

TEST_F(LibvirtHypervisorTest, a_handler_may_call_back) {
  hypervisor->on_event([this](const DomainEvent& event) {
    news.add({event.kind, event.domain, to_string(info("test").state)});
  });
  ASSERT_TRUE(hypervisor->suspend("test"));
  EXPECT_THAT(news.wait_for(1), Contains("test paused"));
}

TEST_F(LibvirtHypervisorTest, no_event_after_destruction) {
  hypervisor->on_event([this](const DomainEvent& event) { news.add(event); });
  ASSERT_TRUE(hypervisor->suspend("test"));
  hypervisor.reset();
  const std::size_t seen = news.wait_for(0).size();
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(news.wait_for(0).size(), seen);
}

TEST_F(LibvirtHypervisorTest, an_unknown_domain_is_named_as_virsh_names_it) {
  const auto check = [](const Error& error) {
    EXPECT_EQ(error.message, "failed to get domain 'it''s'");
    EXPECT_EQ(error.code, ENOENT);
  };
  check(hypervisor->domain_info("it''s").error());
  check(hypervisor->domain_xml("it''s", true).error());
  check(hypervisor->start("it''s", false).error());
  check(hypervisor->destroy("it''s").error());
  check(hypervisor->undefine("it''s").error());
}

TEST_F(LibvirtHypervisorTest, errors_say_what_failed_and_why) {
  EXPECT_THAT(hypervisor->start("test", false).error().message,
              StartsWith("failed to start domain 'test': "));
  ASSERT_TRUE(hypervisor->destroy("test"));
  const auto again = hypervisor->destroy("test");
  EXPECT_THAT(again.error().message, StartsWith("failed to destroy domain 'test': "));
  EXPECT_THAT(again.error().message, HasSubstr("not running"));
  EXPECT_EQ(again.error().code, EINVAL);
  EXPECT_THAT(hypervisor->define("<domain type='test'><name>x</name></domain>").error().message,
              StartsWith("failed to define domain 'x': "));
  EXPECT_FALSE(hypervisor->define("not XML"));
}

TEST_F(LibvirtHypervisorTest, libvirt_prints_nothing) {
  testing::internal::CaptureStderr();
  (void)hypervisor->domain_info("x").has_value();
  (void)hypervisor->start("test", false).has_value();
  (void)connect_libvirt("qemu+unix:///system?socket=/no/such/socket").has_value();
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(LibvirtHypervisorTest, definition) {
  ASSERT_TRUE(hypervisor->define(test_domain("vm1")));
  const auto xml = hypervisor->domain_xml("vm1", true);
  ASSERT_TRUE(xml);
  EXPECT_THAT(xml.value(), HasSubstr("<source file='/x.img'/>"));
  EXPECT_TRUE(hypervisor->domain_xml("vm1", false));
}

TEST_F(LibvirtHypervisorTest, host) {
  EXPECT_THAT(hypervisor->version().value(),
              testing::MatchesRegex("TEST [0-9.]+ / libvirt [0-9]+\\.[0-9]+\\.[0-9]+"));
  EXPECT_GT(hypervisor->free_memory_bytes().value(), std::uint64_t{1} << 20);
  EXPECT_EQ(hypervisor->process_id("test").error().code, ENOENT);
}

TEST_F(LibvirtHypervisorTest, many_threads_and_a_second_connection) {
  auto second = connect_libvirt("test:///default");
  ASSERT_TRUE(second);
  second.value()->on_event([this](const DomainEvent& event) { news.add(event); });
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      const std::string name = "vm" + std::to_string(i);
      Hypervisor& mine = i % 2 == 0 ? *hypervisor : *second.value();
      for (int n = 0; n < 20; ++n) {
        EXPECT_TRUE(mine.define(test_domain(name)));
        EXPECT_TRUE(mine.start(name, false));
        EXPECT_TRUE(mine.destroy(name));
        EXPECT_TRUE(mine.undefine(name));
        EXPECT_TRUE(mine.list_domains());
      }
    });
  for (std::thread& thread : threads)
    thread.join();
}

TEST(LibvirtConnect, tells_where_it_could_not_connect) {
  const auto failed = connect_libvirt("qemu+unix:///system?socket=/no/such/socket");
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message, HasSubstr("failed to connect to libvirt at qemu+unix:"));
  EXPECT_THAT(failed.error().message, HasSubstr("systemctl status libvirtd"));
  EXPECT_NE(failed.error().code, 0);
}

// --- Parts ---

TEST(LibvirtWords, states_and_reasons_are_virshs) {
  EXPECT_STREQ(to_string(to_domain_state(VIR_DOMAIN_SHUTOFF)), "shut off");
  EXPECT_STREQ(to_string(to_domain_state(VIR_DOMAIN_SHUTDOWN)), "in shutdown");
  EXPECT_STREQ(to_string(to_domain_state(VIR_DOMAIN_PMSUSPENDED)), "pmsuspended");
  EXPECT_STREQ(to_string(to_domain_state(99)), "no state");
  EXPECT_STREQ(reason_in_words(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_IOERROR), "I/O error");
  EXPECT_STREQ(reason_in_words(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_STARTING_UP), "starting up");
  EXPECT_STREQ(reason_in_words(VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_WAKEUP), "event wakeup");
  EXPECT_STREQ(reason_in_words(VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_CRASHED), "crashed");
  EXPECT_STREQ(reason_in_words(VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_DAEMON), "daemon");
  EXPECT_STREQ(reason_in_words(VIR_DOMAIN_CRASHED, VIR_DOMAIN_CRASHED_PANICKED), "panicked");
  EXPECT_STREQ(reason_in_words(VIR_DOMAIN_PAUSED, 99), "unknown");
  EXPECT_STREQ(reason_in_words(VIR_DOMAIN_PAUSED, -1), "unknown");
}

TEST(LibvirtWords, events) {
  const auto text = [](int event, int detail) {
    return lifecycle_event("x", event, detail).detail;
  };
  EXPECT_EQ(text(VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_IOERROR), "I/O error");
  EXPECT_EQ(text(VIR_DOMAIN_EVENT_STOPPED, VIR_DOMAIN_EVENT_STOPPED_FAILED), "failed");
  EXPECT_EQ(text(VIR_DOMAIN_EVENT_SHUTDOWN, VIR_DOMAIN_EVENT_SHUTDOWN_GUEST), "guest request");
  EXPECT_EQ(text(VIR_DOMAIN_EVENT_CRASHED, VIR_DOMAIN_EVENT_CRASHED_PANICKED), "panicked");
  EXPECT_EQ(text(VIR_DOMAIN_EVENT_STARTED, 99), "unknown");
  EXPECT_EQ(lifecycle_event("x", VIR_DOMAIN_EVENT_CRASHED, 0).kind, DomainEvent::Kind::crashed);
  EXPECT_EQ(lifecycle_event("x", VIR_DOMAIN_EVENT_PMSUSPENDED, 0).kind,
            DomainEvent::Kind::suspended);
  EXPECT_EQ(lifecycle_event("x", 99, 0).detail, "unknown event");
}

TEST(EventQueueTest, keeps_the_newest_events) {
  EventQueue queue;
  for (std::size_t i = 0; i < EventQueue::queued_events_max + 3; ++i)
    queue.push({DomainEvent::Kind::started, std::to_string(i), ""});
  const auto news = queue.wait(0ms);
  ASSERT_EQ(news.events.size(), EventQueue::queued_events_max);
  EXPECT_EQ(news.events.front().domain, "3");
  EXPECT_TRUE(queue.wait(0ms).events.empty());
}

TEST(LibvirtEventsTest, checks_the_connection_again_and_again_also_while_events_flow) {
  std::atomic<int> checks{0};
  const auto queue = std::make_shared<EventQueue>();
  LibvirtEvents events(queue, [&checks] { ++checks; });
  for (int i = 0; i < 50 && checks < 2; ++i) {
    queue->push({DomainEvent::Kind::started, "x", ""});
    std::this_thread::sleep_for(100ms);
  }
  EXPECT_EQ(checks, 2);
}

TEST(QemuProcess, knows_its_qemu_by_the_command_line) {
  const auto line = [](const std::string& name) {
    return std::string("qemu\0-name\0", 11) + name + std::string("\0-S\0", 4);
  };
  EXPECT_TRUE(is_qemu_of(line("guest=web1,debug-threads=on"), "web1"));
  EXPECT_TRUE(is_qemu_of(line("guest=web1"), "web1"));
  EXPECT_TRUE(is_qemu_of(line("guest=a,,b,debug-threads=on"), "a,b"));
  EXPECT_FALSE(is_qemu_of(line("guest=a,,b,debug-threads=on"), "a"));
  EXPECT_FALSE(is_qemu_of(line("guest=web12,debug-threads=on"), "web1"));
  EXPECT_FALSE(is_qemu_of(line("guest=web1,debug-threads=on"), "web12"));
  EXPECT_FALSE(is_qemu_of("", "web1"));
  EXPECT_FALSE(is_qemu_of(std::string("vi\0guest=web1\0", 14), "web1"));
}

TEST(QemuProcess, a_stale_pid_file_is_no_process) {
  const TemporaryDirectory directory;
  write_text(directory / "web1.pid", std::to_string(::getpid()) + "\n");
  for (const char* text : {"", "junk", "-1", "0", "1", "99999999999999", "4194303\n"})
    write_text(directory / ("web" + std::string(text).substr(0, 3) + "x.pid"), text);
  EXPECT_EQ(qemu_process_id("web1", {directory.path()}).error().code, ENOENT) << "not a QEMU";
  for (const char* text : {"", "jun", "-1", "0", "1", "999", "419"})
    EXPECT_EQ(qemu_process_id("web" + std::string(text) + "x", {directory.path()}).error().message,
              "domain 'web" + std::string(text) + "x' is not running");
  EXPECT_EQ(qemu_process_id("../web1", {directory.path()}).error().code, ENOENT);
  EXPECT_EQ(qemu_process_id("", {directory.path()}).error().code, ENOENT);
}

TEST(QemuProcess, finds_a_live_one) {
  const TemporaryDirectory directory;
  const pid_t child = ::fork();
  if (child == 0) {
    ::execlp("sh", "sh", "-c", "while :; do sleep 0.1; done", "-name",
             "guest=my vm,debug-threads=on", nullptr);
    ::_exit(127);
  }
  write_text(directory / "my vm.pid", std::to_string(child));
  Result<int> found = Error("not looked yet");
  for (int i = 0; i < 100 && !found; ++i) {
    found = qemu_process_id("my vm", {"/no/such/directory", directory.path()});
    if (!found) std::this_thread::sleep_for(10ms);
  }
  EXPECT_TRUE(found && found.value() == child);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(qemu_process_id("my vm", {directory.path()}).error().code, ENOENT);
}

}  // namespace
}  // namespace havm
