// RecordStore: a crash at any place of a write leaves the old or the new record, and nothing is
// invented.
#include "vmrepl/disk/record_store.hpp"

#include <algorithm>
#include <csignal>
#include <random>

#include <sys/resource.h>

#include "tests/unit/vmrepl/disk/disk_fixture.hpp"
#include "tests/unit/vmrepl/disk/record_sample.hpp"
#include "vmrepl/disk/record_codec.hpp"

namespace havm {
namespace {

constexpr std::size_t sector = 512;
constexpr std::size_t sectors = record_slot_bytes / sector;

class RecordStoreTest : public DiskFixture {
 protected:
  RecordStore created(const Record& record) {
    auto store = RecordStore::create(path_, record);
    EXPECT_TRUE(store) << store.error().message;
    return std::move(store).value();
  }
  RecordStore loaded() {
    auto store = RecordStore::load(path_);
    EXPECT_TRUE(store) << store.error().message;
    return std::move(store).value();
  }
  void put(const std::vector<std::byte>& bytes) {
    std::ofstream file(path_, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  void damage(std::size_t at) {
    auto bytes = content_of(path_);
    bytes[at] ^= std::byte{0x10};
    put(bytes);
  }

  std::string path_ = directory_ + "/record";
};

TEST_F(RecordStoreTest, CreateThenLoadThenWriteThenLoad) {
  created(sample_record(1));
  EXPECT_EQ(content_of(path_).size(), record_file_bytes);
  for (std::uint64_t epoch = 2; epoch < 9; ++epoch) {
    RecordStore store = loaded();
    EXPECT_EQ(store.record(), sample_record(epoch - 1));
    EXPECT_FALSE(store.other_slot_damaged());
    ASSERT_TRUE(store.write(sample_record(epoch)));
    EXPECT_EQ(store.record(), sample_record(epoch));
  }
  EXPECT_EQ(loaded().record(), sample_record(8));
}

TEST_F(RecordStoreTest, WritesAlternateAndKeepTheOneBefore) {
  RecordStore store = created(sample_record(1));
  for (std::uint64_t epoch = 2; epoch < 7; ++epoch) {
    const auto before = content_of(path_);
    ASSERT_TRUE(store.write(sample_record(epoch)));
    const auto after = content_of(path_);
    int changed = 0;
    for (std::size_t slot = 0; slot < record_slots; ++slot) {
      const auto piece = [&](const auto& all) {
        return std::span<const std::byte>(all).subspan(slot * record_slot_bytes, record_slot_bytes);
      };
      if (equal(piece(before), piece(after))) continue;
      ++changed;
      EXPECT_EQ(slot, epoch % 2) << "two writes in turn went to the same slot";
    }
    EXPECT_EQ(changed, 1);
  }
}

TEST_F(RecordStoreTest, CreateNeverReplaces) {
  created(sample_record(5));
  const auto again = RecordStore::create(path_, sample_record(1));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, EEXIST);
  EXPECT_EQ(loaded().record(), sample_record(5));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_), {}), 1);
}

TEST_F(RecordStoreTest, CreateInAMissingDirectoryFails) {
  const auto store = RecordStore::create(directory_ + "/no/record", sample_record());
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, ENOENT);
}

TEST_F(RecordStoreTest, AMissingFileIsNotAFreshRecord) {
  const auto store = RecordStore::load(path_);
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, ENOENT);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(RecordStoreTest, OneWriterManyReaders) {
  {
    RecordStore store = created(sample_record(1));
    const auto second = RecordStore::load(path_);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, EBUSY);
    const auto seen = read_record(path_);
    ASSERT_TRUE(seen);
    EXPECT_EQ(seen.value(), sample_record(1));
    const RecordStore moved = std::move(store);  // the lock moves along
    EXPECT_FALSE(RecordStore::load(path_));
  }
  EXPECT_EQ(loaded().record(), sample_record(1));
}

// Old and new bytes of the slot that a write replaces, and everything around it.
struct TornWrite {
  std::vector<std::byte> before;
  std::vector<std::byte> after;
  std::size_t slot_at = 0;
};

class TornWriteTest : public RecordStoreTest {
 protected:
  // Large records, so that every sector of the slot matters.
  static Record old_record() { return sample_record(1, 190); }
  static Record new_record() { return sample_record(3, 191); }

  TornWrite record_a_write() {
    TornWrite torn;
    {
      RecordStore store = created(sample_record(0, 189));
      EXPECT_TRUE(store.write(old_record()));
      torn.before = content_of(path_);
      EXPECT_TRUE(store.write(new_record()));
    }
    torn.after = content_of(path_);
    const auto first_change = std::ranges::mismatch(torn.before, torn.after).in1;
    torn.slot_at = static_cast<std::size_t>(first_change - torn.before.begin()) /
                   record_slot_bytes * record_slot_bytes;
    return torn;
  }

