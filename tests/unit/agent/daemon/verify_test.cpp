// What a node remembers of verifies, and which is due next.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "agent/daemon/verify_record.hpp"
#include "agent/daemon/verify_schedule.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr std::int64_t now = 1'738'315'800'123;
constexpr std::int64_t hour = 3'600'000;

json ended(const std::string& id, const std::string& result, std::uint64_t mismatch = 0,
           std::uint64_t repaired = 0) {
  return {{"id", id},
          {"running", false},
          {"finished_age_ms", 1000},
          {"result", result},
          {"reason", "because"},
          {"mismatch_bytes", mismatch},
          {"repaired_bytes", repaired},
          {"mismatches", json::array()}};
}

VerifyRecord after(const VerifyRecord& before, const json& verify) {
  const auto record = record_after(before, verify, "a", now);
  EXPECT_TRUE(record) << verify.dump();
  return record.value_or(before);
}

// ---- the record --------------------------------------------------------------------------------

TEST(VerifyRecordTest, AnEndIsTakenOnce) {
  const VerifyRecord first = after({}, ended("1", "clean"));
  EXPECT_EQ(first.id, "1");
  EXPECT_EQ(first.node, "a");
  EXPECT_EQ(first.ended_ms, now - 1000);
  EXPECT_EQ(first.completed_ms, now - 1000);
  EXPECT_FALSE(record_after(first, ended("1", "clean"), "a", now + hour));
}

TEST(VerifyRecordTest, WhatRunsOrIsMalformedTellsNothing) {
  json running = ended("1", "clean");
  running["running"] = true;
  for (const json& told : {json(), json::array(), json::object(), running})
    EXPECT_FALSE(record_after({}, told, "a", now)) << told.dump();
  const json whole = ended("1", "clean");
  for (const auto& [key, value] : whole.items()) {
    json less = whole;
    less.erase(key);
    EXPECT_FALSE(record_after({}, less, "a", now)) << key;
  }
}

TEST(VerifyRecordTest, ADifferenceStaysUntilACompleteVerifyFindsLess) {
  const VerifyRecord found = after({}, ended("1", "mismatch", 65536));
  EXPECT_EQ(found.unresolved_bytes, 65536U);
  for (const char* early : {"cancelled", "interrupted"}) {
    const VerifyRecord broken = after(found, ended("2", early));
    EXPECT_EQ(broken.unresolved_bytes, 65536U) << early;
    EXPECT_EQ(broken.completed_ms, found.completed_ms) << "it is due as before";
  }
  EXPECT_EQ(after(found, ended("2", "clean")).unresolved_bytes, 0U);
  EXPECT_EQ(after(found, ended("2", "repaired", 65536, 65536)).unresolved_bytes, 0U);
  EXPECT_EQ(after(found, ended("2", "mismatch", 131072, 65536)).unresolved_bytes, 65536U);
}

TEST(VerifyRecordTest, WhatWasRepairedBeforeABreakIsNotTakenAsMended) {
  EXPECT_EQ(after({}, ended("1", "interrupted", 65536, 65536)).unresolved_bytes, 65536U);
}

TEST(VerifyRecordTest, GoesRoundThroughItsFile) {
  std::string path = testing::TempDir() + "havm-verify-XXXXXX";
  const int fd = ::mkstemp(path.data());
  ASSERT_GE(fd, 0);
  ::close(fd);
  json found = ended("7", "mismatch", 65536);
  found["mismatches"] = json::parse(R"([{"disk": "vda", "offset": 1, "length": 2}])");
  const VerifyRecord record = after({}, found);
  ASSERT_TRUE(save_verify_record(path, record));
  EXPECT_EQ(load_verify_record(path), record);
  ASSERT_TRUE(replace_file(path, "{\"id\": 7}"));
  EXPECT_EQ(load_verify_record(path), VerifyRecord{});
  ::unlink(path.c_str());
  EXPECT_EQ(load_verify_record(path), VerifyRecord{});
}

TEST(VerifyRecordTest, OnlyALaterRunOfTheOtherNodeIsTakenOver) {
  const VerifyRecord own = after({}, ended("1", "clean"));
  VerifyRecord other = own;
  EXPECT_FALSE(is_later(other, own));
  other.id = "2";
  EXPECT_FALSE(is_later(other, own)) << "not later";
  ++other.ended_ms;
  EXPECT_TRUE(is_later(other, own));
  EXPECT_FALSE(is_later(own, other));
  EXPECT_FALSE(is_later(VerifyRecord{}, own));
}

TEST(VerifyRecordTest, TimesAndSentencesForPeople) {
  EXPECT_EQ(wall_time_text(now), "2025-01-31T09:30:00.123Z");
  EXPECT_THAT(sentence_of(after({}, ended("1", "mismatch", 65536, 4096))),
              HasSubstr("mismatch, because; 65536 bytes differed, 4096 were repaired"));
}

// ---- the schedule ------------------------------------------------------------------------------

VerifyCandidate candidate(const std::string& vm, std::int64_t completed_ms) {
  VerifyCandidate c;
  c.vm = vm;
  c.every = std::chrono::hours(24);
  c.live = true;
  c.completed_ms = completed_ms;
  return c;
}

TEST(VerifyScheduleTest, DueIsWhatWaitedForThePolicysTime) {
  EXPECT_EQ(due_verify({candidate("web1", now - 24 * hour)}, now), "web1");
  EXPECT_EQ(due_verify({candidate("web1", now - 24 * hour + 1)}, now), std::nullopt);
  EXPECT_EQ(due_verify({candidate("web1", 0)}, now), "web1") << "never verified";
  EXPECT_EQ(due_verify({candidate("web1", now + hour)}, now), "web1") << "a clock was set back";
  EXPECT_EQ(due_verify({}, now), std::nullopt);
}

TEST(VerifyScheduleTest, NeverWithoutAPolicyOrALiveSession) {
  VerifyCandidate c = candidate("web1", 0);
  c.every.reset();
  EXPECT_EQ(due_verify({c}, now), std::nullopt);
  c = candidate("web1", 0);
  c.live = false;
  EXPECT_EQ(due_verify({c}, now), std::nullopt);
}

TEST(VerifyScheduleTest, OneAtATimeTheLongestWaitingFirst) {
  std::vector<VerifyCandidate> all{candidate("a", now - 25 * hour), candidate("b", now - 99 * hour),
                                   candidate("c", now - 26 * hour)};
  EXPECT_EQ(due_verify(all, now), "b");
  VerifyCandidate asked = candidate("d", now - hour);
  asked.every.reset();
  asked.running = true;
  all.push_back(asked);
  EXPECT_EQ(due_verify(all, now), std::nullopt);
}

TEST(VerifyScheduleTest, AnAttemptThatFailedIsNotRepeatedAtOnceAndLetsOthersGo) {
  const std::int64_t delay = std::chrono::milliseconds(verify_retry_delay).count();
  VerifyCandidate failing = candidate("a", 0);
  failing.attempted_ms = now - delay + 1;
  EXPECT_EQ(due_verify({failing}, now), std::nullopt);
  EXPECT_EQ(due_verify({failing, candidate("b", now - 25 * hour)}, now), "b");
  failing.attempted_ms = now - delay;
  EXPECT_EQ(due_verify({failing}, now), "a");
}

}  // namespace
}  // namespace havm
