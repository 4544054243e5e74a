// What libFuzzer calls; it brings its own main.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "tests/fuzz/support/fuzz_target.hpp"

// Before anything else: `fuzz_TARGET --seeds DIRECTORY` writes the seeds and runs nothing.
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  if (*argc == 3 && std::string_view((*argv)[1]) == "--seeds")
    std::exit(havm::fuzz::write_seeds((*argv)[2]) ? EXIT_SUCCESS : EXIT_FAILURE);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  havm::fuzz::one_input(std::as_bytes(std::span<const std::uint8_t>(data, size)));
  return 0;
}
