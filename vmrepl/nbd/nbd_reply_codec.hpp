// The job of this codec: the bytes of replies. A reply is `head`, then `tail`, then (for data) the
// bytes that were read, which the caller sends from where they are. Only rare replies have a tail,
// so that the common ones allocate nothing. Pure.
//
// Which form: success without data is a simple reply in both modes (proto.md allows it, it is
// shorter); after STRUCTURED_REPLY a read is answered by one OFFSET_DATA or OFFSET_HOLE chunk, so
// the "do not fragment" flag always holds, and errors are ERROR chunks with a sentence.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace havm {

struct NbdReply {
  static constexpr std::size_t head_bytes_max = 32;

  std::array<std::byte, head_bytes_max> head{};
  std::size_t head_size = 0;
  std::vector<std::byte> tail;
};

// A descriptor of base:allocation.
struct NbdExtent {
  std::uint32_t length = 0;
  bool hole = false;
};

// Success without data: flush, write, trim, write_zeroes; also the head of data read in simple
// mode.
NbdReply nbd_simple_success(std::uint64_t cookie);
// `error` is an NBD error value, not 0.
NbdReply nbd_failure(std::uint64_t cookie, bool structured, std::uint32_t error,
                     std::string_view message);
// Structured mode, read: the head of `length` bytes of data (the last chunk of its reply).
NbdReply nbd_data_head(std::uint64_t cookie, std::uint64_t offset, std::uint32_t length);
// Structured mode, read: the range reads as zeroes.
NbdReply nbd_hole(std::uint64_t cookie, std::uint64_t offset, std::uint32_t length);
// Structured mode, an empty read.
NbdReply nbd_no_data(std::uint64_t cookie);
// `extents` not empty.
NbdReply nbd_block_status(std::uint64_t cookie, std::span<const NbdExtent> extents);

// Descriptors for a range that starts at a multiple of the alignment: equal neighbours are one,
// holes are rounded inwards to multiples of the alignment, and only the first `count_max` (at least
// 1) are kept.
std::vector<NbdExtent> nbd_merge_extents(std::span<const NbdExtent> extents,
                                         std::uint32_t alignment_bytes, std::size_t count_max);

// The value on the wire for a positive errno value; what NBD cannot say becomes EIO
// (and so do EOVERFLOW and EOPNOTSUPP, which NBD keeps for features that are not offered here).
std::uint32_t nbd_error_of_errno(int errno_value);

}  // namespace havm
