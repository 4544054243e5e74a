// The job of Chance: the one source of everything random in a torture run, so that a seed replays
// exactly, on every machine. One thread.
#pragma once

#include <cstdint>

namespace havm::torture {

class Chance {
 public:
  explicit Chance(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15U + 1) {}

  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15U;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }
  // 0 … n - 1
  std::uint64_t pick(std::uint64_t n) { return next() % n; }
  bool one_in(std::uint64_t n) { return pick(n) == 0; }

 private:
  std::uint64_t state_;
};

}  // namespace havm::torture
