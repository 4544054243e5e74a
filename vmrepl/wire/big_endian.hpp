// The job of these functions: integers on the wire are big-endian, and this is the one place that
// knows how to put them there and take them back. Pure. The caller guarantees sizeof(value) bytes
// at `at`.
#pragma once

#include <concepts>
#include <cstddef>

namespace havm {

template <std::unsigned_integral T>
constexpr void store_be(std::byte* at, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i)
    at[i] = static_cast<std::byte>((value >> (8 * (sizeof(T) - 1 - i))) & 0xff);
}

template <std::unsigned_integral T>
constexpr T load_be(const std::byte* at) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>((static_cast<unsigned long long>(value) << 8) |
                           std::to_integer<unsigned long long>(at[i]));
  return value;
}

}  // namespace havm
