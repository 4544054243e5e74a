// activity_log_codec and metadata_header: the documented bytes, damage of any bit, and tables
// rebuilt from rings in every state.
#include "vmrepl/disk/activity_log_codec.hpp"

#include <map>

#include "tests/unit/vmrepl/disk/metadata_fixture.hpp"
#include "vmrepl/wire/big_endian.hpp"
#include "vmrepl/wire/crc32c.hpp"

namespace havm {
namespace {

constexpr std::uint64_t extent = ActivityLogCore::extent_bytes;
constexpr std::uint32_t ring = ActivityLogCore::ring_blocks;
constexpr std::size_t block = metadata_block_bytes;

MetadataIdentity identity_of(std::uint64_t extents) {
  return {"f1b2c3d4-0000-4000-8000-000000000001", {{"vda", extents * extent}, {"vdb", 512}}};
}

LogTransaction sample() {
  LogTransaction t;
  t.number = 66;
  t.updates = {{7, LogExtent{1, 0x01020304}}, {300, std::nullopt}};
  t.context_first = 318;
  t.context = {LogExtent{0, 5}, std::nullopt, LogExtent{1, 6}};
  return t;
}

TEST(MetadataHeader, TheDocumentedHeadersAreWhatWeWrite) {
  const MetadataIdentity identity{"f1b2", {{"vda", 1073741824}}};
  EXPECT_EQ(encode_metadata_header(make_log_header(identity, 6656, 64)).value(),
            document_vector("Vector 1", metadata_header_bytes));
}

TEST(MetadataHeader, EveryFlippedBitIsNoticedOrHarmless) {
  const MetadataHeader header = make_log_header(identity_of(99), 6656, 77);
  const Bytes good = encode_metadata_header(header).value();
  EXPECT_EQ(decode_metadata_header(good, activity_log_magic).value(), header);
  const std::size_t used = 64 + load_be<std::uint32_t>(good.data() + 12);
  for (std::size_t bit = 0; bit < 8 * good.size(); bit += bit < 8 * used ? 1 : 61) {
    Bytes bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    const std::size_t at = bit / 8;
    const bool covered = at < 40 || (at >= 64 && at < used);
    const auto decoded = decode_metadata_header(bad, activity_log_magic);
    ASSERT_EQ(decoded.has_value(), !covered) << "byte " << at;
    if (decoded) {
      ASSERT_EQ(decoded.value(), header);
    }
  }
  EXPECT_FALSE(decode_metadata_header(good, bitmap_magic));
  EXPECT_FALSE(decode_metadata_header(std::span(good).first(8191), activity_log_magic));
  EXPECT_FALSE(decode_metadata_header(Bytes(metadata_header_bytes), activity_log_magic));
}

TEST(MetadataHeader, AnotherVersionAndWrongContentsAreRefusedThoughIntact) {
  const Bytes good = encode_metadata_header(make_log_header(identity_of(99), 6656, 1)).value();
  const auto sealed = [](Bytes bytes) {
    store_be(bytes.data() + 36, crc32c(std::span<const std::byte>(bytes).first(36)));
    return decode_metadata_header(bytes, activity_log_magic);
  };
  Bytes bad = good;
  store_be(bad.data() + 8, std::uint32_t{2});
  EXPECT_NE(sealed(bad).error().message.find("another version"), std::string::npos);
  bad = good;
  store_be(bad.data() + 12, std::uint32_t{8129});
  EXPECT_FALSE(sealed(bad));
  bad = good;
  store_be(bad.data() + 12, std::uint32_t{0});
  store_be(bad.data() + 16, std::uint32_t{0});
  EXPECT_NE(sealed(bad).error().message.find("contents"), std::string::npos);
  EXPECT_TRUE(sealed(good));
}

TEST(MetadataHeader, OnlyItsFirstSectorChangesInALifetime) {
  MetadataIdentity many{"f1b2", {}};
  for (int i = 0; i < 190; ++i)
    many.disks.push_back({"disk" + std::to_string(i), 512});
  const Bytes a = encode_metadata_header(make_log_header(many, 6656, 1)).value();
  const Bytes b = encode_metadata_header(make_log_header(many, 6656, 123456789)).value();
  EXPECT_TRUE(std::equal(a.begin() + sector_bytes, a.end(), b.begin() + sector_bytes));
  many.disks.resize(256, {"some name of a disk", 1});
  EXPECT_EQ(encode_metadata_header(make_log_header(many, 1, 1)).error().code, E2BIG);
  EXPECT_FALSE(encode_metadata_header(make_log_header({"", {}}, 1, 1)));
}

TEST(ActivityLogCodec, TheDocumentedBlockIsWhatWeWrite) {
  EXPECT_EQ(encode_log_block(sample()), document_vector("Vector 2", block));
}

TEST(ActivityLogCodec, TransactionsGoRound) {
  LogTransaction largest;
  largest.number = UINT64_MAX;
  for (std::uint32_t i = 0; i < ActivityLogCore::updates_max; ++i)
    largest.updates.push_back({i, LogExtent{0xfffe, UINT32_MAX - i}});
  largest.context.resize(ActivityLogCore::context_slots(ActivityLogCore::slots_max),
                         LogExtent{1, 2});
  for (const LogTransaction& t : {sample(), largest, LogTransaction{}}) {
    const auto decoded = decode_log_block(encode_log_block(t));
    ASSERT_TRUE(std::holds_alternative<LogTransaction>(decoded));
    EXPECT_EQ(std::get<LogTransaction>(decoded), t);
  }
}

TEST(ActivityLogCodec, EveryFlippedBitAndEveryTornSectorIsNoticed) {
  const Bytes good = encode_log_block(sample());
  for (std::size_t bit = 0; bit < 8 * good.size(); bit += bit < 1024 ? 1 : 61) {
    Bytes bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    const auto decoded = decode_log_block(bad);
    ASSERT_TRUE(std::holds_alternative<LogBlockFault>(decoded)) << "bit " << bit;
    ASSERT_EQ(std::get<LogBlockFault>(decoded), LogBlockFault::damaged);
  }
}

LogBlockFault fault_of(const Bytes& bytes) {
  const auto decoded = decode_log_block(bytes);
  const auto* fault = std::get_if<LogBlockFault>(&decoded);
  EXPECT_NE(fault, nullptr);
  return fault != nullptr ? *fault : LogBlockFault{};
}

void seal(Bytes& bytes) {
  const std::span<const std::byte> all(bytes);
  store_be(bytes.data() + 12, crc32c(all.subspan(16), crc32c(all.first(12))));
}

TEST(ActivityLogCodec, EveryKindOfFaultIsTold) {
  EXPECT_EQ(fault_of(Bytes(block)), LogBlockFault::damaged);
  EXPECT_EQ(fault_of(Bytes(block - 1)), LogBlockFault::damaged);
  Bytes bad = encode_log_block(sample());
  store_be(bad.data() + 8, std::uint32_t{2});
  seal(bad);
  EXPECT_EQ(fault_of(bad), LogBlockFault::other_format);
  for (const std::size_t count_at : {24U, 26U}) {
    bad = encode_log_block(sample());
    store_be(bad.data() + count_at, std::uint16_t{257});
    seal(bad);
    EXPECT_EQ(fault_of(bad), LogBlockFault::wrong_contents);
  }
}

// A log that lives: the core decides, the ring is what the file would hold.
class RingTest : public testing::Test {
 protected:
  void begin(std::uint32_t slots, std::uint32_t extents, unsigned seed,
             std::uint64_t first = log_first_transaction) {
    extents_ = extents;
    random_.seed(seed);
    header_ = make_log_header(identity_of(extents), slots, first);
    ring_ = make_empty_ring(slots, first);
    std::vector<std::uint64_t> sizes;
    for (const DiskIdentity& disk : header_.identity.disks)
      sizes.push_back(disk.size_bytes);
    core_.emplace(sizes, LogTable(slots), first);
    tables_.clear();
    tables_[first - 1] = LogTable(slots);
    newest_ = first - 1;
  }

