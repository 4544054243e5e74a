// The job of VolatileData: what was written to one file and is not on its medium yet, as pieces
// that never overlap: bytes, or zeroes that take no memory.
//
// Guarantees
//  1. overlay() puts exactly the newest volatile bytes over what was read from the medium.
//  2. A byte is volatile from the write() or zero() that covers it until forget() covers it.
// Offsets and lengths in bytes, any alignment. No I/O. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

namespace havm::lab {

class VolatileData {
 public:
  // `bytes` is empty for zeroes and has `length` bytes otherwise; it lives until the next change.
  struct Piece {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::span<const std::byte> bytes;

    [[nodiscard]] bool is_zeroes() const { return bytes.empty(); }
    [[nodiscard]] std::uint64_t end() const { return offset + length; }
  };

  void write(std::uint64_t offset, std::span<const std::byte> bytes);
  void zero(std::uint64_t offset, std::uint64_t length);
  // The range is on the medium now, or gone from the file.
  void forget(std::uint64_t offset, std::uint64_t length);

  void overlay(std::uint64_t offset, std::span<std::byte> read) const;

  // The piece that covers `offset`, else the first one behind it.
  [[nodiscard]] std::optional<Piece> at_or_after(std::uint64_t offset) const;
  [[nodiscard]] bool empty() const { return pieces_.empty(); }
  // The memory that the pieces need for their bytes.
  [[nodiscard]] std::uint64_t bytes_held() const { return bytes_held_; }

 private:
  struct Content {
    std::uint64_t length = 0;
    std::vector<std::byte> bytes;
  };
  using Pieces = std::map<std::uint64_t, Content>;

  void insert(std::uint64_t offset, Content content);
  void split(std::uint64_t offset);

  Pieces pieces_;
  std::uint64_t bytes_held_ = 0;
};

}  // namespace havm::lab
