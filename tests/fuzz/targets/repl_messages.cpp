// The JSON payloads of replication frames (docs/protocol/replication.md), and what is answered to
// them.
//
// Input: which message, a number that stretches texts beyond what a fuzzer would write out, the
// JSON.
#include "vmrepl/wire/repl_messages.hpp"

#include <utility>

#include "tests/fuzz/support/fuzz_target.hpp"
#include "vmrepl/session/hello_verdict.hpp"
#include "vmrepl/wire/frame_codec.hpp"

namespace havm::fuzz {
namespace {

template <class Message>
void check_round_trip(const Message& message, Result<Message> (*decode)(std::string_view)) {
  const std::string text = encode(message);
  const Result<Message> again = decode(text);
  FUZZ_CHECK(again.has_value(), "what is encoded can be decoded");
  FUZZ_CHECK(again.value() == message, "decode(encode(x)) == x");
  FUZZ_CHECK(encode(again.value()) == text, "one meaning has one form");
}

bool fits(const std::string& payload) {
  return payload.size() <= json_payload_bytes_max;
}

// The longest text of this kind that a frame of the partner can bring.
std::string stretched(std::string text, std::size_t by) {
  if (!text.empty() && by != 0) text.append(by, text.back());
  return text;
}

HelloContext context() {
  HelloContext self;
  self.vm = "web1";
  self.vm_id = "f1b2c3d4-0000-4000-8000-000000000001";
  self.partner = "a";
  self.disks = {{"vda", 1U << 20}};
  self.lease = std::chrono::milliseconds(6000);
  return self;
}

// Whatever the owner says, the answer must fit into a frame, and say something.
void check_answer(Hello hello, std::size_t stretch) {
  hello.vm = stretched(std::move(hello.vm), stretch);
  if (!fits(encode(hello))) return;  // no frame can have brought it
  Record record;
  record.epoch = Epoch(3);
  record.promised_epoch = Epoch(4);
  record.in_sync = InSync::both;
  for (const bool is_owner : {false, true}) {
    const auto refusal = judge_hello(context(), record, Epoch(4), is_owner, hello);
    FUZZ_CHECK(refusal || !is_owner, "an owner accepts nobody");
    FUZZ_CHECK(refusal || (hello.epoch >= Epoch(4) && hello.disks == context().disks),
               "only a hello that fits is accepted");
    if (!refusal) continue;
    FUZZ_CHECK(!refusal->empty(), "a refusal has a reason");
    HelloRefused answer;
    answer.reason = *refusal;
    FUZZ_CHECK(fits(encode(answer)), "a refusal fits into a frame");
  }
}

// The driver tells the other side why it ends a session, also when that is what the partner said.
void check_echo(const std::string& reason, std::size_t stretch) {
  Bye said;
  said.reason = stretched(reason, stretch);
  if (!fits(encode(said))) return;
  Bye echo;
  echo.reason = "the partner ended the session: " + said.reason;
  FUZZ_CHECK(fits(encode(echo)), "a bye that quotes a bye fits into a frame");
}

}  // namespace

void one_input(Bytes input) {
  Input in(input);
  const std::size_t kind = in.below(5);
  const std::size_t stretch = in.number(2);
  const std::string_view json = text_of(in.rest());
  if (kind == 0) {
    const auto message = decode_hello(json);
    if (!message) return;
    FUZZ_CHECK(message.value().disks.size() <= hello_disks_max, "the number of disks is bounded");
    FUZZ_CHECK(message.value().lease.count() >= 0, "a lease is not negative");
    check_round_trip(message.value(), decode_hello);
    check_answer(message.value(), stretch);
  } else if (kind == 1) {
    if (const auto message = decode_hello_ok(json))
      check_round_trip(message.value(), decode_hello_ok);
  } else if (kind == 2) {
    const auto message = decode_hello_refused(json);
    if (!message) return;
    check_round_trip(message.value(), decode_hello_refused);
    check_echo(message.value().reason, stretch);
  } else if (kind == 3) {
    if (const auto message = decode_epoch_message(json))
      check_round_trip(message.value(), decode_epoch_message);
  } else {
    const auto message = decode_bye(json);
    if (!message) return;
    check_round_trip(message.value(), decode_bye);
    check_echo(message.value().reason, stretch);
  }
}

std::vector<std::string> seeds() {
  Hello hello;
  hello.vm = context().vm;
  hello.vm_id = context().vm_id;
  hello.node = "a";
  hello.boot_id = "11111111-2222-3333-4444-555555555555";
  hello.epoch = Epoch(4);
  hello.session = SessionId(0xfedcba9876543210);
  hello.lease = context().lease;
  hello.disks = context().disks;
  hello.engine_version = "0.1.0";
  HelloOk ok;
  ok.node = "b";
  ok.boot_id = "22222222-2222-3333-4444-555555555555";
  ok.state = ReplicaState::outdated;
  HelloRefused refused;
  refused.reason = "epoch 3 is over";
  refused.promised_epoch = Epoch(4);
  Bye bye;
  bye.reason = "the VM was stopped";
  Hello stranger = hello;
  stranger.vm += '\x01';  // six characters in JSON
  const auto seed = [](std::size_t kind, std::size_t stretch, const std::string& json) {
    return packed(kind, 1) + packed(stretch, 2) + json;
  };
  return {seed(0, 0, encode(hello)),     seed(1, 0, encode(ok)),
          seed(2, 0, encode(refused)),   seed(3, 0, encode(EpochMessage{InSync::both})),
          seed(4, 0, encode(bye)),       seed(0, 10'000, encode(stranger)),
          seed(4, 65'400, encode(bye)),  seed(2, 65'400, encode(refused)),
          seed(0, 64'000, encode(hello))};
}

}  // namespace havm::fuzz