  // Sectors for which `is_new` says so have the new bytes.
  void expect_old_or_new(const TornWrite& torn, const std::vector<bool>& is_new) {
    auto bytes = torn.before;
    for (std::size_t s = 0; s < sectors; ++s)
      if (is_new[s])
        std::copy_n(torn.after.begin() + static_cast<std::ptrdiff_t>(torn.slot_at + s * sector),
                    sector, bytes.begin() + static_cast<std::ptrdiff_t>(torn.slot_at + s * sector));
    put(bytes);
    const bool complete = bytes == torn.after;
    auto store = RecordStore::load(path_);
    ASSERT_TRUE(store) << store.error().message;
    EXPECT_EQ(store.value().record(), complete ? new_record() : old_record());
    // The first slot's old contents are themselves a valid, older record.
    EXPECT_EQ(store.value().other_slot_damaged(), !complete && bytes != torn.before);
    // And life goes on: the next write is durable and readable.
    ASSERT_TRUE(store.value().write(sample_record(7)));
    const auto seen = read_record(path_);
    ASSERT_TRUE(seen);
    EXPECT_EQ(seen.value(), sample_record(7));
  }
};

TEST_F(TornWriteTest, AtEverySectorBoundaryFromTheFrontAndFromTheBack) {
  const TornWrite torn = record_a_write();
  for (std::size_t cut = 0; cut <= sectors; ++cut) {
    SCOPED_TRACE("cut after sector " + std::to_string(cut));
    std::vector<bool> front(sectors);
    std::vector<bool> back(sectors);
    for (std::size_t s = 0; s < sectors; ++s) {
      front[s] = s < cut;
      back[s] = s >= cut;
    }
    expect_old_or_new(torn, front);
    expect_old_or_new(torn, back);
  }
}

TEST_F(TornWriteTest, InAnySubsetOfSectors) {
  const TornWrite torn = record_a_write();
  std::mt19937 random(1);
  for (int i = 0; i < 300; ++i) {
    std::vector<bool> is_new(sectors);
    for (std::size_t s = 0; s < sectors; ++s)
      is_new[s] = random() % 2 == 0;
    expect_old_or_new(torn, is_new);
  }
}

TEST_F(RecordStoreTest, DamageToEitherSlotIsSurvivedAndTold) {
  for (const std::size_t slot : {0U, 1U}) {
    std::filesystem::remove(path_);
    created(sample_record(2));
    damage(slot * record_slot_bytes + 100);
    const RecordStore store = loaded();
    EXPECT_EQ(store.record(), sample_record(2));
    EXPECT_TRUE(store.other_slot_damaged());
  }
}

TEST_F(RecordStoreTest, WithoutAUsableSlotNothingIsInvented) {
  created(sample_record(2));
  damage(100);
  damage(record_slot_bytes + 100);
  const auto before = content_of(path_);
  const auto store = RecordStore::load(path_);
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, EILSEQ);
  EXPECT_NE(store.error().message.find("slot 0"), std::string::npos);
  EXPECT_NE(store.error().message.find("slot 1"), std::string::npos);
  EXPECT_EQ(content_of(path_), before);
  for (const std::size_t size : {0U, 1U, 8192U}) {
    put(std::vector<std::byte>(size));
    EXPECT_FALSE(RecordStore::load(path_)) << size;
  }
}

TEST_F(RecordStoreTest, AFileCutAfterTheFirstSlotStillHasIt) {
  created(sample_record(2));
  std::filesystem::resize_file(path_, record_slot_bytes + 700);
  EXPECT_EQ(loaded().record(), sample_record(2));
}

TEST_F(RecordStoreTest, AnIntactSlotThatIsNotUnderstoodIsNeverPassedOver) {
  created(sample_record(2));
  const auto good = content_of(path_);
  const std::string newer = record_to_json(sample_record(3));
  for (const auto& slot : {forged_slot(newer, record_version + 1, 99), forged_slot("{}", 1, 99)}) {
    for (const std::size_t place : {0U, 1U}) {
      auto bytes = good;
      std::ranges::copy(slot, bytes.begin() + static_cast<std::ptrdiff_t>(place * slot.size()));
      put(bytes);
      EXPECT_FALSE(RecordStore::load(path_));
      EXPECT_FALSE(read_record(path_));
      EXPECT_EQ(content_of(path_), bytes);
    }
  }
}

TEST_F(RecordStoreTest, ARecordThatDoesNotFitIsRefusedWithoutHarm) {
  RecordStore store = created(sample_record(2));
  const auto refused = store.write(sample_record(3, 250));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, E2BIG);
  EXPECT_EQ(store.record(), sample_record(2));
  EXPECT_TRUE(store.write(sample_record(3)));
}

TEST_F(RecordStoreTest, AfterAFailedWriteNoneSucceedsUntilLoadedAgain) {
  {
    RecordStore store = created(sample_record(2));
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    const rlimit tight{0, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
    const auto failed = store.write(sample_record(3));
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, EFBIG);
    EXPECT_EQ(store.record(), sample_record(2));
    EXPECT_FALSE(store.write(sample_record(3)));
  }
  RecordStore store = loaded();
  EXPECT_EQ(store.record(), sample_record(2));
  EXPECT_TRUE(store.write(sample_record(3)));
}

using RecordStoreDeathTest = RecordStoreTest;

TEST_F(RecordStoreDeathTest, EpochAndPromiseNeverGoDown) {
  RecordStore store = created(sample_record(5));
  EXPECT_DEATH(static_cast<void>(store.write(sample_record(4))), "never goes down");
  Record lower = sample_record(5);
  lower.promised_epoch = lower.epoch;
  EXPECT_DEATH(static_cast<void>(store.write(lower)), "never taken back");
}

}  // namespace
}  // namespace havm
