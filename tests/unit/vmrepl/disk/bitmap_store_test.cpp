// BitmapStore and its codec on real files: never less dirty than the truth, whatever was torn.
#include "vmrepl/disk/bitmap_store.hpp"

#include "tests/unit/vmrepl/disk/metadata_fixture.hpp"

namespace havm {
namespace {

constexpr std::uint64_t grain = DirtyBitmap::grain_bytes;
constexpr std::size_t block = metadata_block_bytes;

std::vector<std::uint64_t> words(const DirtyBitmap& bitmap) {
  return {bitmap.words().begin(), bitmap.words().end()};
}

TEST(BitmapCodec, TheDocumentedBytesAreWhatWeWrite) {
  const MetadataIdentity identity{"f1b2", {{"vda", 1073741824}}};
  EXPECT_EQ(encode_metadata_header(make_bitmap_header(identity)).value(),
            document_vector("Vector 3", metadata_header_bytes));
  DirtyBitmap bitmap(1073741824);
  bitmap.set_range(0, 1);
  bitmap.set_range(65 * grain, 3 * grain);
  Bytes bytes(block);
  encode_bitmap_block({0, 0}, words_of(bitmap, 0), bytes);
  EXPECT_EQ(bytes, document_vector("Vector 4", block));
}

TEST(BitmapCodec, EveryFlippedBitIsNoticedAndCountsAsAllDirty) {
  DirtyBitmap bitmap(std::uint64_t{5} << 30);
  bitmap.set_range(bitmap_block_covers_bytes + 7 * grain, grain);
  Bytes good(block);
  encode_bitmap_block({1, 1}, words_of(bitmap, 1), good);
  for (std::size_t bit = 0; bit < 8 * block; bit += bit < 1024 ? 1 : 61) {
    Bytes bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    EXPECT_FALSE(decode_bitmap_block({1, 1}, bad)) << bit;
  }
  for (const BitmapBlock elsewhere : {BitmapBlock{0, 1}, BitmapBlock{1, 0}}) {
    EXPECT_FALSE(decode_bitmap_block(elsewhere, good));
  }
  EXPECT_FALSE(decode_bitmap_block({1, 1}, Bytes(block)));
  EXPECT_FALSE(decode_bitmap_block({1, 1}, std::span(good).first(block - 1)));

  DirtyBitmap read(bitmap.disk_size_bytes());
  EXPECT_TRUE(add_bitmap_block({1, 1}, good, read));
  EXPECT_EQ(words(read), words(bitmap));
  EXPECT_FALSE(add_bitmap_block({1, 0}, good, read));
  EXPECT_EQ(read.set_grains(), bitmap_block_words * 64 + 1);
}

TEST(BitmapCodec, ABitBeyondTheDiskIsDamage) {
  for (const std::size_t beyond : {0U, 1U, 509U}) {
    DirtyBitmap bitmap(60 * grain + 512);
    BitmapWords forged{};
    forged[beyond] = std::uint64_t{1} << 61;
    Bytes bytes(block);
    encode_bitmap_block({0, 0}, forged, bytes);
    EXPECT_FALSE(add_bitmap_block({0, 0}, bytes, bitmap));
    EXPECT_EQ(bitmap.set_grains(), 61U);
  }
}

TEST(BitmapCodec, BlocksCoverTheDisk) {
  EXPECT_EQ(bitmap_blocks(std::uint64_t{0}), 0U);
  EXPECT_EQ(bitmap_blocks(std::uint64_t{512}), 1U);
  EXPECT_EQ(bitmap_blocks(bitmap_block_covers_bytes), 1U);
  EXPECT_EQ(bitmap_blocks(bitmap_block_covers_bytes + 512), 2U);
  EXPECT_EQ(bitmap_blocks(UINT64_MAX), (UINT64_MAX / bitmap_block_covers_bytes) + 1);
  const Bytes header = encode_metadata_header(make_bitmap_header({"x", {{"vda", 512}}})).value();
  EXPECT_TRUE(decode_bitmap_header(header));
  for (int wrong = 0; wrong < 3; ++wrong) {
    MetadataHeader other = decode_bitmap_header(header).value();
    if (wrong == 0) other.units = 4096;
    if (wrong == 1) other.blocks = 2;
    if (wrong == 2) other.first = 1;
    EXPECT_FALSE(decode_bitmap_header(encode_metadata_header(other).value())) << wrong;
  }
}

class BitmapStoreTest : public MetadataFixture {
 protected:
  void create() const {
    const auto created = BitmapStore::create(path_, identity().vm_id, identity().disks);
    ASSERT_TRUE(created) << created.error().message;
  }
  std::optional<OpenedBitmaps> load() {
    auto opened = BitmapStore::load(loop_, path_, identity().vm_id, identity().disks);
    EXPECT_TRUE(opened) << opened.error().message;
    if (!opened) return std::nullopt;
    return std::move(opened).value();
  }
  int save(BitmapStore& store) {
    return result_of([&](auto done) { store.save({&a_, &b_}, std::move(done)); });
  }
  static std::vector<DirtyBitmap> clear() {
    std::vector<DirtyBitmap> bitmaps;
    for (const DiskIdentity& disk : identity().disks)
      bitmaps.emplace_back(disk.size_bytes);
    return bitmaps;
  }
  void expect_saved() {
    const auto found = load();
    ASSERT_TRUE(found);
    EXPECT_EQ(found->loaded.header_damage, "");
    EXPECT_TRUE(found->loaded.damaged_blocks.empty());
    EXPECT_EQ(words(found->loaded.bitmaps[0]), words(a_));
    EXPECT_EQ(words(found->loaded.bitmaps[1]), words(b_));
  }
  void scribble(std::mt19937& random) {
    for (DirtyBitmap* bitmap : {&a_, &b_})
      for (int i = 0; i < 30; ++i) {
        const std::uint64_t at = random() % bitmap->disk_size_bytes();
        const std::uint64_t length =
            std::min<std::uint64_t>(bitmap->disk_size_bytes() - at, random() % (64 * grain));
        if (random() % 3 == 0)
          bitmap->clear_range(at, length);
        else
          bitmap->set_range(at, length);
      }
  }
  static std::size_t offset_of(std::size_t place) { return metadata_header_bytes + place * block; }

