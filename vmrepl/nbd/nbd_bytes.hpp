// The job of these helpers: big-endian integers in and out of bytes. NbdReader never reads past its
// end: a read that does not fit yields 0 or "" and makes ok() false for ever.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace havm {

// The integer in the first sizeof(T) bytes of `from`.
template <class T>
T load_big_endian(const std::byte* from) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>((value << 8) | std::to_integer<T>(from[i]));
  return value;
}

template <class T>
void store_big_endian(std::byte* to, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i)
    to[i] = static_cast<std::byte>(value >> (8 * (sizeof(T) - 1 - i)));
}

class NbdReader {
 public:
  explicit NbdReader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <class T>
  T integer() {
    if (!take(sizeof(T))) return 0;
    return load_big_endian<T>(taken_.data());
  }
  std::string_view text(std::size_t length) {
    if (!take(length) || length == 0) return {};
    return {reinterpret_cast<const char*>(taken_.data()), length};
  }
  [[nodiscard]] bool ok() const { return ok_; }
  // Everything was read, and nothing more.
  [[nodiscard]] bool finished() const { return ok_ && rest_.empty(); }

 private:
  bool take(std::size_t length) {
    if (!ok_ || rest_.size() < length) return ok_ = false;
    taken_ = rest_.first(length);
    rest_ = rest_.subspan(length);
    return true;
  }

  std::span<const std::byte> rest_;
  std::span<const std::byte> taken_;
  bool ok_ = true;
};

class NbdWriter {
 public:
  template <class T>
  NbdWriter& integer(T value) {
    bytes_.resize(bytes_.size() + sizeof(T));
    store_big_endian(bytes_.data() + bytes_.size() - sizeof(T), value);
    return *this;
  }
  NbdWriter& text(std::string_view value) {
    const auto* first = reinterpret_cast<const std::byte*>(value.data());
    bytes_.insert(bytes_.end(), first, first + value.size());
    return *this;
  }
  NbdWriter& raw(std::span<const std::byte> value) {
    bytes_.insert(bytes_.end(), value.begin(), value.end());
    return *this;
  }
  NbdWriter& zeroes(std::size_t count) {
    bytes_.resize(bytes_.size() + count);
    return *this;
  }
  [[nodiscard]] std::vector<std::byte>& bytes() { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace havm
