// The job of NbdHandshakeCore: the server's side of the fixed newstyle handshake of one connection,
// from the greeting to the start of transmission: bytes in, replies and outcome out. Pure.
//
// Guarantees
//  1. Input is consumed in whole messages; what follows the last message of the handshake is left
//     alone (it is the first request).
//  2. No input makes it read out of bounds, and what a client can make it hold or answer is bounded
//     by nbd_option_bytes_max and nbd_options_max.
//  3. Malformed options are answered with an error and the haggling goes on; only broken framing,
//     an unknown client flag or a limit ends it.
// Block sizes are always told (NBD_INFO_BLOCK_SIZE) and enforced later with EINVAL. A client that
// never learns them, because it used EXPORT_NAME, is let in: old clients align to 512 or 4096
// anyway. TLS is refused (ERR_UNSUP): the socket is a unix socket with the rights of a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace havm {

struct NbdExport {
  std::string name;
  std::uint64_t size_bytes = 0;
  std::uint32_t alignment_bytes = 0;
};

// What the client asked for and got, valid for the rest of the connection.
struct NbdAgreement {
  bool structured_replies = false;
  bool block_status = false;  // base:allocation was selected
};

enum class NbdHandshakeOutcome : std::uint8_t {
  more,          // the handshake goes on
  transmission,  // requests follow
  ended,         // the client aborted: send the replies, then close
  violation,     // close
};

struct NbdHandshakeStep {
  // 0 with outcome `more`: the message is incomplete; it needs `wanted` bytes from its first one.
  std::size_t consumed = 0;
  std::size_t wanted = 0;
  std::vector<std::byte> replies;
  NbdHandshakeOutcome outcome = NbdHandshakeOutcome::more;
  std::string_view reason;  // why it ended or is a violation; a literal
};

class NbdHandshakeCore {
 public:
  explicit NbdHandshakeCore(NbdExport served) : export_(std::move(served)) {}

  // What the server sends first.
  [[nodiscard]] static std::vector<std::byte> greeting();
  // Handles the first message in `input`. Not called again after an outcome other than `more`.
  NbdHandshakeStep step(std::span<const std::byte> input);

  [[nodiscard]] const NbdAgreement& agreement() const { return agreement_; }

 private:
  struct Option {
    std::uint32_t type = 0;
    std::span<const std::byte> data;
  };

  NbdHandshakeStep client_flags(std::span<const std::byte> input);
  void handle(const Option& option, NbdHandshakeStep& step);
  void export_name(const Option& option, NbdHandshakeStep& step);
  void info_or_go(const Option& option, NbdHandshakeStep& step);
  void list(const Option& option, NbdHandshakeStep& step);
  void structured_reply(const Option& option, NbdHandshakeStep& step);
  void meta_context(const Option& option, NbdHandshakeStep& step);
  [[nodiscard]] bool is_ours(std::string_view name) const;
  [[nodiscard]] std::uint16_t transmission_flags() const;

  NbdExport export_;
  NbdAgreement agreement_;
  bool have_client_flags_ = false;
  bool fixed_newstyle_ = false;
  bool no_zeroes_ = false;
  std::uint32_t options_ = 0;
};

}  // namespace havm
