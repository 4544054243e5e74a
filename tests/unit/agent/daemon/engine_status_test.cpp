// What the agent understands of docs/protocol/engine-control.md, status.
#include <gtest/gtest.h>

#include "agent/daemon/engine_link.hpp"

namespace havm {
namespace {

using std::chrono::milliseconds;
const TimePoint now = TimePoint(std::chrono::seconds(1000));

nlohmann::json status() {
  return nlohmann::json::parse(R"({"role":"owner","uptime_ms":52000,
    "record":{"epoch":4,"promised_epoch":5,"state":"uptodate","in_sync":"both",
              "grow_mark":true,"suspect":false},
    "session":{"state":"synced"},"grant":{"given_age_ms":100,"received_sent_ns":1},
    "disks":[{"name":"vda","error":null}]})");
}

TEST(EngineStatus, tells_of_a_slow_partner) {
  auto s = status();
  EXPECT_FALSE(parse_engine_status(s, now).value().partner_slow);
  s["session"]["slow"] = nullptr;
  EXPECT_TRUE(parse_engine_status(s, now));
  s["session"]["slow"] = {{"is_slow", true}, {"reason", "2 s"}, {"backoff_ms", 0}};
  EXPECT_TRUE(parse_engine_status(s, now).value().partner_slow);
  EXPECT_FALSE(parse_engine_status(s, now).value().partner_left);
  EXPECT_EQ("2 s", parse_engine_status(s, now).value().slow_reason);
  s["session"]["slow"] = {{"is_slow", false}, {"reason", nullptr}, {"backoff_ms", 5}};
  EXPECT_FALSE(parse_engine_status(s, now).value().partner_slow);
  EXPECT_TRUE(parse_engine_status(s, now).value().partner_left);
  s["session"]["slow"] = 5;
  EXPECT_FALSE(parse_engine_status(s, now));
}

TEST(EngineStatus, is_read_whole) {
  auto v = parse_engine_status(status(), now);
  ASSERT_TRUE(v);
  EXPECT_EQ(EngineRole::owner, v.value().role);
  EXPECT_EQ(Epoch(4), v.value().epoch);
  EXPECT_EQ(Epoch(5), v.value().promised_epoch);
  EXPECT_EQ(ReplicaState::uptodate, v.value().state);
  EXPECT_EQ(RecordedSet::both, v.value().in_sync);
  EXPECT_TRUE(v.value().grow_mark);
  EXPECT_EQ(SessionState::synced, v.value().session);
  EXPECT_FALSE(v.value().failed);
  EXPECT_EQ(now - milliseconds(100), v.value().granted_at);
}

TEST(EngineStatus, a_grant_never_given_counts_from_the_start_of_the_engine) {
  auto s = status();
  s["grant"]["given_age_ms"] = nullptr;
  EXPECT_EQ(now - milliseconds(52000), parse_engine_status(s, now).value().granted_at);
}

TEST(EngineStatus, a_failed_disk_is_seen) {
  auto s = status();
  s["disks"][0]["error"] = "Input/output error";
  EXPECT_TRUE(parse_engine_status(s, now).value().failed);
}

TEST(EngineStatus, an_unknown_word_or_a_missing_field_is_refused) {
  for (const char* pointer : {"/role", "/record/state", "/record/in_sync", "/session/state"}) {
    auto s = status();
    s[nlohmann::json::json_pointer(pointer)] = "perhaps";
    EXPECT_FALSE(parse_engine_status(s, now)) << pointer;
  }
  for (const char* key : {"role", "record", "session", "grant", "disks", "uptime_ms"}) {
    auto s = status();
    s.erase(key);
    EXPECT_FALSE(parse_engine_status(s, now)) << key;
  }
}

}  // namespace
}  // namespace havm
