// The job of this header: what every fuzz target defines (one_input, seeds), and what it may use
// (FUZZ_CHECK, Input). A target is one file in tests/fuzz/targets; libFuzzer's main or the
// replaying one (replay_main.cpp) is linked to it. See tests/fuzz/README.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace havm::fuzz {

using Bytes = std::span<const std::byte>;

// Defined by the target: feeds one input to the code under test and checks its properties. The same
// input always does the same.
void one_input(Bytes input);
// Defined by the target: real messages to begin with.
std::vector<std::string> seeds();

// One file for each seed. False when there is none, or they cannot be written.
bool write_seeds(const std::string& directory);

// Prints the property and aborts: a finding.
[[noreturn]] void property_broken(const char* property, const char* file, int line);

inline std::string_view text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline std::string string_of(Bytes bytes) {
  return std::string(text_of(bytes));
}
inline Bytes bytes_of(std::string_view text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}
// The bytes of `value`, first the lowest, as Input reads them: for seeds.
std::string packed(std::uint64_t value, std::size_t size_bytes);

// Takes decisions out of an input, front to back. An exhausted input yields zeroes, so every input
// means something.
class Input {
 public:
  explicit Input(Bytes bytes) : rest_(bytes) {}

  [[nodiscard]] bool empty() const { return rest_.empty(); }
  [[nodiscard]] std::size_t size() const { return rest_.size(); }
  std::uint64_t number(std::size_t size_bytes);
  std::uint8_t byte() { return static_cast<std::uint8_t>(number(1)); }
  bool flag() { return (byte() & 1U) != 0; }
  // In 0 … count-1; count ≤ 256.
  std::size_t below(std::size_t count) { return byte() % count; }
  // At most `size_bytes`, fewer at the end.
  Bytes bytes(std::size_t size_bytes);
  Bytes rest() { return bytes(rest_.size()); }

 private:
  Bytes rest_;
};

}  // namespace havm::fuzz

#define FUZZ_CHECK(condition, property)                                            \
  do {                                                                             \
    if (!(condition)) ::havm::fuzz::property_broken(property, __FILE__, __LINE__); \
  } while (false)
