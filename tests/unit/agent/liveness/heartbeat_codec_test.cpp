// Heartbeat datagrams: anybody can send one to the port.
#include "agent/liveness/heartbeat_codec.hpp"

#include <gtest/gtest.h>

namespace havm {
namespace {

const Heartbeat sample{"demo", "a", "11111111-2222-3333-4444-555555555555", UINT64_MAX};

TEST(HeartbeatCodec, GoesRound) {
  EXPECT_EQ(decode_heartbeat(encode_heartbeat(sample)), sample);
  // As docs/protocol/peer.md writes it, and with a field of a later version.
  const Heartbeat documented{"demo", "a", "c0f5", 123456789};
  EXPECT_EQ(
      decode_heartbeat(
          R"({"cluster": "demo", "node": "a", "boot": "c0f5", "counter": 123456789, "x": []})"),
      documented);
}

TEST(HeartbeatCodec, EveryTruncationIsNone) {
  const std::string text = encode_heartbeat(sample);
  for (std::size_t size = 0; size < text.size(); ++size)
    EXPECT_EQ(decode_heartbeat(std::string_view(text).substr(0, size)), std::nullopt) << size;
}

// A negative or broken counter must not become a huge one: every honest heartbeat after it would
// look old.
TEST(HeartbeatCodec, ACounterIsAWholeNumber) {
  for (const char* counter : {"-1", "1.5", "1e300", "true", "null", "\"7\"", "[7]", "1e3"})
    EXPECT_EQ(
        decode_heartbeat(std::string(R"({"cluster":"demo","node":"a","boot":"x","counter":)") +
                         counter + "}"),
        std::nullopt)
        << counter;
}

TEST(HeartbeatCodec, EveryFieldIsNeeded) {
  for (const char* text :
       {R"({"node":"a","boot":"x","counter":1})", R"({"cluster":"demo","boot":"x","counter":1})",
        R"({"cluster":"demo","node":"a","counter":1})",
        R"({"cluster":"demo","node":"a","boot":"x"})",
        R"({"cluster":"demo","node":"a","boot":"","counter":1})",
        R"({"cluster":7,"node":"a","boot":"x","counter":1})",
        R"({"cluster":"demo","node":null,"boot":"x","counter":1})",
        R"({"cluster":"demo","node":"a","boot":["x"],"counter":1})", "[]", "", "x"})
    EXPECT_EQ(decode_heartbeat(text), std::nullopt) << text;
}

TEST(HeartbeatCodec, WhatIsTooLongIsNone) {
  Heartbeat fitting = sample;
  fitting.cluster.append(heartbeat_bytes_max - encode_heartbeat(sample).size(), 'x');
  EXPECT_EQ(decode_heartbeat(encode_heartbeat(fitting)), fitting);
  fitting.cluster += 'x';
  EXPECT_EQ(decode_heartbeat(encode_heartbeat(fitting)), std::nullopt);
}

}  // namespace
}  // namespace havm
