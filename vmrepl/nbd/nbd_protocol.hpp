// The job of this file: the numbers of the NBD protocol that this server speaks (fixed newstyle
// handshake, simple and structured replies, the base:allocation context). Source: doc/proto.md
// of the Network Block Device project; names are those of the document, in lower case.
// All integers on the wire are big-endian. Data only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace havm {

// Handshake.
inline constexpr std::uint64_t nbd_init_magic = 0x4e42444d41474943;          // "NBDMAGIC"
inline constexpr std::uint64_t nbd_option_magic = 0x49484156454f5054;        // "IHAVEOPT"
inline constexpr std::uint64_t nbd_option_reply_magic = 0x0003e889045565a9;  // server's replies
inline constexpr std::uint16_t nbd_flag_fixed_newstyle = 1U << 0;  // same bits in client flags
inline constexpr std::uint16_t nbd_flag_no_zeroes = 1U << 1;

inline constexpr std::uint32_t nbd_opt_export_name = 1;
inline constexpr std::uint32_t nbd_opt_abort = 2;
inline constexpr std::uint32_t nbd_opt_list = 3;
inline constexpr std::uint32_t nbd_opt_starttls = 5;
inline constexpr std::uint32_t nbd_opt_info = 6;
inline constexpr std::uint32_t nbd_opt_go = 7;
inline constexpr std::uint32_t nbd_opt_structured_reply = 8;
inline constexpr std::uint32_t nbd_opt_list_meta_context = 9;
inline constexpr std::uint32_t nbd_opt_set_meta_context = 10;

inline constexpr std::uint32_t nbd_rep_ack = 1;
inline constexpr std::uint32_t nbd_rep_server = 2;
inline constexpr std::uint32_t nbd_rep_info = 3;
inline constexpr std::uint32_t nbd_rep_meta_context = 4;
inline constexpr std::uint32_t nbd_rep_err_unsup = 0x80000001;
inline constexpr std::uint32_t nbd_rep_err_invalid = 0x80000003;
inline constexpr std::uint32_t nbd_rep_err_unknown = 0x80000006;
inline constexpr std::uint32_t nbd_rep_err_too_big = 0x80000009;

inline constexpr std::uint16_t nbd_info_export = 0;
inline constexpr std::uint16_t nbd_info_name = 1;
inline constexpr std::uint16_t nbd_info_block_size = 3;

inline constexpr std::string_view nbd_base_allocation = "base:allocation";
inline constexpr std::uint32_t nbd_base_allocation_id = 1;  // our number for it in replies
inline constexpr std::uint32_t nbd_state_hole = 1U << 0;
inline constexpr std::uint32_t nbd_state_zero = 1U << 1;

// Transmission flags.
inline constexpr std::uint16_t nbd_tx_has_flags = 1U << 0;
inline constexpr std::uint16_t nbd_tx_send_flush = 1U << 2;
inline constexpr std::uint16_t nbd_tx_send_fua = 1U << 3;
inline constexpr std::uint16_t nbd_tx_send_trim = 1U << 5;
inline constexpr std::uint16_t nbd_tx_send_write_zeroes = 1U << 6;
inline constexpr std::uint16_t nbd_tx_send_df = 1U << 7;
inline constexpr std::uint16_t nbd_tx_can_multi_conn = 1U << 8;

// Requests.
inline constexpr std::uint32_t nbd_request_magic = 0x25609513;
inline constexpr std::size_t nbd_request_bytes = 28;

inline constexpr std::uint16_t nbd_cmd_read = 0;
inline constexpr std::uint16_t nbd_cmd_write = 1;
inline constexpr std::uint16_t nbd_cmd_disc = 2;
inline constexpr std::uint16_t nbd_cmd_flush = 3;
inline constexpr std::uint16_t nbd_cmd_trim = 4;
inline constexpr std::uint16_t nbd_cmd_write_zeroes = 6;
inline constexpr std::uint16_t nbd_cmd_block_status = 7;

inline constexpr std::uint16_t nbd_cmd_flag_fua = 1U << 0;
inline constexpr std::uint16_t nbd_cmd_flag_no_hole = 1U << 1;
inline constexpr std::uint16_t nbd_cmd_flag_df = 1U << 2;
inline constexpr std::uint16_t nbd_cmd_flag_req_one = 1U << 3;

// Replies.
inline constexpr std::uint32_t nbd_simple_reply_magic = 0x67446698;
inline constexpr std::uint32_t nbd_structured_reply_magic = 0x668e33ef;
inline constexpr std::uint16_t nbd_reply_flag_done = 1U << 0;
inline constexpr std::uint16_t nbd_reply_none = 0;
inline constexpr std::uint16_t nbd_reply_offset_data = 1;
inline constexpr std::uint16_t nbd_reply_offset_hole = 2;
inline constexpr std::uint16_t nbd_reply_block_status = 5;
inline constexpr std::uint16_t nbd_reply_error = (1U << 15) + 1;

// Error values on the wire.
inline constexpr std::uint32_t nbd_error_perm = 1;
inline constexpr std::uint32_t nbd_error_io = 5;
inline constexpr std::uint32_t nbd_error_nomem = 12;
inline constexpr std::uint32_t nbd_error_inval = 22;
inline constexpr std::uint32_t nbd_error_nospc = 28;
inline constexpr std::uint32_t nbd_error_shutdown = 108;

// Limits of this server.
inline constexpr std::uint32_t nbd_payload_bytes_max = 32U << 20;  // one read or write
inline constexpr std::uint32_t nbd_preferred_block_bytes = 4096;
inline constexpr std::uint32_t nbd_string_bytes_max = 4096;  // names and queries, as in proto.md
inline constexpr std::uint32_t nbd_option_bytes_max = 64U << 10;  // data of one option
inline constexpr std::uint32_t nbd_options_max = 128;             // options of one handshake
inline constexpr std::size_t nbd_extents_max = 1024;              // descriptors of one BLOCK_STATUS

}  // namespace havm