  // One more transaction.
  void go_on() {
    std::optional<LogTransaction> t;
    while (!t) {
      const std::uint64_t at = random_() % extents_;
      const std::uint64_t length = (1 + random_() % std::min<std::uint64_t>(4, extents_ - at));
      if (core_->admit(0, at * extent, length * extent).kind !=
          ActivityLogCore::Admission::Kind::full)
        core_->release(0, at * extent, length * extent);
      if (random_() % 2 == 0) core_->flush_done(0, core_->flush_started(0));
      t = core_->start_transaction();
    }
    core_->transaction_done(t->number);
    LogTable table = tables_[newest_];
    for (const LogSlot& update : t->updates)
      table[update.slot] = update.extent;
    newest_ = t->number;
    tables_[newest_] = table;
    set_block(newest_, encode_log_block(*t));
  }
  void set_block(std::uint64_t number, const Bytes& bytes) {
    std::ranges::copy(bytes, ring_.begin() + static_cast<std::ptrdiff_t>(number % ring * block));
  }
  Bytes garbage() {
    Bytes bytes(block);
    for (std::byte& b : bytes)
      b = static_cast<std::byte>(random_());
    return bytes;
  }
  [[nodiscard]] RebuiltLog rebuilt() const { return rebuild_log(header_, ring_); }
  void expect_table(std::uint64_t number, bool torn) {
    const RebuiltLog log = rebuilt();
    ASSERT_EQ(log.damage, "") << "at transaction " << number;
    EXPECT_EQ(log.newest, number);
    EXPECT_EQ(log.newest_torn, torn);
    EXPECT_EQ(log.table, tables_[number]) << "at transaction " << number;
  }

