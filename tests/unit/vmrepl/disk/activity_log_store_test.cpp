// ActivityLogStore on real files: what is done is found again, torn writes and resets at every
// sector, failures that stick.
#include "vmrepl/disk/activity_log_store.hpp"

#include "tests/unit/vmrepl/disk/metadata_fixture.hpp"

namespace havm {
namespace {

constexpr std::uint64_t extent = ActivityLogCore::extent_bytes;
constexpr std::uint32_t ring = ActivityLogCore::ring_blocks;
constexpr std::uint64_t first = log_first_transaction;

class ActivityLogStoreTest : public MetadataFixture {
 protected:
  static constexpr std::uint32_t slots = 100;

  void create() const {
    const auto created = ActivityLogStore::create(path_, identity(), slots);
    ASSERT_TRUE(created) << created.error().message;
  }
  std::optional<ActivityLogStore> load() {
    auto store = ActivityLogStore::load(loop_, path_, identity(), slots);
    EXPECT_TRUE(store) << store.error().message;
    if (!store) return std::nullopt;
    return std::move(store).value();
  }
  LogContents loaded() {
    const auto store = load();
    return store ? store->contents() : LogContents{};
  }
  int write(ActivityLogStore& store, const LogTransaction& t) {
    return result_of([&](auto done) { store.write(t, std::move(done)); });
  }
  static ActivityLogCore core_of(const LogContents& contents) {
    return ActivityLogCore({identity().disks[0].size_bytes, identity().disks[1].size_bytes},
                           contents.table, contents.next_transaction);
  }

  // Random work until something is to be written.
  LogTransaction next(ActivityLogCore& core) {
    while (true) {
      const std::uint64_t at = random_() % 1200;
      if (core.admit(0, at * extent, 8 * extent).kind != ActivityLogCore::Admission::Kind::full)
        core.release(0, at * extent, 8 * extent);
      else
        core.flush_done(0, core.flush_started(0));
      if (auto t = core.start_transaction()) return *t;
    }
  }
  static LogTable applied(LogTable table, const LogTransaction& t) {
    for (const LogSlot& update : t.updates)
      table[update.slot] = update.extent;
    return table;
  }
  // `count` transactions; the table that they leave.
  LogTable work(ActivityLogStore& store, int count) {
    ActivityLogCore core = core_of(store.contents());
    LogTable table = store.contents().table;
    for (int i = 0; i < count; ++i) {
      const LogTransaction t = next(core);
      EXPECT_EQ(write(store, t), 0);
      core.transaction_done(t.number);
      table = applied(std::move(table), t);
    }
    return table;
  }
  void damage_block(std::uint64_t number) const {
    poke(log_block_offset(number) + 100, Bytes(600, std::byte{0x5a}));
  }
  static LogTable nothing() { return LogTable(slots); }

  std::mt19937 random_{1};
};

TEST_F(ActivityLogStoreTest, ANewLogIsEmptyAndWhollyThere) {
  create();
  const auto store = load();
  ASSERT_TRUE(store);
  EXPECT_FALSE(store->contents().damaged());
  EXPECT_FALSE(store->contents().newest_torn);
  EXPECT_EQ(store->contents().table, nothing());
  EXPECT_EQ(store->contents().next_transaction, first);
  EXPECT_EQ(store->path(), path_);
  const struct stat st = status();
  EXPECT_EQ(st.st_mode & 07777, 0600U);
  EXPECT_EQ(static_cast<std::size_t>(st.st_size), log_file_bytes);
  EXPECT_GE(static_cast<std::size_t>(st.st_blocks) * 512, log_file_bytes) << "no holes";
  EXPECT_EQ(descriptor_flags(), FD_CLOEXEC);
}

TEST_F(ActivityLogStoreTest, WhatIsDoneIsFoundAgain) {
  create();
  std::uint64_t transactions = 0;
  LogTable table = nothing();
  for (const int count : {1, 5, 57, 1, 64, 100}) {
    auto store = load();
    ASSERT_TRUE(store);
    EXPECT_FALSE(store->contents().damaged()) << store->contents().damage;
    EXPECT_EQ(store->contents().table, table);
    EXPECT_EQ(store->contents().next_transaction, first + transactions);
    table = work(*store, count);
    transactions += static_cast<std::uint64_t>(count);
  }
  EXPECT_EQ(loaded().table, table);
}

TEST_F(ActivityLogStoreTest, ADoneTransactionIsInTheFileAtOnce) {
  create();
  auto store = load();
  const LogTable table = work(*store, 70);
  const auto seen = read_activity_log(path_);  // beside the lock
  ASSERT_TRUE(seen) << seen.error().message;
  EXPECT_EQ(seen.value().log.table, table);
  EXPECT_EQ(seen.value().log.newest, first + 69);
}

TEST_F(ActivityLogStoreTest, OneWriterAndNeverReplaced) {
  create();
  EXPECT_EQ(ActivityLogStore::create(path_, identity(), slots).error().code, EEXIST);
  {
    const auto store = load();
    const auto second = ActivityLogStore::load(loop_, path_, identity(), slots);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, EBUSY);
    EXPECT_NE(second.error().message.find(path_), std::string::npos);
  }
  EXPECT_TRUE(load());
  const auto missing = ActivityLogStore::load(loop_, directory_ + "/none", identity(), slots);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ENOENT);
}

