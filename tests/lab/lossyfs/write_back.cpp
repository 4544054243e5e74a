#include "tests/lab/lossyfs/write_back.hpp"

#include <algorithm>
#include <utility>

namespace havm::lab {

namespace {

constexpr double torn_chance = 0.5;
constexpr double sector_chance = 0.5;

}  // namespace

WriteBack::WriteBack(double chance, std::uint64_t seed) : chance_(chance), random_(seed) {}

bool WriteBack::happens(double chance) {
  return std::uniform_real_distribution<double>(0.0, 1.0)(random_) < chance;
}

std::vector<ByteRange> WriteBack::of_write(std::uint64_t offset, std::uint64_t length) {
  const std::lock_guard lock(mutex_);
  if (length == 0 || !happens(chance_)) return {};
  if (!happens(torn_chance)) return {{offset, length}};
  std::vector<ByteRange> kept;
  const std::uint64_t end = offset + length;
  for (std::uint64_t at = offset; at < end;) {
    const std::uint64_t next = std::min(end, at - at % sector_bytes + sector_bytes);
    if (happens(sector_chance)) {
      if (!kept.empty() && kept.back().offset + kept.back().length == at)
        kept.back().length += next - at;
      else
        kept.push_back({at, next - at});
    }
    at = next;
  }
  return kept;
}

std::vector<ByteRange> WriteBack::of_zeroes(std::uint64_t offset, std::uint64_t length) {
  const std::lock_guard lock(mutex_);
  if (length == 0 || !happens(chance_)) return {};
  if (!happens(torn_chance)) return {{offset, length}};
  const std::uint64_t end = offset + length;
  std::uniform_int_distribution<std::uint64_t> place(offset / sector_bytes, end / sector_bytes);
  std::uint64_t from = place(random_) * sector_bytes;
  std::uint64_t to = place(random_) * sector_bytes;
  if (from > to) std::swap(from, to);
  from = std::max(from, offset);
  to = std::min(to, end);
  if (from >= to) return {};
  return {{from, to - from}};
}

}  // namespace havm::lab
