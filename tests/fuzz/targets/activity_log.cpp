// A ring of an activity log (docs/protocol/on-disk.md): what a crash, a lost write or damage may
// leave of transactions that were written in order, and blocks with any contents.
//
// Input: a mode; then the transactions of a log, made as ActivityLogCore makes them, and what
// happened to their blocks; or, by the mode, contents of blocks, around which right checksums are
// put.
#include <algorithm>
#include <map>

#include "tests/fuzz/support/fuzz_target.hpp"
#include "vmrepl/disk/activity_log_codec.hpp"
#include "vmrepl/wire/big_endian.hpp"
#include "vmrepl/wire/crc32c.hpp"

namespace havm::fuzz {
namespace {

constexpr std::uint32_t ring_blocks = ActivityLogCore::ring_blocks;
constexpr std::size_t crc_at = 12;

std::vector<DiskIdentity> disks() {
  return {{"vda", 40 * ActivityLogCore::extent_bytes}, {"vdb", ActivityLogCore::extent_bytes}};
}

std::size_t place_of(std::uint64_t number) {
  return number % ring_blocks * metadata_block_bytes;
}

std::optional<LogExtent> some_extent(Input& in) {
  const std::uint8_t byte = in.byte();
  if (byte % 4 == 3) return std::nullopt;
  if (byte % 4 == 2) return LogExtent{1, 0};
  return LogExtent{0, byte / 4U % 40U};
}

// The log as it was written, and the table after each of its transactions.
struct Written {
  MetadataHeader header;
  std::vector<std::byte> ring;
  std::map<std::uint64_t, LogTable> tables;
  std::uint64_t newest = 0;
};

Written write_log(Input& in) {
  Written w;
  const std::uint32_t slots = 1 + in.byte();
  const std::uint64_t first = log_first_transaction + in.number(2);
  w.header = make_log_header({"vm", disks()}, slots, first);
  w.ring = make_empty_ring(slots, first);
  w.newest = first - 1;
  LogTable table(slots);
  w.tables[w.newest] = table;
  for (std::size_t count = in.byte(); count > 0; --count) {
    LogTransaction t;
    t.number = ++w.newest;
    for (std::size_t updates = in.below(4); updates > 0; --updates) {
      const auto slot = static_cast<std::uint32_t>(in.number(2) % slots);
      t.updates.push_back({slot, some_extent(in)});
      table[slot] = t.updates.back().extent;
    }
    t.context_first = ActivityLogCore::context_first(t.number, slots);
    const std::uint32_t length =
        std::min(ActivityLogCore::context_slots(slots), slots - t.context_first);
    for (std::uint32_t i = 0; i < length; ++i)
      t.context.push_back(table[t.context_first + i]);
    std::ranges::copy(encode_log_block(t),
                      w.ring.begin() + static_cast<std::ptrdiff_t>(place_of(t.number)));
    w.tables[t.number] = table;
  }
  return w;
}

// Torn, lost, overwritten or flipped: never contents that were not written as a whole.
void damage(Input& in, const Written& w, std::vector<std::byte>& ring) {
  const std::uint64_t number = w.newest - in.below(ring_blocks);
  const std::span<std::byte> block(ring.data() + place_of(number), metadata_block_bytes);
  switch (in.below(3)) {
    case 0:
      std::ranges::fill(block.subspan(in.below(8) * 512), std::byte{0});
      return;
    case 1: {
      const std::size_t bit = in.number(2) % (metadata_block_bytes * 8);
      block[bit / 8] ^= std::byte{1} << static_cast<int>(bit % 8);
      return;
    }
    default: {
      // A write that was lost: what was there a round before.
      if (number < w.header.first + ring_blocks) return;
      LogTransaction old;
      old.number = number - ring_blocks;
      old.context_first = ActivityLogCore::context_first(old.number, w.header.units);
      const LogTable& table = w.tables.at(old.number);
      const std::uint32_t length = std::min(ActivityLogCore::context_slots(w.header.units),
                                            w.header.units - old.context_first);
      for (std::uint32_t i = 0; i < length; ++i)
        old.context.push_back(table[old.context_first + i]);
      std::ranges::copy(encode_log_block(old), block.begin());
      return;
    }
  }
}

void check_written(Input& in) {
  const Written w = write_log(in);
  const RebuiltLog whole = rebuild_log(w.header, w.ring);
  FUZZ_CHECK(whole.damage.empty() && !whole.newest_torn, "what was written is whole");
  FUZZ_CHECK(whole.newest == w.newest && whole.table == w.tables.at(w.newest),
             "the table is that of the newest transaction");
  std::vector<std::byte> ring = w.ring;
  for (std::size_t times = 1 + in.below(3); times > 0; --times)
    damage(in, w, ring);
  const RebuiltLog left = rebuild_log(w.header, ring);
  FUZZ_CHECK(left.newest <= w.newest, "no transaction is invented");
  if (!left.damage.empty()) return;
  const auto known = w.tables.find(left.newest);
  FUZZ_CHECK(known != w.tables.end() && known->second == left.table,
             "a table that is not called damaged is that of its newest transaction");
}

void check_forged(Input& in) {
  const std::uint32_t slots = 1 + in.byte();
  MetadataHeader header =
      make_log_header({"vm", disks()}, slots, in.flag() ? log_first_transaction : in.number(8));
  if (in.byte() == 0) header.units = static_cast<std::uint32_t>(in.number(4));
  std::vector<std::byte> ring = make_empty_ring(slots, log_first_transaction);
  while (!in.empty()) {
    const std::size_t place = in.below(ring_blocks) * metadata_block_bytes;
    std::vector<std::byte> block(metadata_block_bytes);
    store_be(block.data(), log_block_magic);
    store_be(block.data() + 8, metadata_version);
    const Bytes contents = in.bytes(1 + in.byte());
    std::ranges::copy(contents, block.begin() + 16);
    const std::uint32_t head = crc32c(Bytes(block).first(crc_at));
    store_be(block.data() + crc_at, crc32c(Bytes(block).subspan(crc_at + 4), head));
    const auto decoded = decode_log_block(block);
    if (const auto* t = std::get_if<LogTransaction>(&decoded))
      FUZZ_CHECK(std::get<LogTransaction>(decode_log_block(encode_log_block(*t))) == *t,
                 "decode(encode(x)) == x");
    else
      FUZZ_CHECK(std::get<LogBlockFault>(decoded) == LogBlockFault::wrong_contents,
                 "an intact block is not called damaged");
    std::ranges::copy(block, ring.begin() + static_cast<std::ptrdiff_t>(place));
  }
  const RebuiltLog log = rebuild_log(header, ring);
  if (!log.damage.empty()) return;
  FUZZ_CHECK(log.table.size() == header.units, "a table has its size");
  for (const auto& extent : log.table)
    FUZZ_CHECK(!extent || (extent->disk < 2 && extent->index < (extent->disk == 0 ? 40U : 1U)),
               "a table names only extents of its disks");
}

}  // namespace

void one_input(Bytes input) {
  Input in(input);
  if (in.byte() % 4 == 3)
    check_forged(in);
  else
    check_written(in);
}

std::vector<std::string> seeds() {
  const std::string updates = packed(2, 1) + packed(3, 2) + packed(4, 1) + packed(1, 2) +
                              packed(2, 1) + packed(1, 1) + packed(0, 2) + packed(3, 1);
  std::string many;
  for (int i = 0; i < 40; ++i)
    many += updates;
  const auto log = [&](std::uint8_t slots, std::uint8_t count, const std::string& happened) {
    return packed(0, 1) + packed(slots, 1) + packed(7, 2) + packed(count, 1) +
           many.substr(0, count / 2U * updates.size()) + happened;
  };
  const std::string torn = packed(0, 1) + packed(0, 1) + packed(0, 1) + packed(2, 1);
  const std::string lost = packed(1, 1) + packed(1, 1) + packed(2, 1) + packed(9, 1) + packed(2, 1);
  const std::string flipped = packed(0, 1) + packed(3, 1) + packed(1, 1) + packed(300, 2);
  return {log(3, 4, torn), log(20, 80, lost), log(200, 70, flipped), log(1, 0, torn),
          packed(3, 1) + packed(4, 1) + packed(1, 1) + packed(1, 1) + packed(5, 1) + packed(30, 1) +
              packed(69, 8) + packed(1, 2) + packed(1, 2) + packed(5, 4) + packed(2, 4) +
              packed(0, 2) + packed(7, 4) + packed(0, 6)};
}

}  // namespace havm::fuzz
