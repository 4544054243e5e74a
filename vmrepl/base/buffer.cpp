#include "vmrepl/base/buffer.hpp"

#include <array>
#include <bit>
#include <new>
#include <utility>
#include <vector>

#include "vmrepl/base/assert.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) (static_cast<void>(address))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) (static_cast<void>(address))
#endif

namespace havm {
namespace {

constexpr std::size_t smallest_class_bytes = 4096;
constexpr std::size_t largest_class_bytes = std::size_t{32} << 20;
// Free memory kept for reuse, per thread. Enough for a full window of requests of one engine; what
// is freed beyond it goes back to the allocator.
constexpr std::size_t pooled_bytes_max = std::size_t{64} << 20;
constexpr std::size_t class_count = static_cast<std::size_t>(
    std::countr_zero(largest_class_bytes) - std::countr_zero(smallest_class_bytes) + 1);

// Bytes of the block behind a buffer of `size` bytes: the power-of-two class, or, above the largest
// class (never pooled), the size rounded up to the alignment.
std::size_t block_bytes(std::size_t size) {
  if (size <= smallest_class_bytes) return smallest_class_bytes;
  if (size <= largest_class_bytes) return std::bit_ceil(size);
  return (size + Buffer::alignment_bytes - 1) & ~(Buffer::alignment_bytes - 1);
}

std::size_t class_of(std::size_t block) {
  return static_cast<std::size_t>(std::countr_zero(block) - std::countr_zero(smallest_class_bytes));
}

std::byte* allocate_block(std::size_t block) {
  void* memory = ::operator new (block, std::align_val_t{Buffer::alignment_bytes}, std::nothrow);
  HAVM_ASSERT(memory != nullptr, "no memory left for a request buffer");
  return static_cast<std::byte*>(memory);
}

void free_block(std::byte* memory) {
  ASAN_UNPOISON_MEMORY_REGION(memory, 1);
  ::operator delete (memory, std::align_val_t{Buffer::alignment_bytes});
}

// Set when the thread's pool is gone: a Buffer in a longer-lived object then frees its block
// directly.
thread_local bool pool_is_gone = false;

// The free blocks of one thread. A block is poisoned while it is here, so that the address
// sanitizer still sees a use after the end of its Buffer.
class Pool {
 public:
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() {
    pool_is_gone = true;
    for (std::size_t i = 0; i < class_count; ++i)
      for (std::byte* memory : free_[i])
        release(memory, smallest_class_bytes << i);
  }

  std::byte* take(std::size_t block) {
    auto& list = free_[class_of(block)];
    if (list.empty()) return allocate_block(block);
    std::byte* memory = list.back();
    list.pop_back();
    pooled_bytes_ -= block;
    ASAN_UNPOISON_MEMORY_REGION(memory, block);
    return memory;
  }

  void give_back(std::byte* memory, std::size_t block) {
    if (pooled_bytes_ + block > pooled_bytes_max) {
      free_block(memory);
      return;
    }
    ASAN_POISON_MEMORY_REGION(memory, block);
    free_[class_of(block)].push_back(memory);
    pooled_bytes_ += block;
  }

 private:
  static void release(std::byte* memory, std::size_t block) {
    ASAN_UNPOISON_MEMORY_REGION(memory, block);
    static_cast<void>(block);
    free_block(memory);
  }

  std::array<std::vector<std::byte*>, class_count> free_;
  std::size_t pooled_bytes_ = 0;
};

Pool& pool_of_thread() {
  thread_local Pool pool;
  return pool;
}

std::byte* take_block(std::size_t size) {
  const std::size_t block = block_bytes(size);
  if (block > largest_class_bytes || pool_is_gone) return allocate_block(block);
  return pool_of_thread().take(block);
}

void return_block(std::byte* memory, std::size_t size) {
  if (memory == nullptr) return;
  const std::size_t block = block_bytes(size);
  if (block > largest_class_bytes || pool_is_gone) {
    free_block(memory);
    return;
  }
  pool_of_thread().give_back(memory, block);
}

}  // namespace

Buffer::Buffer(std::size_t size) : data_(size == 0 ? nullptr : take_block(size)), size_(size) {}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this == &other) return *this;
  return_block(data_, size_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

Buffer::~Buffer() {
  return_block(data_, size_);
}

}  // namespace havm
