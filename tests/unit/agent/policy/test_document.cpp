#include <gtest/gtest.h>

#include "agent/policy/duration_text.hpp"
#include "agent/policy/json_document.hpp"
#include "agent/policy/names.hpp"
#include "agent/policy/nearest_word.hpp"
#include "tests/unit/agent/policy/finding_matchers.hpp"

namespace havm {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(Document, SyntaxErrorNamesLineAndColumn) {
  Findings findings;
  EXPECT_TRUE(parse_document("{\n  \"a\": 1,\n  b\n}", findings).is_null());
  ASSERT_EQ(findings.list().size(), 1U);
  EXPECT_THAT(findings.list()[0].message, HasSubstr("not valid JSON at line 3, column 3"));
}

TEST(Document, EmptyTextIsAFinding) {
  Findings findings;
  parse_document("", findings);
  EXPECT_THAT(findings.list(), ElementsAre(finding("", "not valid JSON at line 1")));
}

TEST(Document, DuplicateKeysAreFoundAtTheirPlace) {
  Findings findings;
  parse_document(R"({"a": [{"x": 1}, {"b/c": 1, "b/c": 2}], "a": 3})", findings);
  EXPECT_THAT(findings.list(),
              ElementsAre(finding("/a/1/b~1c", "given twice"), finding("/a", "given twice")));
}

TEST(Document, SameKeyInTwoObjectsIsNoDuplicate) {
  Findings findings;
  parse_document(R"([{"a": {"a": 1}}, {"a": 1}])", findings);
  EXPECT_TRUE(findings.empty());
}

TEST(Document, DepthAndSizeAreBounded) {
  Findings findings;
  EXPECT_TRUE(parse_document(std::string(500'000, '['), findings).is_null());
  EXPECT_FALSE(findings.empty());
  Findings deep;
  parse_document(std::string(40, '[') + std::string(40, ']'), deep);
  EXPECT_THAT(deep.list(), ElementsAre(finding("", "nested more than 32")));
  Findings large;
  parse_document("\"" + std::string(1'100'000, 'x') + "\"", large);
  EXPECT_THAT(large.list(), ElementsAre(finding("", "more than the allowed 1 MiB")));
}

TEST(Document, ANumberBeyondEveryRangeIsAFinding) {
  Findings findings;
  EXPECT_TRUE(parse_document("{\"lease\": 1e999}", findings).is_null());
  EXPECT_THAT(findings.list(), ElementsAre(finding("", "a number in the document is too large")));
}

TEST(Document, InvalidUtf8IsRefused) {
  Findings findings;
  parse_document("{\"a\": \"\xff\"}", findings);
  EXPECT_FALSE(findings.empty());
}

TEST(Document, ShownCutsLongTextBetweenCharacters) {
  const std::string text = shown(std::string(59, 'x') + "ää" + std::string(50, 'y'));
  EXPECT_EQ(text, "\"" + std::string(59, 'x') + "…");
  EXPECT_EQ(shown(nlohmann::json::array({1})), "a list of 1 item");
  EXPECT_EQ(shown(nlohmann::json::object()), "an object with 0 keys");
}

TEST(Duration, NeedsAUnit) {
  EXPECT_EQ(parse_duration("250ms"), milliseconds(250));
  EXPECT_EQ(parse_duration("6s"), milliseconds(6000));
  EXPECT_EQ(parse_duration("2min"), milliseconds(120'000));
  EXPECT_EQ(parse_duration("12h"), std::chrono::hours(12));
  EXPECT_EQ(parse_duration("7d"), std::chrono::hours(7 * 24));
  EXPECT_EQ(parse_duration("999999999d"), std::chrono::hours(24LL * 999'999'999));
  for (const char* bad : {"", "6", "s", "6 s", "-6s", "6w", "1.5s", "6S", "6s ", "9999999999s"})
    EXPECT_EQ(parse_duration(bad), std::nullopt) << bad;
}

TEST(Duration, TextReadsBack) {
  for (const long ms : {0L, 1L, 250L, 1500L, 6000L, 60'000L, 90'000L, 599'999L})
    EXPECT_EQ(parse_duration(duration_text(milliseconds(ms))), milliseconds(ms));
  EXPECT_EQ(duration_text(milliseconds(6000)), "6s");
  EXPECT_EQ(duration_text(milliseconds(1500)), "1500ms");
  EXPECT_EQ(duration_text(milliseconds(60'000)), "1min");
}

TEST(NearestWord, FindsTypingErrorsOnly) {
  const std::vector<std::string> keys{"lease", "boot_grace", "peer_timeout"};
  EXPECT_EQ(nearest_word("leese", keys), "lease");
  EXPECT_EQ(nearest_word("laese", keys), "lease");
  EXPECT_EQ(nearest_word("Boot-Grace", keys), "boot_grace");
  EXPECT_EQ(nearest_word("peertimeout", keys), "peer_timeout");
  EXPECT_EQ(nearest_word("ls", keys), "");
  EXPECT_EQ(nearest_word("colour", keys), "");
  EXPECT_EQ(nearest_word(std::string(10'000, 'l'), keys), "");
}

TEST(Names, OfVms) {
  for (const char* good : {"web1", "Web.1_x", "ä", "-x", "a"}) {
    EXPECT_EQ(vm_name_problem(good), std::nullopt) << good;
  }
  EXPECT_EQ(vm_name_problem(std::string(60, 'a')), std::nullopt);
  EXPECT_THAT(*vm_name_problem(std::string(61, 'a')), HasSubstr("61 bytes"));
  EXPECT_THAT(*vm_name_problem("my vm"), HasSubstr("contains a space"));
  EXPECT_THAT(*vm_name_problem("a/b"), HasSubstr("contains '/'"));
  EXPECT_THAT(*vm_name_problem("a\nb"), HasSubstr("control character"));
  EXPECT_THAT(*vm_name_problem("a\x7f"), HasSubstr("control character"));
  EXPECT_THAT(*vm_name_problem("\xc3"), HasSubstr("UTF-8"));
  EXPECT_THAT(*vm_name_problem(""), HasSubstr("empty"));
  EXPECT_THAT(*vm_name_problem(".."), HasSubstr("folder"));
}

TEST(Names, OfNodes) {
  EXPECT_EQ(node_name_problem("a"), std::nullopt);
  EXPECT_EQ(node_name_problem("kvm-1"), std::nullopt);
  EXPECT_EQ(node_name_problem(std::string(63, 'a')), std::nullopt);
  for (const std::string bad : {"", "A", "-a", "a.b", "a b", "ä"})
    EXPECT_NE(node_name_problem(bad), std::nullopt) << bad;
  EXPECT_NE(node_name_problem(std::string(64, 'a')), std::nullopt);
}

}  // namespace
}  // namespace havm