  // vda has three blocks, vdb one.
  DirtyBitmap a_{identity().disks[0].size_bytes};
  DirtyBitmap b_{identity().disks[1].size_bytes};
};

TEST_F(BitmapStoreTest, ANewFileIsClearAndWhollyThere) {
  create();
  expect_saved();
  const auto opened = load();
  const struct stat st = status();
  EXPECT_EQ(st.st_mode & 07777, 0600U);
  EXPECT_EQ(static_cast<std::size_t>(st.st_size), offset_of(4));
  EXPECT_GE(static_cast<std::size_t>(st.st_blocks) * 512, offset_of(4)) << "no holes";
  EXPECT_EQ(descriptor_flags(), FD_CLOEXEC);
  EXPECT_EQ(opened->store.path(), path_);
}

TEST_F(BitmapStoreTest, OneWriterAndNeverReplaced) {
  create();
  EXPECT_EQ(BitmapStore::create(path_, "x", {}).error().code, EEXIST);
  {
    const auto opened = load();
    const auto second = BitmapStore::load(loop_, path_, identity().vm_id, identity().disks);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, EBUSY);
  }
  EXPECT_TRUE(load());
  const auto missing = BitmapStore::load(loop_, directory_ + "/none", "x", {});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ENOENT);
}

TEST_F(BitmapStoreTest, WhatWasSavedIsFoundAgain) {
  create();
  std::mt19937 random(1);
  for (int life = 0; life < 5; ++life) {
    {
      auto opened = load();
      for (int i = 0; i < 10; ++i) {
        scribble(random);
        ASSERT_EQ(save(opened->store), 0);
        const auto seen = read_bitmaps(path_);  // beside the lock
        ASSERT_TRUE(seen);
        EXPECT_EQ(words(seen.value().loaded.bitmaps[0]), words(a_));
      }
      if (life == 3) {
        a_.set_all();
        b_.set_all();
        ASSERT_EQ(save(opened->store), 0);
      }
      if (life == 4) {
        a_.clear_all();
        b_.clear_all();
        ASSERT_EQ(save(opened->store), 0);
      }
    }
    expect_saved();
  }
}

