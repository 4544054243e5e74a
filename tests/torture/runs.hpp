// The job of these runs: many seeds, and many seeds with one rule switched off.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/torture/world.hpp"
#include "vmrepl/base/rules.hpp"

namespace havm::torture {

struct Summary {
  std::uint64_t seeds = 0;
  std::uint64_t lost = 0;      // seeds in which a promised write was missing
  std::uint64_t diverged = 0;  // seeds in which the replicas differed, or could have
  std::uint64_t other = 0;     // seeds in which another rule of the judge was broken
  Reach reach;
  [[nodiscard]] bool clean() const { return lost + diverged + other == 0; }
};

using Failed = std::function<void(std::uint64_t seed, const std::string& what)>;
Summary run_seeds(std::uint64_t first, std::uint64_t count, const Failed& failed);
std::string to_text(const Summary& summary);

struct Mutant {
  Rule rule = Rule::none;
  const char* number;  // of the design's rule
  const char* what;    // the mutant does
};
const std::vector<Mutant>& mutants();

struct Sentence {
  bool killed = false;
  std::uint64_t seeds = 0;  // that were run
  std::string why;          // the violation, or the assertion that stopped it
};
// In a process of its own, with seeds from `first` on: a mutant may run into an assertion, which is
// as good as a violation.
Sentence try_mutant(const Mutant& mutant, std::uint64_t first, std::uint64_t seeds_max);

}  // namespace havm::torture
