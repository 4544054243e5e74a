#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/cli/command_line.hpp"
#include "agent/cli/help_text.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

std::string complaint(const std::string& command, const std::vector<std::string>& arguments) {
  const auto parsed = parse_command_options(*find_command(command), arguments);
  return parsed ? "" : parsed.error().message;
}

TEST(CommandLine, GlobalOptionsEndAtTheCommand) {
  const auto options = parse_global_options({"-q", "-c", "/x", "list", "--all", "-q", "--json"});
  ASSERT_TRUE(options.has_value());
  EXPECT_TRUE(options.value().quiet);
  EXPECT_FALSE(options.value().json);
  EXPECT_EQ(options.value().socket, "/x");
  EXPECT_THAT(options.value().rest, ElementsAre("list", "--all", "-q", "--json"));
}

TEST(CommandLine, OneCommandMayHaveTheSpellingOfAnOption) {
  const auto options = parse_global_options({"--connect=/y", "--json", "dominfo", "-x"});
  ASSERT_TRUE(options.has_value());
  EXPECT_TRUE(options.value().json);
  EXPECT_EQ(options.value().socket, "/y");
  EXPECT_THAT(options.value().rest, ElementsAre("dominfo", "-x"));
}

TEST(CommandLine, GlobalMistakesInVirshWords) {
  EXPECT_EQ(parse_global_options({"--bogus"}).error().message,
            "unsupported option '--bogus'. See --help.");
  EXPECT_EQ(parse_global_options({"-c"}).error().message,
            "option '-c'/'--connect' requires an argument");
}

TEST(CommandLine, PositionalByPlaceOrByName) {
  const Command& protect = *find_command("protect");
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"web1", "--peer", "b", "--restart"},
        std::vector<std::string>{"--restart", "--peer=b", "web1"},
        std::vector<std::string>{"--peer", "b", "--domain", "web1", "--restart"}}) {
    const auto parsed = parse_command_options(protect, words);
    ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
    EXPECT_THAT(parsed.value(), UnorderedElementsAre(Pair("domain", "web1"), Pair("peer", "b"),
                                                     Pair("restart", "")));
  }
}

TEST(CommandLine, CommandMistakesInVirshWords) {
  EXPECT_EQ(complaint("dominfo", {}), "command 'dominfo' requires <domain> option");
  EXPECT_EQ(complaint("protect", {"web1"}), "command 'protect' requires --peer option");
  EXPECT_EQ(complaint("dominfo", {"web1", "extra"}), "unexpected data 'extra'");
  EXPECT_EQ(complaint("dominfo", {"--domain", "web1", "extra"}), "unexpected data 'extra'");
  EXPECT_EQ(complaint("dominfo", {"web1", "--bad"}),
            "command 'dominfo' doesn't support option --bad");
  EXPECT_EQ(complaint("dominfo", {"--bad=1", "web1"}),
            "command 'dominfo' doesn't support option --bad");
  EXPECT_EQ(complaint("list", {"-x"}), "command 'list' doesn't support option -x");
  EXPECT_EQ(complaint("protect", {"web1", "--peer"}), "expected syntax: --peer <string>");
  EXPECT_EQ(complaint("protect", {"web1", "--peer="}), "expected syntax: --peer <string>");
  EXPECT_EQ(complaint("protect", {"web1", "--peer", "--restart"}),
            "expected syntax: --peer <string>");
  EXPECT_EQ(complaint("list", {"--all", "--all"}), "option --all already seen");
  EXPECT_EQ(complaint("protect", {"x", "--peer", "b", "--peer=c"}), "option --peer already seen");
}

TEST(CommandLine, HelpSilencesComplaints) {
  const auto parsed = parse_command_options(*find_command("dominfo"), {"--bad", "--help"});
  ASSERT_TRUE(parsed.has_value());
  EXPECT_THAT(parsed.value(), ElementsAre(Pair("help", "")));
}

TEST(CommandLine, ValuesMayBeNumbersOrHaveDashesAfterEquals) {
  const auto parsed =
      parse_command_options(*find_command("wait"), {"x", "in-sync", "--timeout", "0.5"});
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  EXPECT_EQ(parsed.value().at("timeout"), "0.5");
  const auto dashed = parse_command_options(*find_command("protect"), {"x", "--peer=-b"});
  ASSERT_TRUE(dashed.has_value()) << dashed.error().message;
  EXPECT_EQ(dashed.value().at("peer"), "-b");
}

TEST(CommandTable, IsConsistent) {
  std::set<std::string> names;
  std::set<std::string> groups;
  for (const CommandGroup& group : command_groups())
    groups.insert(group.key);
  for (const Command& command : command_table()) {
    EXPECT_TRUE(names.insert(command.name).second) << command.name << " is there twice";
    EXPECT_TRUE(groups.contains(command.group)) << command.name;
    EXPECT_NE(command.run, nullptr);
    EXPECT_FALSE(command.summary.empty());
    std::set<std::string> options;
    for (const OptionSpec& option : command.options)
      EXPECT_TRUE(options.insert(option.name).second) << command.name << " --" << option.name;
    EXPECT_FALSE(options.contains("help")) << "--help belongs to every command";
  }
}

TEST(CommandTable, ManPageAndCompletionKnowEveryCommandAndOption) {
  const auto man = read_file(HAVM_SOURCE_DIR "/docs/man/havm.1.md");
  const auto completion = read_file(HAVM_SOURCE_DIR "/conf/completion/havm.bash");
  ASSERT_TRUE(man.has_value() && completion.has_value());
  for (const Command& command : command_table()) {
    EXPECT_THAT(man.value(), HasSubstr("**" + command.name + "**"));
    std::string line = "    " + command.name + ")";
    EXPECT_THAT(completion.value(), HasSubstr(line));
    const std::size_t at = completion.value().find(line);
    line = completion.value().substr(at, completion.value().find('\n', at) - at);
    for (const OptionSpec& option : command.options) {
      if (!option.positional) {
        EXPECT_THAT(line, HasSubstr("--" + option.name));
        EXPECT_THAT(man.value(), HasSubstr("--" + option.name));
      }
    }
  }
}

TEST(HelpText, OfACommandHasVirshForm) {
  EXPECT_EQ(command_help(*find_command("domstate")),
            "  NAME\n"
            "    domstate - domain state\n"
            "\n"
            "  SYNOPSIS\n"
            "    domstate <domain> [--json]\n"
            "\n"
            "  DESCRIPTION\n"
            "    Returns the state of a domain, on whichever node it runs.\n"
            "\n"
            "  OPTIONS\n"
            "    [--domain] <string>  domain name or uuid\n"
            "    --json           print JSON, for programs\n"
            "\n");
}

TEST(HelpText, ListsEveryCommandOnce) {
  const std::string text = commands_text("");
  for (const Command& command : command_table()) {
    const std::string row = "\n    " + command.name + " ";
    const std::size_t at = text.find(row);
    EXPECT_NE(at, std::string::npos) << command.name;
    EXPECT_EQ(text.find(row, at + 1), std::string::npos) << command.name;
  }
}

}  // namespace
}  // namespace havm