TEST_F(BitmapStoreTest, OnlyWhatDiffersIsWritten) {
  create();
  a_.set_range(bitmap_block_covers_bytes, grain);
  {
    auto opened = load();
    ASSERT_EQ(save(opened->store), 0);
  }
  auto opened = load();
  // What would be written over is seen by this.
  for (const std::size_t place : {0U, 1U, 2U, 3U})
    poke(offset_of(place), Bytes(block, std::byte{0xee}));
  const Bytes marked = content_of(path_);
  ASSERT_EQ(save(opened->store), 0);
  EXPECT_EQ(content_of(path_), marked);
  a_.set_range(0, grain);
  b_.set_range(0, grain);
  ASSERT_EQ(save(opened->store), 0);
  Bytes after = content_of(path_);
  EXPECT_EQ(after[offset_of(1)], std::byte{0xee});
  EXPECT_EQ(after[offset_of(2)], std::byte{0xee});
  EXPECT_NE(after[offset_of(0) + 8], std::byte{0xee});
  EXPECT_NE(after[offset_of(3) + 8], std::byte{0xee});
  a_.clear_range(0, grain);  // also what was cleared differs
  ASSERT_EQ(save(opened->store), 0);
  EXPECT_NE(content_of(path_), after);
}

TEST_F(BitmapStoreTest, EveryBlockAloneCanBeTheOneThatDiffers) {
  const std::vector<DiskIdentity> disks{{"vda", 200 * bitmap_block_covers_bytes}};
  ASSERT_TRUE(BitmapStore::create(path_, "x", disks));
  auto opened = BitmapStore::load(loop_, path_, "x", disks);
  ASSERT_TRUE(opened);
  DirtyBitmap bitmap(disks[0].size_bytes);
  for (std::uint64_t i = 0; i < 200; i += i < 125 || i > 130 ? 9 : 1) {
    bitmap.set_range(i * bitmap_block_covers_bytes + i * grain, grain);
    bitmap.set_range(199 * bitmap_block_covers_bytes + i * grain, grain);
    ASSERT_EQ(result_of([&](auto done) { opened.value().store.save({&bitmap}, std::move(done)); }),
              0);
    const auto seen = read_bitmaps(path_);
    ASSERT_TRUE(seen);
    ASSERT_TRUE(seen.value().loaded.damaged_blocks.empty());
    ASSERT_EQ(words(seen.value().loaded.bitmaps[0]), words(bitmap)) << i;
  }
}

TEST_F(BitmapStoreTest, SavesWhileOneRunsBecomeOne) {
  create();
  auto opened = load();
  std::vector<int> order;
  a_.set_range(0, grain);
  opened->store.save({&a_, &b_}, [&](int error) {
    EXPECT_EQ(error, 0);
    order.push_back(1);
  });
  run_until([&] { return opened->store.saving(); });
  a_.set_range(9 * grain, grain);
  opened->store.save({&a_, &b_}, [&](int error) {
    EXPECT_EQ(error, 0);
    order.push_back(2);
    EXPECT_TRUE(read_bitmaps(path_).value().loaded.bitmaps[0].any_in(9 * grain, grain));
    EXPECT_TRUE(read_bitmaps(path_).value().loaded.bitmaps[1].any_in(0, grain)) << "covers both";
  });
  b_.set_range(0, grain);
  opened->store.save({&a_, &b_}, [&](int error) {
    EXPECT_EQ(error, 0);
    order.push_back(3);
  });
  ASSERT_TRUE(run_until([&] { return order.size() == 3; }));
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_FALSE(opened->store.saving());
}

TEST_F(BitmapStoreTest, ADoneMaySaveAgain) {
  create();
  auto opened = load();
  int left = 50;
  const std::function<void()> go_on = [&] {
    a_.set_range(static_cast<std::uint64_t>(left) * 1000 * grain, grain);
    opened->store.save({&a_, &b_}, [&](int error) {
      ASSERT_EQ(error, 0);
      if (--left > 0) go_on();
    });
  };
  go_on();
  ASSERT_TRUE(run_until([&] { return left == 0; }));
  opened.reset();
  expect_saved();
}

