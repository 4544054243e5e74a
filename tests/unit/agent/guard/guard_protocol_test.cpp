#include "agent/guard/guard_protocol.hpp"

#include <random>

#include <gtest/gtest.h>

namespace havm {
namespace {

TEST(GuardProtocol, ReadsEveryCommand) {
  const auto watch = parse_guard_command("watch web1 123 456 7 89");
  ASSERT_TRUE(watch) << watch.error().message;
  EXPECT_EQ(watch.value().event.kind, GuardEventKind::Watch);
  EXPECT_EQ(watch.value().vm, "web1");
  EXPECT_EQ(watch.value().pid, 123);
  EXPECT_EQ(watch.value().start_ticks, 456U);
  EXPECT_EQ(watch.value().event.epoch, Epoch(7));
  EXPECT_EQ(to_ns(watch.value().event.sent), 89);
  for (const char* good : {"renew v 1 2", "alone v 1", "lease v 1", "stop v", "kill v",
                           "continue v 1", "forget v", "status", "stop b\xc3\xa4r"})
    EXPECT_TRUE(parse_guard_command(good)) << good;
}

TEST(GuardProtocol, RefusesEverythingElse) {
  for (const char* bad : {"",
                          " ",
                          "stop",
                          "stop ",
                          "stop  v",
                          " stop v",
                          "stop v ",
                          "stop v w",
                          "Stop v",
                          "status x",
                          "watch v 0 1 1 1",
                          "watch v 1 1 1 1",
                          "watch v -5 1 1 1",
                          "watch v 99999999999 1 1 1",
                          "renew v 1 -2",
                          "renew v 1 x",
                          "renew v 1 2x",
                          "renew v 18446744073709551615 1",
                          "renew v 99999999999999999999 1",
                          "renew v +1 1",
                          "stop a\tb",
                          "stop a\nb",
                          "kill v\n"})
    EXPECT_FALSE(parse_guard_command(bad)) << bad;
  EXPECT_FALSE(parse_guard_command(std::string("stop a\0b", 8)));
  EXPECT_FALSE(parse_guard_command("stop " + std::string(600, 'v')));
}

TEST(GuardProtocol, RandomBytesAreHarmless) {
  std::mt19937 random(7);
  const std::string alphabet("watchrenewstop 0123456789\0\xff-", 29);
  for (int i = 0; i < 20000; ++i) {
    std::string packet(random() % 40, ' ');
    for (char& c : packet)
      c = alphabet[random() % alphabet.size()];
    const auto command = parse_guard_command(packet);
    if (command && command.value().verb != GuardCommand::Verb::Status) {
      EXPECT_FALSE(command.value().vm.empty());
    }
  }
}

TEST(GuardProtocol, TellsEveryState) {
  GuardVm vm;
  vm.epoch = Epoch(3);
  vm.last_sent = from_ns(50);
  vm.paused_at = from_ns(60);
  EXPECT_EQ(format_guard_status("v", 9, vm), "v 9 3 1 running 50 0");
  vm.phase = GuardPhase::Stopping;
  EXPECT_EQ(format_guard_status("v", 9, vm), "v 9 3 1 running 50 60") << "not confirmed yet";
  vm.phase = GuardPhase::Paused;
  EXPECT_EQ(format_guard_status("v", 9, vm), "v 9 3 1 paused 50 60");
  vm.held = true;
  vm.needs_lease = false;
  EXPECT_EQ(format_guard_status("v", 9, vm), "v 9 3 0 stopped 50 60");
  vm.phase = GuardPhase::Killing;
  EXPECT_EQ(format_guard_status("v", 9, vm), "v 9 3 0 killed 50 60");
  vm.phase = GuardPhase::Gone;
  EXPECT_EQ(format_guard_status("v", 9, vm), "v 9 3 0 gone 50 60");
}

}  // namespace
}  // namespace havm
