// The job of these functions: durations as people write them in our files. A unit is always needed:
// "250ms", "6s", "2min", "12h", "7d". Pure.
#pragma once

#include <chrono>
#include <optional>
#include <string>

namespace havm {

// nullopt unless it is 1–9 digits followed by ms, s, min, h or d.
std::optional<std::chrono::milliseconds> parse_duration(const std::string& text);

// The shortest such text: 6000 ms → "6s", 250 ms → "250ms", 1500 ms → "1500ms".
std::string duration_text(std::chrono::milliseconds duration);

}  // namespace havm
