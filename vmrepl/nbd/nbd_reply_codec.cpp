#include "vmrepl/nbd/nbd_reply_codec.hpp"

#include <cerrno>
#include <utility>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/nbd/nbd_bytes.hpp"
#include "vmrepl/nbd/nbd_protocol.hpp"

namespace havm {
namespace {

// Appends integers to the fixed head of a reply.
class HeadWriter {
 public:
  template <class T>
  HeadWriter& integer(T value) {
    HAVM_ASSERT(reply_.head_size + sizeof(T) <= NbdReply::head_bytes_max, "reply head too long");
    store_big_endian(reply_.head.data() + reply_.head_size, value);
    reply_.head_size += sizeof(T);
    return *this;
  }
  NbdReply& reply() { return reply_; }

 private:
  NbdReply reply_;
};

// Every structured reply of this server is one chunk, so each one is the last.
HeadWriter chunk(std::uint64_t cookie, std::uint16_t type, std::uint32_t payload_bytes) {
  HeadWriter head;
  head.integer(nbd_structured_reply_magic).integer(nbd_reply_flag_done).integer(type);
  head.integer(cookie).integer(payload_bytes);
  return head;
}

HeadWriter simple(std::uint64_t cookie, std::uint32_t error) {
  HeadWriter head;
  head.integer(nbd_simple_reply_magic).integer(error).integer(cookie);
  return head;
}

}  // namespace

NbdReply nbd_simple_success(std::uint64_t cookie) {
  return std::move(simple(cookie, 0).reply());
}

NbdReply nbd_failure(std::uint64_t cookie, bool structured, std::uint32_t error,
                     std::string_view message) {
  HAVM_ASSERT(error != 0, "a failure needs an error");
  if (!structured) return std::move(simple(cookie, error).reply());
  constexpr std::uint32_t fixed_bytes = 6;
  HAVM_ASSERT(message.size() <= nbd_string_bytes_max, "error message too long");
  HeadWriter head =
      chunk(cookie, nbd_reply_error, fixed_bytes + static_cast<std::uint32_t>(message.size()));
  head.integer(error).integer(static_cast<std::uint16_t>(message.size()));
  const auto text = std::as_bytes(std::span(message));
  head.reply().tail.assign(text.begin(), text.end());
  return std::move(head.reply());
}

NbdReply nbd_data_head(std::uint64_t cookie, std::uint64_t offset, std::uint32_t length) {
  HAVM_ASSERT(length > 0 && length <= nbd_payload_bytes_max, "data chunk of an impossible length");
  constexpr std::uint32_t fixed_bytes = 8;
  HeadWriter head = chunk(cookie, nbd_reply_offset_data, fixed_bytes + length);
  head.integer(offset);
  return std::move(head.reply());
}

NbdReply nbd_hole(std::uint64_t cookie, std::uint64_t offset, std::uint32_t length) {
  HAVM_ASSERT(length > 0, "a hole is not empty");
  constexpr std::uint32_t payload_bytes = 12;
  HeadWriter head = chunk(cookie, nbd_reply_offset_hole, payload_bytes);
  head.integer(offset).integer(length);
  return std::move(head.reply());
}

NbdReply nbd_no_data(std::uint64_t cookie) {
  return std::move(chunk(cookie, nbd_reply_none, 0).reply());
}

NbdReply nbd_block_status(std::uint64_t cookie, std::span<const NbdExtent> extents) {
  HAVM_ASSERT(!extents.empty() && extents.size() <= nbd_extents_max, "bad number of extents");
  constexpr std::uint32_t id_bytes = 4;
  constexpr std::uint32_t descriptor_bytes = 8;
  HeadWriter head = chunk(cookie, nbd_reply_block_status,
                          id_bytes + descriptor_bytes * static_cast<std::uint32_t>(extents.size()));
  head.integer(nbd_base_allocation_id);
  NbdWriter descriptors;
  for (const NbdExtent& extent : extents) {
    const std::uint32_t state = extent.hole ? nbd_state_hole | nbd_state_zero : 0U;
    descriptors.integer(extent.length).integer(state);
  }
  head.reply().tail = std::move(descriptors.bytes());
  return std::move(head.reply());
}

std::vector<NbdExtent> nbd_merge_extents(std::span<const NbdExtent> extents,
                                         std::uint32_t alignment_bytes, std::size_t count_max) {
  std::vector<NbdExtent> merged;
  const auto append = [&merged](std::uint64_t length, bool hole) {
    if (length == 0) return;
    if (merged.empty() || merged.back().hole != hole) merged.push_back({0, hole});
    merged.back().length += static_cast<std::uint32_t>(length);
  };
  std::uint64_t told = 0;   // bytes described so far
  std::uint64_t start = 0;  // of the extent looked at
  for (const NbdExtent& extent : extents) {
    const std::uint64_t end = start + extent.length;
    if (extent.hole) {
      const std::uint64_t hole_start =
          (start + alignment_bytes - 1) / alignment_bytes * alignment_bytes;
      const std::uint64_t hole_end = end / alignment_bytes * alignment_bytes;
      if (hole_start < hole_end) {
        append(hole_start - told, false);
        append(hole_end - hole_start, true);
        told = hole_end;
      }
    }
    start = end;
  }
  append(start - told, false);
  if (merged.size() > count_max) merged.resize(count_max);
  return merged;
}

std::uint32_t nbd_error_of_errno(int errno_value) {
  switch (errno_value) {
    case EPERM:
    case EACCES:
    case EROFS:
      return nbd_error_perm;
    case ENOMEM:
      return nbd_error_nomem;
    case EINVAL:
      return nbd_error_inval;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return nbd_error_nospc;
    case ESHUTDOWN:
      return nbd_error_shutdown;
    default:
      return nbd_error_io;
  }
}

}  // namespace havm
