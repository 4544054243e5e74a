// Heartbeat datagrams (docs/protocol/peer.md) and what they do to the judge of a node's life.
//
// Input: datagrams, each with its length in front, and ticks between them.
#include <algorithm>

#include "agent/liveness/heartbeat_codec.hpp"
#include "agent/liveness/peer_liveness_core.hpp"
#include "tests/fuzz/support/fuzz_target.hpp"

namespace havm::fuzz {
namespace {

constexpr std::size_t links = 2;

LivenessConfig config() {
  using std::chrono::milliseconds;
  return {milliseconds(250), milliseconds(2000), milliseconds(30000), links};
}

void check_codec(const Heartbeat& beat) {
  FUZZ_CHECK(!beat.boot_id.empty(), "a boot id is not empty");
  const std::string text = encode_heartbeat(beat);
  FUZZ_CHECK(text.find('\n') == std::string::npos, "a datagram is one line");
  const auto again = decode_heartbeat(text);
  // Escapes may make it longer than what came.
  FUZZ_CHECK(text.size() > heartbeat_bytes_max || (again && *again == beat),
             "decode(encode(x)) == x");
}

// The rules of peer.md, told again in the plainest way.
struct Model {
  std::string boot_id;
  std::uint64_t counter = 0;

  bool sign_of_life(const Heartbeat& beat) {
    const bool fresh = beat.boot_id != boot_id || beat.counter > counter;
    if (fresh) {
      boot_id = beat.boot_id;
      counter = beat.counter;
    }
    return fresh;
  }
};

}  // namespace

void one_input(Bytes input) {
  Input in(input);
  TimePoint now = from_ns(1'000'000'000);
  PeerLiveness liveness(config(), now);
  Model model;
  TimePoint last_sign = now;
  while (!in.empty()) {
    const std::uint8_t what = in.byte();
    now += std::chrono::milliseconds(in.number(2) % 4000);
    if ((what & 1U) == 0) {
      const PeerState before = liveness.state();
      const LivenessChange change = liveness.tick(now);
      FUZZ_CHECK((change == LivenessChange::silent) ==
                     (before != PeerState::silent && liveness.state() == PeerState::silent),
                 "silence is told when it begins");
      if (change == LivenessChange::silent)
        FUZZ_CHECK(now - last_sign >= config().timeout, "silence lasts a timeout at least");
      continue;
    }
    const auto beat = decode_heartbeat(text_of(in.bytes(in.number(2) % 1500)));
    if (!beat) continue;
    check_codec(*beat);
    const std::size_t link = (what >> 1U) % links;
    const LivenessChange change = liveness.heartbeat(link, beat->boot_id, beat->counter, now);
    const bool was_known = !model.boot_id.empty() && model.boot_id != beat->boot_id;
    if (model.sign_of_life(*beat)) {
      last_sign = now;
      FUZZ_CHECK(liveness.state() == PeerState::up, "a sign of life makes it heard");
      FUZZ_CHECK((change == LivenessChange::rebooted) == was_known, "a new boot id is a reboot");
      FUZZ_CHECK(liveness.link_silent(link, now) == Duration{0}, "the link is heard");
    } else {
      FUZZ_CHECK(change == LivenessChange::none, "a repeated datagram says nothing");
    }
    FUZZ_CHECK(liveness.boot_id() == model.boot_id, "the boot id is that of the last sign of life");
  }
}

std::vector<std::string> seeds() {
  const auto beat = [](const std::string& text) {
    return packed(1, 1) + packed(250, 2) + packed(text.size(), 2) + text;
  };
  const auto tick = [](std::size_t ms) { return packed(0, 1) + packed(ms, 2); };
  const std::string first = encode_heartbeat({"demo", "a", "boot-1", 123});
  const std::string second = encode_heartbeat({"demo", "a", "boot-1", 124});
  const std::string other = encode_heartbeat({"demo", "a", "boot-2", 1});
  return {beat(first) + tick(250) + beat(second) + beat(first) + tick(250) + beat(other),
          tick(250) + beat(first) + tick(900) + tick(900) + tick(900) + beat(second),
          beat(R"({"cluster":"demo","node":"a","boot":"x","counter":-1})"),
          beat(R"({"cluster":"demo","node":"a","boot":"x","counter":1e300})")};
}

}  // namespace havm::fuzz
