#include "tests/lab/lossyfs/volatile_data.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>

namespace havm::lab {

namespace {

std::uint64_t end_of(std::uint64_t offset, std::uint64_t length) {
  const std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  return length > most - offset ? most : offset + length;
}

}  // namespace

void VolatileData::insert(std::uint64_t offset, Content content) {
  bytes_held_ += content.bytes.size();
  pieces_.emplace(offset, std::move(content));
}

// Afterwards no piece reaches across `offset`.
void VolatileData::split(std::uint64_t offset) {
  const auto next = pieces_.lower_bound(offset);
  if (next == pieces_.begin()) return;
  const auto it = std::prev(next);
  Content& left = it->second;
  const std::uint64_t kept = offset - it->first;
  if (left.length <= kept) return;
  Content right{left.length - kept, {}};
  if (!left.bytes.empty()) {
    right.bytes.assign(left.bytes.begin() + static_cast<std::ptrdiff_t>(kept), left.bytes.end());
    left.bytes.resize(kept);
  }
  left.length = kept;
  pieces_.emplace(offset, std::move(right));  // the same bytes as before: bytes_held_ stays
}

void VolatileData::forget(std::uint64_t offset, std::uint64_t length) {
  const std::uint64_t end = end_of(offset, length);
  if (length == 0 || pieces_.empty()) return;
  split(offset);
  split(end);
  const auto first = pieces_.lower_bound(offset);
  const auto last = pieces_.lower_bound(end);
  for (auto it = first; it != last; ++it)
    bytes_held_ -= it->second.bytes.size();
  pieces_.erase(first, last);
}

void VolatileData::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  forget(offset, bytes.size());
  insert(offset, {bytes.size(), {bytes.begin(), bytes.end()}});
}

void VolatileData::zero(std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return;
  forget(offset, length);
  insert(offset, {length, {}});
}

void VolatileData::overlay(std::uint64_t offset, std::span<std::byte> read) const {
  const std::uint64_t end = offset + read.size();
  for (auto piece = at_or_after(offset); piece && piece->offset < end;
       piece = at_or_after(piece->end())) {
    const std::uint64_t from = std::max(piece->offset, offset);
    const std::uint64_t to = std::min(piece->end(), end);
    if (piece->is_zeroes())
      std::memset(read.data() + (from - offset), 0, to - from);
    else
      std::memcpy(read.data() + (from - offset), piece->bytes.data() + (from - piece->offset),
                  to - from);
  }
}

std::optional<VolatileData::Piece> VolatileData::at_or_after(std::uint64_t offset) const {
  auto it = pieces_.upper_bound(offset);
  if (it != pieces_.begin()) {
    const auto before = std::prev(it);
    if (before->first + before->second.length > offset) it = before;
  }
  if (it == pieces_.end()) return std::nullopt;
  return Piece{it->first, it->second.length, it->second.bytes};
}

}  // namespace havm::lab
