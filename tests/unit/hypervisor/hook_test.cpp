// The libvirt hook conf/hooks/qemu, run as libvirt runs it.
#include <gmock/gmock.h>
#include <stdlib.h>

#include "hypervisor/qemu_img/run_process.hpp"
#include "tests/unit/hypervisor/test_files.hpp"

namespace havm {
namespace {

using testing::IsEmpty;

class HookTest : public testing::Test {
 protected:
  HookTest() {
    ::setenv("HAVM_STATE_DIR", (directory / "lib dir").c_str(), 1);
    ::setenv("HAVM_RUN_DIR", (directory / "run dir").c_str(), 1);
  }
  ~HookTest() override {
    ::unsetenv("HAVM_STATE_DIR");
    ::unsetenv("HAVM_RUN_DIR");
  }
  void protect(const std::string& name) {
    write_text(directory / "lib dir/vms/" + name + "/vm.json", "{}");
  }
  std::string permit(const std::string& name) { return directory / "run dir/permit/" + name; }
  ProcessOutcome hook(const std::string& name, const std::string& operation) {
    const auto outcome = run_process({HAVM_HOOK, name, operation, "begin", "-"});
    EXPECT_TRUE(outcome) << outcome.error().message;
    EXPECT_THAT(outcome.value().out, IsEmpty()) << "libvirt takes output for a domain XML";
    return outcome.value();
  }

  TemporaryDirectory directory;
};

TEST_F(HookTest, lets_unprotected_domains_do_anything) {
  protect("other");
  for (const char* operation : {"prepare", "start", "started", "stopped", "release", "migrate",
                                "restore", "reconnect", "attach", "", "later-invention"}) {
    const ProcessOutcome outcome = hook("web1", operation);
    EXPECT_EQ(outcome.exit_status, 0) << operation;
    EXPECT_THAT(outcome.err, IsEmpty()) << operation;
  }
}

TEST_F(HookTest, refuses_to_start_a_protected_vm_without_permit) {
  protect("web1");
  for (const char* operation : {"prepare", "start"}) {
    const ProcessOutcome outcome = hook("web1", operation);
    EXPECT_EQ(outcome.exit_status, 1) << operation;
    EXPECT_EQ(outcome.err, "VM 'web1' is protected by havm; start it with: havm start web1\n");
  }
}

TEST_F(HookTest, is_open_at_everything_but_a_start) {
  protect("web1");
  for (const char* operation :
       {"started", "stopped", "release", "migrate", "restore", "reconnect", "attach", ""})
    EXPECT_EQ(hook("web1", operation).exit_status, 0) << operation;
}

TEST_F(HookTest, a_permit_is_for_one_start) {
  protect("web1");
  write_text(permit("web1"), "");
  EXPECT_EQ(hook("web1", "prepare").exit_status, 0);
  EXPECT_EQ(hook("web1", "start").exit_status, 0);
  EXPECT_FALSE(std::filesystem::exists(permit("web1")));
  EXPECT_EQ(hook("web1", "started").exit_status, 0);
  EXPECT_EQ(hook("web1", "prepare").exit_status, 1);
  EXPECT_EQ(hook("web1", "start").exit_status, 1);
}

TEST_F(HookTest, a_permit_is_for_one_vm) {
  protect("web1");
  protect("web2");
  write_text(permit("web2"), "");
  EXPECT_EQ(hook("web1", "prepare").exit_status, 1);
  EXPECT_EQ(hook("web2", "prepare").exit_status, 0);
}

TEST_F(HookTest, odd_names_are_only_names) {
  for (const char* name : {"it's", "a b", "$(touch x)", "`id`", "-n", "--", "%s%s", "*", "a\\b",
                           "ü", "new\nline", "a;b", "\"q\""}) {
    EXPECT_EQ(hook(name, "prepare").exit_status, 0) << name;
    protect(name);
    const ProcessOutcome refused = hook(name, "prepare");
    EXPECT_EQ(refused.exit_status, 1) << name;
    EXPECT_EQ(refused.err, "VM '" + std::string(name) + "' is protected by havm; start it with: " +
                               "havm start " + name + "\n");
    write_text(permit(name), "");
    EXPECT_EQ(hook(name, "prepare").exit_status, 0) << name;
    EXPECT_EQ(hook(name, "start").exit_status, 0) << name;
    EXPECT_FALSE(std::filesystem::exists(permit(name))) << name;
  }
}

TEST_F(HookTest, names_never_leave_the_directory) {
  write_text(directory / "lib dir/vm.json", "{}");
  write_text(directory / "lib dir/vms/vm.json", "{}");
  write_text(directory / "lib dir/vms/a/b/vm.json", "{}");
  write_text(directory / "run dir/victim", "");
  for (const char* name : {"", ".", "..", "a/b", "../victim"})
    EXPECT_EQ(hook(name, "start").exit_status, 0) << name;
  EXPECT_TRUE(std::filesystem::exists(directory / "run dir/victim"));
}

TEST_F(HookTest, works_with_the_shell_that_debian_uses_for_sh) {
  const auto outcome = run_process({"dash", "-n", HAVM_HOOK});
  if (!outcome) GTEST_SKIP() << outcome.error().message;
  EXPECT_EQ(outcome.value().exit_status, 0) << outcome.value().err;
}

}  // namespace
}  // namespace havm
