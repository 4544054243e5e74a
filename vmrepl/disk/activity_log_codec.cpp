#include "vmrepl/disk/activity_log_codec.hpp"

#include <algorithm>
#include <utility>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/wire/big_endian.hpp"
#include "vmrepl/wire/crc32c.hpp"

namespace havm {
namespace {

constexpr std::size_t version_at = 8;
constexpr std::size_t crc_at = 12;  // of all before it followed by all after it
constexpr std::size_t number_at = 16;
constexpr std::size_t updates_count_at = 24;
constexpr std::size_t context_count_at = 26;
constexpr std::size_t context_first_at = 28;
constexpr std::size_t updates_at = 32;
constexpr std::size_t extent_bytes = 6;                 // disk, index
constexpr std::size_t update_bytes = 4 + extent_bytes;  // slot, extent
constexpr std::uint16_t no_disk = 0xffff;

constexpr std::uint32_t ring_blocks = ActivityLogCore::ring_blocks;
constexpr std::size_t updates_max = ActivityLogCore::updates_max;
constexpr std::size_t context_max = ActivityLogCore::context_slots(ActivityLogCore::slots_max);
static_assert(updates_at + updates_max * update_bytes + context_max * extent_bytes <=
                  metadata_block_bytes,
              "the largest transaction must fit into a block");

std::uint32_t crc_of(std::span<const std::byte> block) {
  return crc32c(block.subspan(number_at, metadata_block_bytes - number_at),
                crc32c(block.first(crc_at)));
}

void store_extent(std::byte* at, const std::optional<LogExtent>& extent) {
  store_be(at, extent ? extent->disk : no_disk);
  store_be(at + 2, extent ? extent->index : 0);
}

std::optional<LogExtent> load_extent(const std::byte* at) {
  const LogExtent extent{load_be<std::uint16_t>(at), load_be<std::uint32_t>(at + 2)};
  if (extent.disk == no_disk) return std::nullopt;
  return extent;
}

bool on_a_disk(const std::optional<LogExtent>& extent, const MetadataHeader& header) {
  if (!extent) return true;
  const auto& disks = header.identity.disks;
  return extent->disk < disks.size() &&
         extent->index * ActivityLogCore::extent_bytes < disks[extent->disk].size_bytes;
}

// What only the header can tell: is this a transaction of this log?
bool belongs(const LogTransaction& t, const MetadataHeader& header) {
  const std::uint32_t first = ActivityLogCore::context_first(t.number, header.units);
  const std::uint32_t count =
      std::min(ActivityLogCore::context_slots(header.units), header.units - first);
  if (t.context_first != first || t.context.size() != count) return false;
  return std::ranges::all_of(t.context, [&](const auto& e) { return on_a_disk(e, header); }) &&
         std::ranges::all_of(t.updates, [&](const LogSlot& update) {
           return update.slot < header.units && on_a_disk(update.extent, header);
         });
}

void apply(const LogTransaction& t, LogTable& table) {
  for (const LogSlot& update : t.updates)
    table[update.slot] = update.extent;
  std::ranges::copy(t.context, table.begin() + static_cast<std::ptrdiff_t>(t.context_first));
}

std::string transaction(std::uint64_t number) {
  return "transaction " + std::to_string(number);
}

}  // namespace

const char* to_text(LogBlockFault fault) {
  switch (fault) {
    case LogBlockFault::damaged:
      return "is torn or damaged";
    case LogBlockFault::other_format:
      return "was written by another version of havm";
    case LogBlockFault::wrong_contents:
      return "is intact but its contents are not a transaction";
  }
  return "has an unknown fault";
}

std::vector<std::byte> encode_log_block(const LogTransaction& t) {
  HAVM_ASSERT(t.updates.size() <= updates_max && t.context.size() <= context_max,
              "a transaction must fit into a block");
  std::vector<std::byte> block(metadata_block_bytes);
  store_be(block.data(), log_block_magic);
  store_be(block.data() + version_at, metadata_version);
  store_be(block.data() + number_at, t.number);
  store_be(block.data() + updates_count_at, static_cast<std::uint16_t>(t.updates.size()));
  store_be(block.data() + context_count_at, static_cast<std::uint16_t>(t.context.size()));
  store_be(block.data() + context_first_at, t.context_first);
  std::byte* at = block.data() + updates_at;
  for (const LogSlot& update : t.updates) {
    store_be(at, update.slot);
    store_extent(at + 4, update.extent);
    at += update_bytes;
  }
  for (const auto& extent : t.context) {
    store_extent(at, extent);
    at += extent_bytes;
  }
  store_be(block.data() + crc_at, crc_of(block));
  return block;
}

std::variant<LogTransaction, LogBlockFault> decode_log_block(std::span<const std::byte> block) {
  if (block.size() < metadata_block_bytes) return LogBlockFault::damaged;
  block = block.first(metadata_block_bytes);
  if (load_be<std::uint64_t>(block.data()) != log_block_magic) return LogBlockFault::damaged;
  if (load_be<std::uint32_t>(block.data() + crc_at) != crc_of(block)) return LogBlockFault::damaged;
  if (load_be<std::uint32_t>(block.data() + version_at) != metadata_version)
    return LogBlockFault::other_format;
  const std::size_t updates = load_be<std::uint16_t>(block.data() + updates_count_at);
  const std::size_t context = load_be<std::uint16_t>(block.data() + context_count_at);
  if (updates > updates_max || context > context_max) return LogBlockFault::wrong_contents;
  LogTransaction t;
  t.number = load_be<std::uint64_t>(block.data() + number_at);
  t.context_first = load_be<std::uint32_t>(block.data() + context_first_at);
  const std::byte* at = block.data() + updates_at;
  for (std::size_t i = 0; i < updates; ++i, at += update_bytes)
    t.updates.push_back({load_be<std::uint32_t>(at), load_extent(at + 4)});
  for (std::size_t i = 0; i < context; ++i, at += extent_bytes)
    t.context.push_back(load_extent(at));
  return t;
}

MetadataHeader make_log_header(const MetadataIdentity& identity, std::uint32_t slots,
                               std::uint64_t first_transaction) {
  MetadataHeader header;
  header.magic = activity_log_magic;
  header.identity = identity;
  header.units = slots;
  header.blocks = ring_blocks;
  header.first = first_transaction;
  return header;
}

std::vector<std::byte> make_empty_ring(std::uint32_t slots, std::uint64_t first_transaction) {
  HAVM_ASSERT(first_transaction >= log_first_transaction, "numbers before it must exist");
  std::vector<std::byte> ring(ring_blocks * metadata_block_bytes);
  for (std::uint64_t n = first_transaction - ring_blocks; n < first_transaction; ++n) {
    LogTransaction t;
    t.number = n;
    t.context_first = ActivityLogCore::context_first(n, slots);
    t.context.resize(std::min(ActivityLogCore::context_slots(slots), slots - t.context_first));
    const auto at = static_cast<std::ptrdiff_t>(n % ring_blocks * metadata_block_bytes);
    std::ranges::copy(encode_log_block(t), ring.begin() + at);
  }
  return ring;
}

RebuiltLog rebuild_log(const MetadataHeader& header, std::span<const std::byte> ring) {
  RebuiltLog log;
  log.newest = header.first == 0 ? 0 : header.first - 1;
  const auto damaged = [&log](std::string why) {
    if (log.damage.empty()) log.damage = std::move(why);
  };
  if (header.units == 0 || header.units > ActivityLogCore::slots_max ||
      header.first < log_first_transaction || header.blocks != ring_blocks ||
      ring.size() != ring_blocks * metadata_block_bytes) {
    damaged("its header names impossible sizes");
    return log;
  }
  std::vector<std::variant<LogTransaction, LogBlockFault>> blocks;
  for (std::size_t i = 0; i < ring_blocks; ++i) {
    blocks.push_back(
        decode_log_block(ring.subspan(i * metadata_block_bytes, metadata_block_bytes)));
    const auto* t = std::get_if<LogTransaction>(&blocks.back());
    if (t == nullptr) continue;
    if (t->number % ring_blocks != i || !belongs(*t, header))
      damaged(transaction(t->number) + " is intact but does not belong there");
    log.newest = std::max(log.newest, t->number);
  }

  // The transactions that count and are not about to be written over.
  const std::uint64_t reach = ring_blocks - 2;
  const std::uint64_t oldest = log.newest - header.first >= reach && log.newest >= header.first
                                   ? log.newest - reach
                                   : header.first;
  log.table.resize(header.units);
  for (std::uint64_t n = oldest; n <= log.newest && log.damage.empty(); ++n) {
    const auto* t = std::get_if<LogTransaction>(&blocks[n % ring_blocks]);
    if (t == nullptr)
      damaged(transaction(n) + " " + to_text(std::get<LogBlockFault>(blocks[n % ring_blocks])));
    else if (t->number != n)
      damaged(transaction(n) + " is missing");
    else
      apply(*t, log.table);
  }

  // The places that hold none of these: the next one may be torn; in a young log the others hold
  // what does not count any more.
  for (std::uint64_t n = log.newest + 1; n < oldest + ring_blocks; ++n) {
    const auto* fault = std::get_if<LogBlockFault>(&blocks[n % ring_blocks]);
    if (fault == nullptr) continue;
    if (n == log.newest + 1 && *fault == LogBlockFault::damaged)
      log.newest_torn = true;
    else
      damaged("block " + std::to_string(n % ring_blocks) + " " + to_text(*fault));
  }
  return log;
}

}  // namespace havm