TEST_F(ActivityLogStoreTest, ATornTransactionLeavesTheTableBefore) {
  create();
  for (const int before_it : {0, 20, 63, 64, 65, 130}) {
    SCOPED_TRACE(before_it);
    std::filesystem::remove(path_);
    create();
    Bytes before;
    Bytes after;
    LogTable old_table;
    LogTable new_table;
    {
      auto store = load();
      old_table = work(*store, before_it);
      before = content_of(path_);
      ActivityLogCore core = core_of(
          {old_table, store->contents().next_transaction + static_cast<std::uint64_t>(before_it),
           "", false});
      const LogTransaction t = next(core);
      ASSERT_EQ(write(*store, t), 0);
      after = content_of(path_);
      new_table = applied(old_table, t);
    }
    for_each_torn(before, after, 30, [&](const Bytes& image, bool none, bool all) {
      put(image);
      const LogContents found = loaded();
      ASSERT_EQ(found.damage, "");
      ASSERT_EQ(found.table, all ? new_table : old_table);
      ASSERT_EQ(found.newest_torn, !none && !all);
      ASSERT_EQ(found.next_transaction,
                first + static_cast<std::uint64_t>(before_it) + (all ? 1 : 0));
    });
    // After a torn one life goes on in its place.
    Bytes torn = before;
    const auto changed = changed_sectors(before, after);
    std::copy_n(after.begin() + static_cast<std::ptrdiff_t>(changed[0]), sector_bytes,
                torn.begin() + static_cast<std::ptrdiff_t>(changed[0]));
    put(torn);
    LogTable table;
    {
      auto store = load();
      table = work(*store, 1);
    }
    EXPECT_EQ(loaded().table, table);
    EXPECT_FALSE(loaded().newest_torn);
  }
}

TEST_F(ActivityLogStoreTest, EveryDamageIsToldOrHarmless) {
  create();
  LogTable table;
  {
    auto store = load();
    table = work(*store, 100);
  }
  const Bytes good = content_of(path_);
  const std::uint64_t newest = first + 99;
  for (std::uint64_t n = newest - (ring - 2); n < newest; ++n) {
    damage_block(n);
    const LogContents found = loaded();
    EXPECT_TRUE(found.damaged()) << n;
    EXPECT_EQ(found.table, nothing());
    put(good);
  }
  damage_block(newest + 1);  // the place of the oldest one, which is not needed
  EXPECT_EQ(loaded().table, table);
  EXPECT_TRUE(loaded().newest_torn);
  for (const std::size_t size : {0U, 5000U, 8192U, 20000U, 266240U}) {
    put(good);
    std::filesystem::resize_file(path_, size);
    EXPECT_TRUE(loaded().damaged()) << size;
  }
  put(good);
  for (std::size_t at = 0; at < 40; ++at) {
    poke(at, {good[at] ^ std::byte{4}});
    EXPECT_TRUE(loaded().damaged()) << at;
    poke(at, {good[at]});
  }
  EXPECT_EQ(loaded().table, table);
}

TEST_F(ActivityLogStoreTest, ANewLogCutShortIsNotAnEmptyOne) {
  create();
  const Bytes good = content_of(path_);
  for (std::size_t size = 0; size < good.size(); size += 512 * 11) {
    put(good);
    std::filesystem::resize_file(path_, size);
    EXPECT_TRUE(loaded().damaged()) << size;
  }
}

