// The job of these types: values that must not be mixed up cannot be mixed up. No arithmetic across
// tags; the only operation beside comparison is next().
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace havm {

template <class Tag>
struct Ordinal {
  std::uint64_t value = 0;

  constexpr Ordinal() = default;
  constexpr explicit Ordinal(std::uint64_t v) : value(v) {}
  constexpr auto operator<=>(const Ordinal&) const = default;
  [[nodiscard]] constexpr Ordinal next() const { return Ordinal(value + 1); }
};

// Rises with each change of owner or in-sync set of one VM; 0 = never written.
using Epoch = Ordinal<struct EpochTag>;
// Identifies one replication session; drawn at random by the primary.
using SessionId = Ordinal<struct SessionTag>;
// Number of a frame inside one session, from 1.
using Sequence = Ordinal<struct SequenceTag>;

}  // namespace havm

template <class Tag>
struct std::hash<havm::Ordinal<Tag>> {
  std::size_t operator()(const havm::Ordinal<Tag>& o) const noexcept {
    return std::hash<std::uint64_t>{}(o.value);
  }
};