  std::uint32_t extents_ = 0;
  std::mt19937 random_;
  MetadataHeader header_;
  Bytes ring_;
  std::optional<ActivityLogCore> core_;
  std::map<std::uint64_t, LogTable> tables_;  // after each transaction
  std::uint64_t newest_ = 0;
};

TEST_F(RingTest, AnyNewestBlocksButOneRebuildTheWholeTable) {
  for (const std::uint32_t slots : {1U, 5U, 62U, 63U, 64U, 126U, 127U, 1000U, 6656U, 15750U}) {
    SCOPED_TRACE(std::to_string(slots) + " slots");
    begin(slots, slots + 50, slots, 100);
    expect_table(99, false);
    for (int i = 0; i < 200 && !HasFailure(); ++i) {
      go_on();
      if (slots > 1000 && i % 16 != 0) continue;
      expect_table(newest_, false);
      const Bytes kept = ring_;
      set_block(newest_ + 1, garbage());  // its place holds the oldest, or nothing
      expect_table(newest_, true);
      ring_ = kept;
    }
  }
}

TEST_F(RingTest, ANewLogThatLostABlockIsDamaged) {
  begin(500, 700, 2);
  expect_table(63, false);
  for (std::uint64_t n = 1; n < ring; ++n) {
    const Bytes kept = ring_;
    set_block(n, Bytes(block));
    EXPECT_NE(rebuilt().damage, "") << n;
    ring_ = kept;
  }
  ring_.assign(ring_.size(), std::byte{0});
  EXPECT_NE(rebuilt().damage, "");
}

TEST_F(RingTest, ATornNewestTransactionLeavesTheTableBefore) {
  begin(200, 400, 3);
  for (int i = 0; i < 150 && !HasFailure(); ++i) {
    const Bytes before = ring_;
    go_on();
    const Bytes after = ring_;
    for (std::size_t sectors = 0; sectors < block / sector_bytes; ++sectors) {
      ring_ = before;
      const auto at = static_cast<std::ptrdiff_t>(newest_ % ring * block);
      std::copy_n(after.begin() + at, sectors * sector_bytes, ring_.begin() + at);
      if (ring_ == after) continue;
      expect_table(newest_ - 1, ring_ != before);
    }
    ring_ = after;
  }
}

TEST_F(RingTest, DamageToAnyOtherBlockThatCountsIsDamage) {
  begin(500, 700, 4);
  for (const std::uint64_t until : {68U, 125U, 126U, 127U, 130U, 200U}) {
    while (newest_ < until)
      go_on();
    const std::uint64_t oldest = std::max(newest_ - (ring - 2), log_first_transaction);
    for (std::uint64_t n = oldest; n < newest_; ++n) {
      const Bytes kept = ring_;
      for (const Bytes& bad : {garbage(), Bytes(block)}) {
        set_block(n, bad);
        const RebuiltLog log = rebuilt();
        EXPECT_NE(log.damage.find("transaction " + std::to_string(n)), std::string::npos)
            << log.damage;
        EXPECT_EQ(log.newest, newest_);
        ring_ = kept;
      }
      // An older transaction in its place: a write that was lost.
      std::copy_n(ring_.begin() + static_cast<std::ptrdiff_t>((n + 1) % ring * block), block,
                  ring_.begin() + static_cast<std::ptrdiff_t>(n % ring * block));
      EXPECT_NE(rebuilt().damage, "");
      ring_ = kept;
    }
    expect_table(newest_, false);
  }
}

TEST_F(RingTest, ALostWriteIsDamage) {
  begin(500, 700, 5);
  Bytes old;
  while (newest_ < 200) {
    const Bytes before = ring_;
    go_on();
    if (newest_ == 150) old = before;
  }
  std::copy_n(old.begin() + static_cast<std::ptrdiff_t>(150 % ring * block), block,
              ring_.begin() + static_cast<std::ptrdiff_t>(150 % ring * block));
  EXPECT_EQ(rebuilt().damage, "transaction 150 is missing");
}

TEST_F(RingTest, TwoDamagedBlocksAreNeverTakenForOneTornWrite) {
  begin(500, 700, 6);
  for (const std::uint64_t until : {66U, 100U, 163U}) {
    while (newest_ < until)
      go_on();
    const Bytes kept = ring_;
    set_block(newest_, garbage());
    set_block(newest_ - 1, garbage());
    EXPECT_NE(rebuilt().damage, "") << until;
    ring_ = kept;
  }
}

TEST_F(RingTest, WhatIsBeforeTheFirstTransactionDoesNotCount) {
  begin(500, 700, 7);
  while (newest_ < 100)
    go_on();
  header_.first = 101;
  RebuiltLog log = rebuilt();
  EXPECT_EQ(log.damage, "");
  EXPECT_EQ(log.newest, 100U);
  EXPECT_EQ(log.table, LogTable(500));
  // And life goes on over the old blocks.
  core_.emplace(std::vector<std::uint64_t>{700 * extent, 512}, LogTable(500), 101);
  tables_[100] = LogTable(500);
  for (int i = 0; i < 100 && !HasFailure(); ++i) {
    go_on();
    expect_table(newest_, false);
  }
}

TEST_F(RingTest, WhatDoesNotFitTheHeaderIsDamage) {
  begin(500, 700, 8);
  while (newest_ < 100)
    go_on();
  const MetadataHeader good = header_;
  for (const std::uint32_t slots : {0U, 499U, 64U, 15751U, UINT32_MAX}) {
    header_.units = slots;
    EXPECT_NE(rebuilt().damage, "") << slots;
  }
  header_ = good;
  header_.blocks = 63;
  EXPECT_NE(rebuilt().damage, "");
  header_ = good;
  for (const std::uint64_t first : {0U, 63U}) {
    header_.first = first;
    EXPECT_NE(rebuilt().damage, "") << first;
  }
  header_ = good;
  header_.identity = identity_of(3);  // extents beyond the disk
  EXPECT_NE(rebuilt().damage, "");
  header_ = good;
  expect_table(newest_, false);
}

TEST_F(RingTest, AForgedTransactionIsDamage) {
  begin(500, 700, 9);
  while (newest_ < 70)
    go_on();
  const Bytes kept = ring_;
  const auto forged = [&](const std::function<void(LogTransaction&)>& change) {
    ring_ = kept;
    LogTransaction t;
    t.number = 71;
    t.context_first = ActivityLogCore::context_first(71, 500);
    t.context.resize(ActivityLogCore::context_slots(500));
    change(t);
    set_block(71, encode_log_block(t));
    return rebuilt().damage;
  };
  EXPECT_EQ(forged([](LogTransaction&) {}), "");
  EXPECT_NE(forged([](LogTransaction& t) { t.number = 72; }), "");
  EXPECT_NE(forged([](LogTransaction& t) { ++t.context_first; }), "");
  EXPECT_NE(forged([](LogTransaction& t) { t.context.pop_back(); }), "");
  EXPECT_NE(forged([](LogTransaction& t) { t.context[0] = LogExtent{0, 700}; }), "");
  EXPECT_NE(forged([](LogTransaction& t) { t.updates = {{500, std::nullopt}}; }), "");
  EXPECT_NE(forged([](LogTransaction& t) { t.updates = {{0, LogExtent{2, 0}}}; }), "");
  EXPECT_NE(forged([](LogTransaction& t) { t.updates = {{0, LogExtent{1, 1}}}; }), "");
  EXPECT_NE(forged([](LogTransaction& t) { t.number = 71 + (std::uint64_t{1} << 60); }), "");
}

}  // namespace
}  // namespace havm