TEST_F(ActivityLogStoreTest, ALogOfOthersIsDamaged) {
  create();
  {
    auto store = load();
    work(*store, 3);
  }
  const auto found_by = [&](const MetadataIdentity& who, std::uint32_t how_many) {
    const auto store = ActivityLogStore::load(loop_, path_, who, how_many);
    EXPECT_TRUE(store);
    return store ? store.value().contents() : LogContents{};
  };
  MetadataIdentity other = identity();
  other.vm_id = "someone else";
  EXPECT_NE(found_by(other, slots).damage.find("another VM"), std::string::npos);
  other = identity();
  other.disks[1].size_bytes += 512;
  EXPECT_NE(found_by(other, slots).damage.find("other disks"), std::string::npos);
  EXPECT_TRUE(found_by(identity(), slots + 1).damaged());
  EXPECT_EQ(found_by(identity(), slots + 1).table, LogTable(slots + 1));
  EXPECT_FALSE(found_by(identity(), slots).damaged());
  {  // emptied, it is theirs
    auto store = ActivityLogStore::load(loop_, path_, other, slots + 1);
    ASSERT_TRUE(store);
    ASSERT_TRUE(store.value().reset());
  }
  EXPECT_FALSE(found_by(other, slots + 1).damaged());
  EXPECT_TRUE(found_by(identity(), slots).damaged());
}

TEST_F(ActivityLogStoreTest, ResetEmptiesAndGoesOn) {
  create();
  for (const int count : {0, 3, 64, 200}) {
    auto store = load();
    const std::uint64_t next =
        store->contents().next_transaction + static_cast<std::uint64_t>(count);
    work(*store, count);
    ASSERT_TRUE(store->reset());
    EXPECT_EQ(store->contents().table, nothing());
    EXPECT_EQ(store->contents().next_transaction, next);
    store.reset();
    store = load();
    EXPECT_EQ(store->contents().damage, "");
    EXPECT_EQ(store->contents().table, nothing());
    EXPECT_EQ(store->contents().next_transaction, next);
    const LogTable table = work(*store, 2);
    store.reset();
    EXPECT_EQ(loaded().table, table);
  }
}

TEST_F(ActivityLogStoreTest, ACrashInAResetLeavesTheOldTableOrNone) {
  create();
  for (const int count : {1, 30, 150}) {
    Bytes before;
    LogTable table;
    {
      auto store = load();
      table = work(*store, count);
      before = content_of(path_);
      ASSERT_TRUE(store->reset());
    }
    const Bytes after = content_of(path_);
    // One sector: there is nothing in between.
    EXPECT_EQ(changed_sectors(before, after), (std::vector<std::size_t>{0}));
    put(before);
    EXPECT_EQ(loaded().table, table);
    put(after);
    EXPECT_EQ(loaded().table, nothing());
    EXPECT_FALSE(loaded().damaged());
  }
}

// From damage to empty in three steps, each durable before the next.
TEST_F(ActivityLogStoreTest, ACrashInAResetOfADamagedLogLeavesDamageOrAnEmptyLog) {
  create();
  {
    auto store = load();
    work(*store, 100);
  }
  damage_block(140);
  const Bytes damaged = content_of(path_);
  Bytes no_header = damaged;
  std::fill_n(no_header.begin(), metadata_header_bytes, std::byte{0});
  Bytes no_header_yet(metadata_header_bytes);
  const Bytes empty_ring = make_empty_ring(slots, first + 100);
  no_header_yet.insert(no_header_yet.end(), empty_ring.begin(), empty_ring.end());
  {
    auto store = load();
    ASSERT_TRUE(store->contents().damaged());
    ASSERT_TRUE(store->reset());
    EXPECT_FALSE(store->contents().damaged());
    EXPECT_EQ(store->contents().next_transaction, first + 100);
  }
  const Bytes empty = content_of(path_);
  EXPECT_TRUE(equal(std::span(empty).subspan(metadata_header_bytes), empty_ring));
  const auto expect_damage = [&](const Bytes& image, bool, bool) {
    put(image);
    ASSERT_TRUE(loaded().damaged());
  };
  for_each_torn(damaged, no_header, 20, expect_damage);
  for_each_torn(no_header, no_header_yet, 20, expect_damage);
  for_each_torn(no_header_yet, empty, 20, [&](const Bytes& image, bool, bool all) {
    put(image);
    const LogContents found = loaded();
    ASSERT_EQ(found.damaged(), !all);
    ASSERT_EQ(found.table, nothing());
  });
  EXPECT_EQ(loaded().next_transaction, first + 100);
}

