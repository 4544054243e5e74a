#include "hypervisor/fake/fake_hypervisor.hpp"

#include <cerrno>
#include <thread>

#include <gmock/gmock.h>

#include "tests/unit/hypervisor/test_files.hpp"

namespace havm {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

class FakeHypervisorTest : public testing::Test {
 protected:
  FakeHypervisorTest() {
    fake.on_event([this](const DomainEvent& e) { news.push_back(e.domain + " " + e.detail); });
    EXPECT_TRUE(fake.define(example("virtio-raw")));
  }
  DomainState state() { return fake.domain_info("web1").value().state; }

  FakeHypervisor fake;
  std::vector<std::string> news;
};

TEST_F(FakeHypervisorTest, a_life) {
  EXPECT_EQ(state(), DomainState::shut_off);
  ASSERT_TRUE(fake.start("web1", true));
  EXPECT_EQ(state(), DomainState::paused);
  EXPECT_EQ(fake.process_id("web1").value(), FakeHypervisor::first_pid);
  ASSERT_TRUE(fake.resume("web1"));
  EXPECT_EQ(state(), DomainState::running);
  ASSERT_TRUE(fake.suspend("web1"));
  ASSERT_TRUE(fake.destroy("web1"));
  EXPECT_EQ(state(), DomainState::shut_off);
  EXPECT_EQ(fake.process_id("web1").error().code, ENOENT);
  ASSERT_TRUE(fake.start("web1", false));
  EXPECT_EQ(fake.process_id("web1").value(), FakeHypervisor::first_pid + 1);
  ASSERT_TRUE(fake.shutdown("web1"));
  ASSERT_TRUE(fake.undefine("web1"));
  EXPECT_THAT(fake.history(),
              ElementsAre("define web1", "start web1 paused", "resume web1", "suspend web1",
                          "destroy web1", "start web1", "shutdown web1", "undefine web1"));
  EXPECT_THAT(
      news, ElementsAre("web1 added", "web1 booted", "web1 paused", "web1 unpaused", "web1 paused",
                        "web1 destroyed", "web1 booted", "web1 shutdown", "web1 removed"));
}

TEST_F(FakeHypervisorTest, has_libvirts_rules_and_words) {
  EXPECT_EQ(fake.start("x", false).error().message, "failed to get domain 'x'");
  EXPECT_EQ(fake.start("x", false).error().code, ENOENT);
  EXPECT_THAT(fake.destroy("web1").error().message, HasSubstr("domain is not running"));
  ASSERT_TRUE(fake.start("web1", false));
  EXPECT_THAT(fake.start("web1", false).error().message, HasSubstr("already running"));
  EXPECT_FALSE(fake.define("<domain/>"));
}

TEST_F(FakeHypervisorTest, live_and_inactive_definitions_differ_until_the_next_start) {
  const std::string old_xml = example("virtio-raw");
  std::string new_xml = old_xml;
  new_xml.replace(new_xml.find("2097152"), 7, "4194304");
  ASSERT_TRUE(fake.start("web1", false));
  ASSERT_TRUE(fake.define(new_xml));
  EXPECT_EQ(fake.domain_xml("web1", false).value(), old_xml);
  EXPECT_EQ(fake.domain_xml("web1", true).value(), new_xml);
  ASSERT_TRUE(fake.destroy("web1"));
  EXPECT_EQ(fake.domain_xml("web1", false).value(), new_xml);
}

TEST_F(FakeHypervisorTest, an_undefined_running_domain_is_gone_when_it_stops) {
  ASSERT_TRUE(fake.start("web1", false));
  ASSERT_TRUE(fake.undefine("web1"));
  EXPECT_EQ(fake.list_domains().value().size(), 1U);
  fake.kill_process("web1");
  EXPECT_EQ(fake.list_domains().value().size(), 0U);
}

TEST_F(FakeHypervisorTest, calls_fail_as_told) {
  fake.fail("start", "web1", Error("no memory", ENOMEM), 2);
  EXPECT_EQ(fake.start("web1", false).error().code, ENOMEM);
  EXPECT_EQ(fake.start("web1", false).error().code, ENOMEM);
  EXPECT_EQ(state(), DomainState::shut_off);
  EXPECT_TRUE(fake.start("web1", false));
  fake.fail("list_domains", "", Error("connection lost", ENOTCONN));
  EXPECT_FALSE(fake.list_domains());
  EXPECT_TRUE(fake.list_domains());
}

TEST_F(FakeHypervisorTest, calls_hang_until_released) {
  fake.hang("destroy", "web1");
  ASSERT_TRUE(fake.start("web1", false));
  std::thread caller([this] { EXPECT_TRUE(fake.destroy("web1")); });
  while (fake.hanging() == 0)
    std::this_thread::sleep_for(1ms);
  EXPECT_EQ(state(), DomainState::running) << "other calls still answer";
  fake.release();
  caller.join();
  EXPECT_EQ(state(), DomainState::shut_off);
  EXPECT_EQ(fake.hanging(), 0);
}

TEST_F(FakeHypervisorTest, the_hook_can_refuse) {
  fake.set_start_veto([](const std::string& name) -> std::optional<std::string> {
    return "VM '" + name + "' is protected by havm";
  });
  const auto refused = fake.start("web1", false);
  EXPECT_THAT(refused.error().message, HasSubstr("VM 'web1' is protected by havm"));
  EXPECT_EQ(refused.error().code, EPERM);
  EXPECT_EQ(state(), DomainState::shut_off);
}

TEST_F(FakeHypervisorTest, trouble) {
  ASSERT_TRUE(fake.start("web1", false));
  fake.io_error("web1", "vda");
  EXPECT_EQ(state(), DomainState::paused);
  EXPECT_EQ(fake.domain_info("web1").value().reason, "I/O error");
  ASSERT_TRUE(fake.resume("web1"));
  fake.guest_panics("web1");
  EXPECT_EQ(state(), DomainState::crashed);
  fake.kill_process("web1");
  EXPECT_EQ(fake.domain_info("web1").value().reason, "crashed");
  EXPECT_EQ(news.back(), "web1 failed");
  ASSERT_TRUE(fake.start("web1", false));
  fake.set_guest_obeys_shutdown("web1", false);
  ASSERT_TRUE(fake.shutdown("web1"));
  EXPECT_EQ(state(), DomainState::running);
  fake.guest_powers_off("web1");
  EXPECT_EQ(state(), DomainState::shut_off);
}

TEST_F(FakeHypervisorTest, a_handler_may_call_back) {
  std::string seen;
  fake.on_event([&](const DomainEvent& e) {
    if (e.kind == DomainEvent::Kind::started)
      seen = to_string(fake.domain_info(e.domain).value().state);
  });
  ASSERT_TRUE(fake.start("web1", false));
  EXPECT_EQ(seen, "running");
}

TEST_F(FakeHypervisorTest, many_threads) {
  std::vector<std::thread> threads;
  fake.on_event(nullptr);
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([this] {
      for (int n = 0; n < 200; ++n) {
        (void)fake.start("web1", false).has_value();
        (void)fake.list_domains().has_value();
        (void)fake.destroy("web1").has_value();
      }
    });
  for (std::thread& thread : threads)
    thread.join();
  int starts = 0;
  int destroys = 0;
  for (const std::string& line : fake.history()) {
    starts += line == "start web1" ? 1 : 0;
    destroys += line == "destroy web1" ? 1 : 0;
  }
  EXPECT_EQ(starts - destroys, state() == DomainState::shut_off ? 0 : 1);
  EXPECT_GE(starts, 200);
}

}  // namespace
}  // namespace havm
