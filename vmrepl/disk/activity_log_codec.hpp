// The job of activity_log_codec: the blocks of an activity log file, bytes ↔ LogTransaction, and
// the table that a ring of them amounts to (docs/protocol/on-disk.md). No I/O, clock or log.
//
// Guarantees of rebuild_log
//  1. `damage` is empty only when the table is certain: the newest transaction and the
//     ring_blocks - 2 before it are intact, as far back as they count, and nothing else in the
//     ring contradicts them.
//  2. A torn newest transaction is passed over: nothing that it announces was submitted.
//  3. Everything else is damage; then the caller takes everything for dirty.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "vmrepl/bitmap/activity_log_core.hpp"
#include "vmrepl/disk/metadata_header.hpp"

namespace havm {

using LogTable = std::vector<std::optional<LogExtent>>;

constexpr std::uint64_t log_block_magic = 0x4841564d414c5452;  // "HAVMALTR"
constexpr std::size_t log_file_bytes =
    metadata_header_bytes + ActivityLogCore::ring_blocks * metadata_block_bytes;

enum class LogBlockFault : std::uint8_t {
  damaged,         // torn, lost or damaged
  other_format,    // intact, but of another version of havm
  wrong_contents,  // intact, but not a transaction (a bug, or made by hand)
};
const char* to_text(LogBlockFault fault);

// Exactly metadata_block_bytes. More updates or context than ActivityLogCore makes is a bug.
std::vector<std::byte> encode_log_block(const LogTransaction& transaction);
std::variant<LogTransaction, LogBlockFault> decode_log_block(std::span<const std::byte> block);

// Where the transaction's block lies in the file, in bytes.
constexpr std::uint64_t log_block_offset(std::uint64_t number) {
  return metadata_header_bytes + number % ActivityLogCore::ring_blocks * metadata_block_bytes;
}

// A new log counts from here: the places of its ring hold transactions before it that say nothing,
// so that a block which reads as zeroes was lost, and a file cut short is not an empty log.
constexpr std::uint64_t log_first_transaction = ActivityLogCore::ring_blocks;

MetadataHeader make_log_header(const MetadataIdentity& identity, std::uint32_t slots,
                               std::uint64_t first_transaction);
// The blocks of an empty log that counts from `first_transaction` ≥ log_first_transaction.
std::vector<std::byte> make_empty_ring(std::uint32_t slots, std::uint64_t first_transaction);

struct RebuiltLog {
  LogTable table;
  std::uint64_t newest = 0;  // the transaction that made this table; header.first - 1 when none did
  bool newest_torn = false;  // the write after it did not reach the medium whole
  std::string damage;        // why the table is worth nothing, or empty
};
// `ring`: all blocks after the header. Whatever damage, `newest` is the highest number seen.
RebuiltLog rebuild_log(const MetadataHeader& header, std::span<const std::byte> ring);

}  // namespace havm