// The steps come in that order: where the blocks cannot be written, the header says damage already.
TEST_F(ActivityLogStoreTest, AResetThatFailsInTheMiddleLeavesDamage) {
  create();
  {
    auto store = load();
    work(*store, 100);
  }
  damage_block(140);
  {
    auto store = load();
    const WriteLimit header_only(metadata_header_bytes);
    const auto failed = store->reset();
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, EFBIG);
    EXPECT_TRUE(store->contents().damaged());
  }
  const Bytes bytes = content_of(path_);
  EXPECT_TRUE(std::all_of(bytes.begin(), bytes.begin() + metadata_header_bytes,
                          [](std::byte b) { return b == std::byte{0}; }));
  auto store = load();
  EXPECT_TRUE(store->contents().damaged());
  EXPECT_TRUE(store->reset());
}

TEST_F(ActivityLogStoreTest, AFailedWriteSticks) {
  create();
  LogTable table;
  {
    auto store = load();
    table = work(*store, 3);
    ActivityLogCore core = core_of({table, first + 3, "", false});
    const LogTransaction t = next(core);
    {
      const WriteLimit limit(4096);
      EXPECT_EQ(write(*store, t), EFBIG);
    }
    EXPECT_EQ(write(*store, t), EFBIG);
    const auto refused = store->reset();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EFBIG);
  }
  EXPECT_EQ(loaded().table, table);
}

TEST_F(ActivityLogStoreTest, AWritePartlyDoneIsAFailure) {
  create();
  auto store = load();
  ActivityLogCore core = core_of(store->contents());
  static_cast<void>(core.admit(0, 0, 90 * extent));
  const LogTransaction t = *core.start_transaction();  // of two sectors
  int error = 0;
  {
    const WriteLimit limit(log_block_offset(first) + 512);
    error = write(*store, t);
  }
  EXPECT_GT(error, 0);
  EXPECT_EQ(write(*store, t), error);
  store.reset();
  EXPECT_EQ(loaded().table, nothing());
  EXPECT_FALSE(loaded().damaged());
  EXPECT_TRUE(loaded().newest_torn);
}

TEST_F(ActivityLogStoreTest, AWriteInFlightSurvivesTheStore) {
  create();
  LogTable table;
  int answer = -1;
  {
    auto store = load();
    ActivityLogCore core = core_of(store->contents());
    const LogTransaction t = next(core);
    table = applied(nothing(), t);
    store->write(t, [&](int error) { answer = error; });
  }
  ASSERT_TRUE(run_until([&] { return answer != -1; }));
  EXPECT_EQ(answer, 0);
  EXPECT_EQ(loaded().table, table);
}

TEST_F(ActivityLogStoreTest, ADoneMayWriteTheNextOne) {
  create();
  auto store = load();
  ActivityLogCore core = core_of(store->contents());
  int left = 100;
  const std::function<void()> go_on = [&] {
    const LogTransaction t = next(core);
    store->write(t, [&, number = t.number](int error) {
      ASSERT_EQ(error, 0);
      core.transaction_done(number);
      if (--left > 0) go_on();
    });
  };
  go_on();
  ASSERT_TRUE(run_until([&] { return left == 0; }));
  store.reset();
  EXPECT_EQ(loaded().next_transaction, first + 100);
}

using ActivityLogStoreDeathTest = ActivityLogStoreTest;

TEST_F(ActivityLogStoreDeathTest, MisuseIsABug) {
  create();
  auto store = load();
  LogTransaction t;
  t.number = first + 1;
  EXPECT_DEATH(store->write(t, [](int) {}), "in order");
  t.number = first;
  store->write(t, [](int) {});
  EXPECT_DEATH(store->write(t, [](int) {}), "one transaction at a time");
  EXPECT_DEATH(static_cast<void>(store->reset()), "cannot be emptied");
  run_until([&] { return loop_->outstanding() == 0; });
  store.reset();
  poke(0, {std::byte{0}});
  store = load();
  EXPECT_DEATH(store->write(t, [](int) {}), "must be reset");
}

}  // namespace
}  // namespace havm