TEST_F(BitmapStoreTest, TornSavesNeverLoseADirtyGrain) {
  create();
  std::mt19937 random(2);
  for (int round = 0; round < 6; ++round) {
    SCOPED_TRACE(round);
    const auto old = std::vector<DirtyBitmap>{a_, b_};
    const Bytes before = content_of(path_);
    scribble(random);
    if (round == 4) a_.clear_all();
    {
      auto opened = load();
      ASSERT_EQ(save(opened->store), 0);
    }
    const Bytes after = content_of(path_);
    const std::vector<const DirtyBitmap*> now{&a_, &b_};
    for_each_torn(before, after, 40, [&](const Bytes& image, bool none, bool all) {
      put(image);
      const auto found = load();
      ASSERT_TRUE(found);
      ASSERT_EQ(found->loaded.header_damage, "");
      if (none || all) {
        ASSERT_TRUE(found->loaded.damaged_blocks.empty());
      }
      for (std::uint16_t disk = 0; disk < 2; ++disk)
        for (std::uint32_t i = 0; i < bitmap_blocks(now[disk]->disk_size_bytes()); ++i) {
          const auto is = words_of(found->loaded.bitmaps[disk], i);
          const bool is_old = std::ranges::equal(is, words_of(old[disk], i));
          const bool is_new = std::ranges::equal(is, words_of(*now[disk], i));
          DirtyBitmap every(now[disk]->disk_size_bytes());
          every.set_all();
          ASSERT_TRUE(is_old || is_new || std::ranges::equal(is, words_of(every, i)));
          const bool told =
              std::ranges::count(found->loaded.damaged_blocks, BitmapBlock{disk, i}) == 1;
          ASSERT_TRUE(is_old || is_new || told);
        }
    });
    put(after);
  }
}

TEST_F(BitmapStoreTest, ADamagedBlockIsHealedByTheNextSave) {
  create();
  for (const Bytes& bad : {Bytes(block), Bytes(block, std::byte{0x77})}) {
    poke(offset_of(2), bad);
    {
      auto opened = load();
      EXPECT_EQ(opened->loaded.damaged_blocks, (std::vector<BitmapBlock>{{0, 2}}));
      const std::uint64_t from = 2 * bitmap_block_covers_bytes;
      EXPECT_EQ(opened->loaded.bitmaps[0].next_set(0, UINT64_MAX),
                (ByteRange{from, a_.disk_size_bytes() - from}));
      EXPECT_TRUE(opened->loaded.bitmaps[1].empty());
      ASSERT_EQ(save(opened->store), 0);  // clear again, as far as the caller is concerned
    }
    expect_saved();
  }
}

TEST_F(BitmapStoreTest, AFileCutShortIsDirtyWhereItIsMissing) {
  create();
  std::filesystem::resize_file(path_, offset_of(1) + 10);
  const auto opened = load();
  EXPECT_EQ(opened->loaded.damaged_blocks.size(), 3U);
  EXPECT_EQ(opened->loaded.bitmaps[0].set_grains(), a_.grains() - bitmap_block_words * 64);
  EXPECT_EQ(opened->loaded.bitmaps[1].set_grains(), b_.grains());
}

TEST_F(BitmapStoreTest, WithADamagedHeaderEverythingIsDirtyUntilAllIsSaved) {
  create();
  const Bytes good = content_of(path_);
  for (std::size_t at = 0; at < 110; at += at < 40 ? 1 : 7) {
    if (at >= 40 && at < 64) continue;
    put(good);
    poke(at, {good[at] ^ std::byte{4}});
    const auto opened = load();
    ASSERT_NE(opened->loaded.header_damage, "") << at;
    for (const DirtyBitmap& bitmap : opened->loaded.bitmaps)
      ASSERT_EQ(bitmap.set_grains(), bitmap.grains());
  }
  put(good);
  poke(20, {std::byte{0xff}});
  const Bytes damaged = content_of(path_);
  a_.set_range(5 * grain, grain);
  {
    auto opened = load();
    {
      const WriteLimit no_blocks(metadata_header_bytes);
      EXPECT_EQ(save(opened->store), EFBIG);
    }
  }
  EXPECT_NE(load()->loaded.header_damage, "") << "the header must come last";
  put(damaged);
  {
    auto opened = load();
    ASSERT_EQ(save(opened->store), 0);
  }
  expect_saved();
  // The last step of that is the header: torn, it still counts as damaged.
  const Bytes healed = content_of(path_);
  Bytes without = healed;
  std::copy_n(damaged.begin(), metadata_header_bytes, without.begin());
  for_each_torn(without, healed, 10, [&](const Bytes& image, bool, bool all) {
    put(image);
    ASSERT_EQ(load()->loaded.header_damage.empty(), all);
  });
}

