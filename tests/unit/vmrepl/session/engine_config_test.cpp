#include "vmrepl/session/engine_config.hpp"

#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace havm {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

Json good() {
  return Json::parse(R"({"version":1,"vm":"web1","vm_id":"11111111-2222-4333-8444-555555555555",
    "node":"a","partner":"b","disks":[{"name":"vda","path":"/v/vda","size":1048576,
    "nbd_socket":"/run/havm/vms/web1/vda.nbd"}],"record":"/var/lib/havm/vms/web1/record",
    "control_socket":"/run/havm/vms/web1/control.sock","guard_socket":"/run/havm/guard.sock",
    "listen":[{"address":"10.10.1.1","port":7700},{"address":"fd00::1","port":7700}],
    "partner_addresses":[{"address":"10.10.1.2","port":7700}],
    "timing":{"keepalive_ms":250,"session_timeout_ms":2000,"lease_ms":6000},
    "slow_partner":{"limit_ms":3000,"patience_ms":4000,"probation_ms":5000,"backoff_ms":6000},
    "nbd_socket_mode":"0660",
    "tls":{"ca":"/t/ca.pem","certificate":"/t/node.pem","key":"/t/node.key"}})");
}

TEST(EngineConfigTest, EveryFieldIsRead) {
  const auto parsed = parse_engine_config(good().dump());
  ASSERT_TRUE(parsed) << parsed.error().message;
  const EngineConfig& c = parsed.value();
  EXPECT_EQ(c.vm, "web1");
  EXPECT_EQ(c.partner, "b");
  ASSERT_EQ(c.disks.size(), 1u);
  EXPECT_EQ(c.disks[0].size_bytes, 1048576u);
  EXPECT_EQ(c.listen[1].address, "fd00::1");
  EXPECT_EQ(c.partner_addresses[0].port, 7700);
  EXPECT_EQ(c.keepalive, std::chrono::milliseconds(250));
  EXPECT_EQ(c.session_timeout, std::chrono::milliseconds(2000));
  EXPECT_EQ(c.lease, std::chrono::milliseconds(6000));
  using std::chrono::milliseconds;
  EXPECT_EQ(c.slow_partner, (SlowPartnerLimits{milliseconds(3000), milliseconds(4000),
                                               milliseconds(5000), milliseconds(6000)}));
  EXPECT_EQ(c.nbd_socket_mode, 0660u);
  EXPECT_EQ(c.tls, (TlsFiles{"/t/ca.pem", "/t/node.pem", "/t/node.key"}));
}

TEST(EngineConfigTest, TimingGuardAndModeHaveDefaults) {
  Json j = good();
  j.erase("timing");
  j.erase("guard_socket");
  j.erase("nbd_socket_mode");
  const auto parsed = parse_engine_config(j.dump());
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed.value().keepalive, std::chrono::milliseconds(250));
  EXPECT_EQ(parsed.value().guard_socket, "");
  EXPECT_EQ(parsed.value().nbd_socket_mode, 0600u);
}

TEST(EngineConfigTest, SlowPartnersAreLeftUnlessThatIsSwitchedOff) {
  Json j = good();
  j.erase("slow_partner");
  EXPECT_EQ(parse_engine_config(j.dump()).value().slow_partner, SlowPartnerLimits{});
  j["slow_partner"] = {{"limit_ms", 0}};
  EXPECT_EQ(parse_engine_config(j.dump()).value().slow_partner.limit, std::chrono::milliseconds(0));
}

TEST(EngineConfigTest, TheGuestsLatencyDuringAResync) {
  Json j = good();
  EXPECT_FALSE(parse_engine_config(j.dump()).value().guest_p99);
  j["resync"]["guest_p99_ms"] = nullptr;
  EXPECT_FALSE(parse_engine_config(j.dump()).value().guest_p99);
  j["resync"]["guest_p99_ms"] = 10;
  EXPECT_EQ(parse_engine_config(j.dump()).value().guest_p99, std::chrono::milliseconds(10));
  for (const Json& bad : {Json(0), Json(60001), Json("10"), Json(-1)}) {
    j["resync"]["guest_p99_ms"] = bad;
    EXPECT_FALSE(parse_engine_config(j.dump())) << bad;
  }
  j["resync"] = Json::object({{"p99", 1}});
  EXPECT_THAT(parse_engine_config(j.dump()).error().message, HasSubstr("unknown key 'p99'"));
}

