#include "agent/policy/duration_text.hpp"

#include <charconv>
#include <cstdint>

namespace havm {

using std::chrono::milliseconds;

std::optional<milliseconds> parse_duration(const std::string& text) {
  constexpr std::size_t max_digits = 9;  // no overflow, also not in days
  const std::size_t digits = text.find_first_not_of("0123456789");
  if (digits == 0 || digits == std::string::npos || digits > max_digits) return std::nullopt;
  std::int64_t count = 0;
  std::from_chars(text.data(), text.data() + digits, count);
  const std::string unit = text.substr(digits);
  if (unit == "ms") return milliseconds(count);
  if (unit == "s") return std::chrono::seconds(count);
  if (unit == "min") return std::chrono::minutes(count);
  if (unit == "h") return std::chrono::hours(count);
  if (unit == "d") return std::chrono::hours(count * 24);
  return std::nullopt;
}

std::string duration_text(milliseconds duration) {
  if (duration.count() != 0 && duration % std::chrono::minutes(1) == milliseconds(0))
    return std::to_string(duration / std::chrono::minutes(1)) + "min";
  if (duration.count() != 0 && duration % std::chrono::seconds(1) == milliseconds(0))
    return std::to_string(duration / std::chrono::seconds(1)) + "s";
  return std::to_string(duration.count()) + "ms";
}

}  // namespace havm
