// The JSON of the witness (docs/protocol/witness.md).
//
// Input: which of the two documents, the text of an HTTP body.
#include "agent/witness/witness_codec.hpp"

#include <algorithm>

#include "agent/control/http_wire.hpp"
#include "tests/fuzz/support/fuzz_target.hpp"

namespace havm::fuzz {
namespace {

void check_register(const Register& value) {
  FUZZ_CHECK(!register_problem(value), "what is accepted is valid");
  FUZZ_CHECK(value.in_sync.size() == 1 || value.in_sync.size() == 2, "1 or 2 nodes are in sync");
  FUZZ_CHECK(std::ranges::is_sorted(value.in_sync), "the nodes are sorted");
  FUZZ_CHECK(std::ranges::find(value.in_sync, value.owner) != value.in_sync.end(),
             "the owner is in sync");
  const auto again = register_from_json(to_json(value));
  FUZZ_CHECK(again.has_value() && again.value() == value, "decode(encode(x)) == x");
}

void check_view(const WitnessView& view) {
  check_register(view.value);
  FUZZ_CHECK(view.uptime >= Duration{0}, "an uptime is not negative");
  for (const auto& [node, age] : view.grant_ages)
    FUZZ_CHECK(!age || *age >= Duration{0}, "an age is not negative");
  FUZZ_CHECK(view.grant_age("nobody of this name") == view.uptime || view.grant_ages.size() > 0,
             "an unknown node was granted before the start at the latest");
  const auto again = view_from_json(to_json(view));
  FUZZ_CHECK(again.has_value() && again.value().value == view.value &&
                 again.value().grant_ages == view.grant_ages && again.value().uptime == view.uptime,
             "decode(encode(x)) == x");
}

}  // namespace

void one_input(Bytes input) {
  Input in(input);
  const bool whole_view = in.flag();
  const auto body = parse_http_body(string_of(in.rest()));
  if (!body) return;
  if (whole_view) {
    if (const auto view = view_from_json(body.value())) check_view(view.value());
  } else {
    const auto value = register_from_json(body.value());
    if (value)
      check_register(value.value());
    else
      FUZZ_CHECK(!value.error().message.empty(), "a refusal says why");
  }
}

std::vector<std::string> seeds() {
  const Register alone(Epoch(4), "a", {"a"});
  const Register pair(Epoch(UINT64_MAX), "b", {"a", "b"});
  WitnessView view;
  view.value = pair;
  view.grant_ages["a"] = std::chrono::milliseconds(1200);
  view.grant_ages["b"] = std::nullopt;
  view.uptime = std::chrono::hours(1000);
  return {packed(0, 1) + to_json(alone).dump(), packed(0, 1) + to_json(pair).dump(),
          packed(1, 1) + to_json(view).dump()};
}

}  // namespace havm::fuzz
