// The job of Buffer: own the bytes of one request from its arrival to its completion (the "private
// buffer" that both legs read, design rule: never re-read client memory). Aligned for O_DIRECT, not
// zeroed, taken from a pool so that a hot path allocates nothing. Move-only. One thread.
#pragma once

#include <cstddef>
#include <span>

namespace havm {

class Buffer {
 public:
  static constexpr std::size_t alignment_bytes = 4096;

  Buffer() = default;
  // A buffer of `size` bytes, contents undefined. Aborts the process when memory is exhausted.
  explicit Buffer(std::size_t size);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  [[nodiscard]] std::byte* data() { return data_; }
  [[nodiscard]] const std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] std::span<std::byte> span() { return {data_, size_}; }
  [[nodiscard]] std::span<const std::byte> span() const { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace havm
