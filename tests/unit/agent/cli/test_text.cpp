#include <clocale>

#include <gtest/gtest.h>

#include "agent/cli/json_fields.hpp"
#include "agent/cli/text_table.hpp"
#include "agent/cli/vm_text.hpp"

namespace havm {
namespace {

using nlohmann::json;

class Text : public testing::Test {
 protected:
  static void SetUpTestSuite() { std::setlocale(LC_CTYPE, "C.UTF-8"); }
  Terminal terminal;  // no terminal when tests run; colours are tested on a real one
};

TEST_F(Text, TableHasVirshLook) {
  TextTable table({"Name", "State"});
  table.add_row({"test", "running"});
  table.add_row({"a", ""});
  EXPECT_EQ(table.render(terminal, false),
            " Name   State\n"
            "-----------------\n"
            " test   running\n"
            " a      \n");
  EXPECT_EQ(table.render(terminal, true), " test   running\n a      \n");
}

TEST_F(Text, EmptyTableIsItsHeader) {
  const TextTable table({"Name", "State"});
  EXPECT_EQ(table.render(terminal, false), " Name   State\n---------------\n");
  EXPECT_EQ(table.render(terminal, true), "");
}

TEST_F(Text, ColumnsCountCharactersAndNotBytes) {
  TextTable table({"N", "S"});
  table.add_row({"ü", "x"});
  table.add_row({"日本", "x"});
  EXPECT_EQ(table.render(terminal, true), " ü      x\n 日本   x\n");
}

TEST_F(Text, ControlCharactersAreShownAndNotSent) {
  EXPECT_EQ(printable("a\x1B[31m\n\x7F"), "a\\x1B[31m\\x0A\\x7F");
  EXPECT_EQ(printable("\xC2\x9B"), "\\xC2\\x9B");
  EXPECT_EQ(printable("\xFFx\xC3"), "\\xFFx\\xC3");
  EXPECT_EQ(printable("ü日"), "ü日");
}

TEST_F(Text, KeysArePaddedToColumn16) {
  EXPECT_EQ(key_value_line("Name", "web1"), "Name:           web1\n");
  EXPECT_EQ(key_value_line("Security model", "x"), "Security model: x\n");
  EXPECT_EQ(key_value_line("A very long key", "x"), "A very long key: x\n");
}

TEST_F(Text, Bytes) {
  EXPECT_EQ(bytes_text(0), "0 B");
  EXPECT_EQ(bytes_text(1023), "1023 B");
  EXPECT_EQ(bytes_text(1536), "1.50 KiB");
  EXPECT_EQ(bytes_text(1073741824), "1.00 GiB");
}

TEST_F(Text, PercentIs100OnlyAtTheEnd) {
  json vm;
  vm["sync"] = {{"done_bytes", 999'999}, {"total_bytes", 1'000'000}};
  EXPECT_EQ(sync_percent(vm), 99);
  vm["sync"]["done_bytes"] = 1'000'000;
  EXPECT_EQ(sync_percent(vm), 100);
  vm["sync"]["total_bytes"] = 0;
  EXPECT_EQ(sync_percent(vm), std::nullopt);
  vm["sync"]["total_bytes"] = nullptr;
  EXPECT_EQ(sync_percent(vm), std::nullopt);
}

TEST_F(Text, ResyncInWords) {
  json vm;
  vm["protected"] = true;
  vm["sync"] = {{"state", "resyncing"},
                {"done_bytes", 512 << 20},
                {"total_bytes", 1 << 30},
                {"rate_bytes_per_s", 100 << 20}};
  EXPECT_EQ(sync_cell(vm).text, "resyncing 50 %");
  EXPECT_EQ(sync_detail(vm), "resyncing 50 % (512.00 MiB of 1.00 GiB, 100.00 MiB/s)");
  EXPECT_EQ(sync_progress(vm), "Synchronising: [ 50 %] 100.00 MiB/s");
  vm["sync"]["left_s"] = 300;
  vm["sync"]["limit_bytes_per_s"] = 110 << 20;
  vm["sync"]["copying"] = "running";
  EXPECT_EQ(sync_cell(vm).text, "resyncing 50 %");
  EXPECT_EQ(sync_detail(vm),
            "resyncing 50 % (512.00 MiB of 1.00 GiB, 100.00 MiB/s, 5 min left, at most 110.00 "
            "MiB/s for the guest's sake)");
  EXPECT_EQ(sync_progress(vm), "Synchronising: [ 50 %] 100.00 MiB/s, 5 min left");
  vm["sync"] = {{"state", "alone"}};
  EXPECT_EQ(sync_detail(vm), "alone");
  EXPECT_EQ(sync_progress(vm), "Synchronising: alone");
}

TEST_F(Text, AResyncThatWaitsSaysWhy) {
  json vm;
  vm["protected"] = true;
  vm["sync"] = {{"state", "resyncing"},   {"done_bytes", 512 << 20}, {"total_bytes", 1 << 30},
                {"rate_bytes_per_s", 0},  {"left_s", nullptr},       {"copying", "paused"},
                {"reason", "backup runs"}};
  EXPECT_EQ(sync_cell(vm).text, "paused 50 %");
  EXPECT_EQ(sync_detail(vm), "paused 50 % (512.00 MiB of 1.00 GiB): backup runs");
  EXPECT_EQ(sync_progress(vm), "Synchronising: [ 50 %] paused: backup runs");
  vm["sync"]["copying"] = "queued";
  vm["sync"]["reason"] = "VM db is before it";
  EXPECT_EQ(sync_cell(vm).text, "queued 50 %");
  vm["sync"]["state"] = "alone";
  EXPECT_EQ(sync_detail(vm), "alone");
  vm["sync"]["state"] = "in-sync";
  vm["sync"]["copying"] = "paused";
  EXPECT_EQ(sync_cell(vm).text, "in-sync");
  EXPECT_EQ(sync_detail(vm), "in-sync; the next resync is paused: VM db is before it");
}

TEST_F(Text, TimeLeft) {
  EXPECT_EQ(time_left_text(0), "0 s");
  EXPECT_EQ(time_left_text(119), "119 s");
  EXPECT_EQ(time_left_text(125), "2 min");
  EXPECT_EQ(time_left_text(12000), "3 h 20 min");
  EXPECT_EQ(time_left_text(190800), "2 d 5 h");
}

TEST_F(Text, MissingFieldsAreDashes) {
  EXPECT_EQ(text_at(json::object(), "x"), "-");
  EXPECT_EQ(text_at(json(1), "x"), "-");
  EXPECT_EQ(joined_at(json::parse(R"({"x": ["a", 1, "b"]})"), "x"), "a, b");
  EXPECT_EQ(joined_at(json::object(), "x"), "-");
  EXPECT_FALSE(true_at(json::parse(R"({"x": 1})"), "x"));
  EXPECT_TRUE(list_at(json::parse(R"({"x": 1})"), "x").empty());
}

}  // namespace
}  // namespace havm
