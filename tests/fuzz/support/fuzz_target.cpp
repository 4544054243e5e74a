#include "tests/fuzz/support/fuzz_target.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace havm::fuzz {

void property_broken(const char* property, const char* file, int line) {
  std::fprintf(stderr, "fuzz: property broken: %s (%s:%d)\n", property, file, line);
  std::abort();
}

bool write_seeds(const std::string& directory) {
  std::filesystem::create_directories(directory);
  const std::vector<std::string> all = seeds();
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::ofstream file(directory + "/seed-" + std::to_string(i), std::ios::binary);
    file << all[i];
    if (!file.flush()) return false;
  }
  return !all.empty();
}

std::string packed(std::uint64_t value, std::size_t size_bytes) {
  std::string bytes;
  for (std::size_t i = 0; i < size_bytes; ++i)
    bytes.push_back(static_cast<char>((value >> (8 * i)) & 0xffU));
  return bytes;
}

std::uint64_t Input::number(std::size_t size_bytes) {
  std::uint64_t value = 0;
  std::size_t shift = 0;
  for (const std::byte b : bytes(size_bytes)) {
    value |= std::to_integer<std::uint64_t>(b) << shift;
    shift += 8;
  }
  return value;
}

Bytes Input::bytes(std::size_t size_bytes) {
  const Bytes taken = rest_.first(std::min(size_bytes, rest_.size()));
  rest_ = rest_.subspan(taken.size());
  return taken;
}

}  // namespace havm::fuzz