TEST(EngineConfigTest, PlainTcpIsNullOrNothing) {
  Json j = good();
  j["tls"] = nullptr;
  ASSERT_TRUE(parse_engine_config(j.dump()));
  EXPECT_FALSE(parse_engine_config(j.dump()).value().tls);
  j.erase("tls");
  EXPECT_FALSE(parse_engine_config(j.dump()).value().tls);
}

TEST(EngineConfigTest, EachMistakeIsNamed) {
  struct Case {
    const char* about;
    std::function<void(Json&)> spoil;
  };
  const std::vector<Case> cases{
      {"colour", [](Json& j) { j["colour"] = 1; }},
      {"colour", [](Json& j) { j["disks"][0]["colour"] = 1; }},
      {"colour", [](Json& j) { j["timing"]["colour"] = 1; }},
      {"colour", [](Json& j) { j["listen"][0]["colour"] = 1; }},
      {"version 2", [](Json& j) { j["version"] = 2; }},
      {"vm", [](Json& j) { j.erase("vm"); }},
      {"space", [](Json& j) { j["vm"] = "a b"; }},
      {"the same", [](Json& j) { j["partner"] = "a"; }},
      {"twice", [](Json& j) { j["disks"].push_back(j["disks"][0]); }},
      {"multiple of 512", [](Json& j) { j["disks"][0]["size"] = 1000; }},
      {"multiple of 512", [](Json& j) { j["disks"][0]["size"] = 0; }},
      {"size", [](Json& j) { j["disks"][0]["size"] = -512; }},
      {"shares a path", [](Json& j) { j["disks"][0]["nbd_socket"] = j["disks"][0]["path"]; }},
      {"port 0", [](Json& j) { j["listen"][0]["port"] = 0; }},
      {"at least one", [](Json& j) { j["partner_addresses"] = Json::array(); }},
      {"keepalive_ms", [](Json& j) { j["timing"]["keepalive_ms"] = 1; }},
      {"session_timeout_ms", [](Json& j) { j["timing"]["session_timeout_ms"] = 300; }},
      {"lease_ms", [](Json& j) { j["timing"]["lease_ms"] = 1; }},
      {"colour", [](Json& j) { j["slow_partner"]["colour"] = 1; }},
      {"slow_partner", [](Json& j) { j["slow_partner"] = 5; }},
      {"limit_ms", [](Json& j) { j["slow_partner"]["limit_ms"] = 49; }},
      {"limit_ms", [](Json& j) { j["slow_partner"]["limit_ms"] = "2s"; }},
      {"patience_ms", [](Json& j) { j["slow_partner"]["patience_ms"] = 60'001; }},
      {"probation_ms", [](Json& j) { j["slow_partner"]["probation_ms"] = 3'600'001; }},
      {"backoff_ms", [](Json& j) { j["slow_partner"]["backoff_ms"] = 0; }},
      {"octal", [](Json& j) { j["nbd_socket_mode"] = 600; }},
      {"colour", [](Json& j) { j["tls"]["colour"] = 1; }},
      {"certificate", [](Json& j) { j["tls"].erase("certificate"); }},
      {"key", [](Json& j) { j["tls"]["key"] = ""; }},
      {"tls", [](Json& j) { j["tls"] = true; }},
      {"ca", [](Json& j) { j["tls"] = Json::object(); }},
      {"octal", [](Json& j) { j["nbd_socket_mode"] = "0899"; }},
  };
  for (const Case& c : cases) {
    Json j = good();
    c.spoil(j);
    const auto parsed = parse_engine_config(j.dump());
    ASSERT_FALSE(parsed) << j.dump();
    EXPECT_THAT(parsed.error().message, HasSubstr(c.about));
  }
}

TEST(EngineConfigTest, WhatIsNoJsonObjectIsRefused) {
  EXPECT_FALSE(parse_engine_config(""));
  EXPECT_FALSE(parse_engine_config("[]"));
  EXPECT_FALSE(parse_engine_config(good().dump().substr(1)));
}

}  // namespace
}  // namespace havm
