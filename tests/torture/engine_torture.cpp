// Random crashes of a pair of replication engines, judged: see docs/testing.md, Torture.
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include <unistd.h>

#include "tests/torture/runs.hpp"

namespace havm::torture {
namespace {

constexpr const char* usage_text =
    "usage: engine_torture [--seeds N] [--seed S] [--verbose]\n"
    "       engine_torture --mutations [--seeds N] [--seed S]\n"
    "\n"
    "  --seeds N     how many seeds (default 2000; with --seed 1); of each mutant at most\n"
    "  --seed S      the first one (default 1)\n"
    "  --verbose     print the timeline of each seed\n"
    "  --mutations   switch off one rule of the engine at a time: each must be noticed\n";

struct Options {
  std::optional<std::uint64_t> seeds;
  std::optional<std::uint64_t> seed;
  bool verbose = false;
  bool mutations = false;
};

volatile std::uint64_t present_seed = 0;

// An assertion of the engine ends the process: say which seed replays it.
void tell_seed(int) {
  char text[64];
  const int n = std::snprintf(text, sizeof text, "seed %llu stopped\n",
                              static_cast<unsigned long long>(present_seed));
  (void)!::write(STDERR_FILENO, text, static_cast<std::size_t>(n));
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<Options> parse(int count, char** words) {
  Options o;
  for (int i = 1; i < count; ++i) {
    const std::string_view word = words[i];
    if (word == "--verbose") {
      o.verbose = true;
    } else if (word == "--mutations") {
      o.mutations = true;
    } else if ((word == "--seeds" || word == "--seed") && i + 1 < count) {
      const auto value = number(words[++i]);
      if (!value) return std::nullopt;
      (word == "--seeds" ? o.seeds : o.seed) = value;
    } else {
      return std::nullopt;
    }
  }
  return o;
}

int run_timelines(std::uint64_t first, std::uint64_t count) {
  int status = EXIT_SUCCESS;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    present_seed = seed;
    const Outcome outcome = World(seed, true).run();
    std::printf("%sseed %llu: %s\n", outcome.timeline.c_str(),
                static_cast<unsigned long long>(seed),
                outcome.violation.empty() ? "clean" : outcome.violation.c_str());
    if (!outcome.violation.empty()) status = EXIT_FAILURE;
  }
  return status;
}

int run_all(std::uint64_t first, std::uint64_t count) {
  constexpr std::uint64_t piece = 500;
  Summary sum;
  for (std::uint64_t done = 0; done < count; ++done) {
    present_seed = first + done;
    const Summary one = run_seeds(present_seed, 1, [](std::uint64_t seed, const std::string& what) {
      std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), what.c_str());
    });
    sum.seeds += one.seeds;
    sum.lost += one.lost;
    sum.diverged += one.diverged;
    sum.other += one.other;
    sum.reach.add(one.reach);
    if ((done + 1) % piece == 0 && ::isatty(STDERR_FILENO) != 0)
      std::fprintf(stderr, "%llu of %llu\r", static_cast<unsigned long long>(done + 1),
                   static_cast<unsigned long long>(count));
  }
  std::printf("%s\n", to_text(sum).c_str());
  return sum.clean() ? EXIT_SUCCESS : EXIT_FAILURE;
}

int run_mutants(std::uint64_t first, std::uint64_t seeds_max) {
  std::size_t killed = 0;
  for (const Mutant& mutant : mutants()) {
    const Sentence s = try_mutant(mutant, first, seeds_max);
    if (s.killed) ++killed;
    std::printf("%-4s %-9s %5llu seeds  %s\n%28s%s\n", mutant.number,
                s.killed ? "killed" : "SURVIVED", static_cast<unsigned long long>(s.seeds),
                mutant.what, "", s.why.c_str());
    std::fflush(stdout);
  }
  std::printf("killed=%zu/%zu\n", killed, mutants().size());
  return killed == mutants().size() ? EXIT_SUCCESS : EXIT_FAILURE;
}

int run(const Options& o) {
  const std::uint64_t first = o.seed.value_or(1);
  const std::uint64_t count = o.seeds.value_or(o.seed && !o.mutations ? 1 : 2000);
  if (o.mutations) return run_mutants(first, count);
  std::signal(SIGABRT, tell_seed);
  return o.verbose ? run_timelines(first, count) : run_all(first, count);
}

}  // namespace
}  // namespace havm::torture

int main(int argc, char** argv) {
  const auto options = havm::torture::parse(argc, argv);
  if (!options) {
    std::fputs(havm::torture::usage_text, stderr);
    return 2;
  }
  return havm::torture::run(*options);
}