TEST_F(BitmapStoreTest, AFileOfOthersIsDirtyAndBecomesOurs) {
  auto other = identity().disks;
  other[0].size_bytes *= 2;
  ASSERT_TRUE(BitmapStore::create(path_, identity().vm_id, other));
  {
    auto opened = load();
    EXPECT_NE(opened->loaded.header_damage.find("other disks"), std::string::npos);
    EXPECT_EQ(opened->loaded.bitmaps[0].set_grains(), a_.grains());
    ASSERT_EQ(save(opened->store), 0);
  }
  expect_saved();
  const auto foreign = BitmapStore::load(loop_, path_, "another", identity().disks);
  ASSERT_TRUE(foreign);
  EXPECT_NE(foreign.value().loaded.header_damage, "");
}

TEST_F(BitmapStoreTest, AFailedSaveSticks) {
  create();
  {
    auto opened = load();
    a_.set_range(0, grain);
    {
      const WriteLimit limit(offset_of(0));
      EXPECT_EQ(save(opened->store), EFBIG);
    }
    EXPECT_EQ(save(opened->store), EFBIG);
    a_.clear_all();
    EXPECT_EQ(save(opened->store), EFBIG);
  }
  expect_saved();
}

TEST_F(BitmapStoreTest, SavesThatTheStoreCannotFinishAreCancelled) {
  create();
  std::vector<int> answers;
  {
    auto opened = load();
    auto bitmap = std::make_unique<DirtyBitmap>(a_);
    bitmap->set_all();
    opened->store.save({bitmap.get(), &b_}, [&](int error) { answers.push_back(error); });
    ASSERT_TRUE(run_until([&] { return opened->store.saving(); }));
    opened->store.save({bitmap.get(), &b_}, [&](int error) { answers.push_back(error); });
    opened.reset();
    bitmap.reset();  // not looked at any more
  }
  ASSERT_TRUE(run_until([&] { return answers.size() == 2; }));
  EXPECT_EQ(answers, (std::vector<int>{ECANCELED, ECANCELED}));
  ASSERT_TRUE(run_until([&] { return loop_->outstanding() == 0; }));
  EXPECT_TRUE(load());  // the lock went with the last write
}

TEST_F(BitmapStoreTest, SixteenTebibytes) {
  const std::vector<DiskIdentity> disks{{"vda", std::uint64_t{16} << 40}};
  ASSERT_TRUE(BitmapStore::create(path_, "x", disks));
  EXPECT_LE(std::filesystem::file_size(path_), std::size_t{33} << 20);
  DirtyBitmap bitmap(disks[0].size_bytes);
  for (const bool all : {true, false}) {
    if (all)
      bitmap.set_all();
    else
      bitmap.clear_range(std::uint64_t{7} << 40, std::uint64_t{1} << 40);
    auto opened = BitmapStore::load(loop_, path_, "x", disks);
    ASSERT_TRUE(opened);
    ASSERT_EQ(result_of([&](auto done) { opened.value().store.save({&bitmap}, std::move(done)); }),
              0);
  }
  const auto seen = read_bitmaps(path_);
  ASSERT_TRUE(seen);
  EXPECT_EQ(words(seen.value().loaded.bitmaps[0]), words(bitmap));
}

using BitmapStoreDeathTest = BitmapStoreTest;

TEST_F(BitmapStoreDeathTest, BitmapsOfOtherDisksAreABug) {
  create();
  auto opened = load();
  EXPECT_DEATH(opened->store.save({&a_}, [](int) {}), "one bitmap for each disk");
  EXPECT_DEATH(opened->store.save({&b_, &a_}, [](int) {}), "that it is of");
}

}  // namespace
}  // namespace havm
