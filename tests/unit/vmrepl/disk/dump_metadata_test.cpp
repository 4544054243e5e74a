// dump_metadata and `havm-repl --dump-metadata`: what people see of each kind of file, whole or
// damaged.
#include "vmrepl/disk/dump_metadata.hpp"

#include <cstdio>

#include <sys/wait.h>

#include "tests/unit/vmrepl/disk/metadata_fixture.hpp"
#include "tests/unit/vmrepl/disk/record_sample.hpp"
#include "vmrepl/disk/activity_log_store.hpp"
#include "vmrepl/disk/bitmap_store.hpp"
#include "vmrepl/disk/record_store.hpp"

namespace havm {
namespace {

constexpr std::uint64_t extent = ActivityLogCore::extent_bytes;
constexpr std::uint64_t grain = DirtyBitmap::grain_bytes;

class DumpMetadataTest : public MetadataFixture {
 protected:
  [[nodiscard]] std::string dump() const {
    const auto text = dump_metadata(path_);
    EXPECT_TRUE(text) << text.error().message;
    return text ? text.value() : "";
  }
  void expect_line(const std::string& line) const {
    EXPECT_NE(("\n" + dump()).find("\n" + line + "\n"), std::string::npos)
        << "no line '" << line << "' in\n"
        << dump();
  }

  // Extents 3, 4 and 1279 of vda (the last one), the only one of vdb that is cut short.
  void make_log() {
    ASSERT_TRUE(ActivityLogStore::create(path_, identity(), 100));
    auto store = ActivityLogStore::load(loop_, path_, identity(), 100);
    ASSERT_TRUE(store);
    ActivityLogCore core({identity().disks[0].size_bytes, identity().disks[1].size_bytes},
                         LogTable(100), log_first_transaction);
    for (const auto& [disk, index] :
         {std::pair<std::uint16_t, std::uint64_t>{0, 3}, {0, 4}, {0, 1279}, {1, 16}}) {
      static_cast<void>(core.admit(disk, index * extent, 512));
      const auto t = core.start_transaction();
      ASSERT_TRUE(t);
      ASSERT_EQ(result_of([&](auto done) { store.value().write(*t, std::move(done)); }), 0);
      core.transaction_done(t->number);
    }
  }
  void make_bitmap() {
    ASSERT_TRUE(BitmapStore::create(path_, identity().vm_id, identity().disks));
    auto opened = BitmapStore::load(loop_, path_, identity().vm_id, identity().disks);
    ASSERT_TRUE(opened);
    DirtyBitmap a(identity().disks[0].size_bytes);
    DirtyBitmap b(identity().disks[1].size_bytes);
    a.set_range(7 * grain, 2 * grain);
    for (std::uint64_t i = 0; i < dumped_ranges_max + 5; ++i)
      a.set_range((100 + 2 * i) * grain, grain);
    ASSERT_EQ(result_of([&](auto done) {
                opened.value().store.save({&a, &b}, std::move(done));
              }),
              0);
  }
};

TEST_F(DumpMetadataTest, ARecordWithAllItsFields) {
  auto store = RecordStore::create(path_, sample_record(4));
  ASSERT_TRUE(store);
  expect_line("file:               record of a replica");
  expect_line("slot 0:             intact, sequence 1");
  expect_line("newest:             sequence 2");
  expect_line("vm:                 web1");
  expect_line("disk disk1:         1024 bytes");
  expect_line("epoch:              4");
  expect_line("promised_epoch:     5");
  expect_line("partner_outdated:   true");
  expect_line("state:              uptodate");
  EXPECT_NE(dump().find("\ngeneration_history: ["), std::string::npos) << dump();
  const Bytes good = content_of(path_);
  for (const std::size_t slot : {0U, 1U}) {
    poke(slot * record_slot_bytes + (slot == 0 ? 0 : 100), Bytes(8, std::byte{0xff}));
    expect_line(slot == 0 ? "slot 0:             is not a record"
                          : "slot 1:             is torn or damaged");
    expect_line("vm:                 web1");
    put(good);
  }
  poke(100, Bytes(8));
  poke(record_slot_bytes + 100, Bytes(8));
  expect_line("damage:             no slot is usable");
}

TEST_F(DumpMetadataTest, AnActivityLogAsRangesOfTheDisks) {
  make_log();
  const auto held = ActivityLogStore::load(loop_, path_, identity(), 100);  // needs no lock
  ASSERT_TRUE(held);
  const Bytes before = content_of(path_);
  expect_line("file:               activity log");
  expect_line("vm_id:              " + identity().vm_id);
  expect_line("disk vda:           5368709120 bytes");
  expect_line("slots:              100");
  expect_line("counts from:        transaction 64");
  expect_line("newest:             transaction 67");
  expect_line("used slots:         4");
  expect_line("logged on vda:      8388608 bytes at 12582912");
  expect_line("logged on vda:      4194304 bytes at 5364514816");
  expect_line("logged on vdb:      512 bytes at 67108864");
  EXPECT_EQ(dump().find("damage"), std::string::npos);
  EXPECT_EQ(content_of(path_), before);
}

TEST_F(DumpMetadataTest, DamageOfALogIsNamed) {
  make_log();
  poke(log_block_offset(68) + 7, {std::byte{1}});
  expect_line("torn:               transaction 68 (was never done, does not count)");
  poke(log_block_offset(65) + 50, {std::byte{1}});
  expect_line("damage:             transaction 65 is torn or damaged; everything counts as dirty");
  for (const std::size_t at : {9U, 0U}) {
    poke(at, {std::byte{0x55}});
    expect_line("file:               activity log");
    EXPECT_NE(dump().find("damage:             the header of "), std::string::npos) << dump();
  }
}

TEST_F(DumpMetadataTest, ANewLogHasNoTransaction) {
  ASSERT_TRUE(ActivityLogStore::create(path_, identity()));
  expect_line("newest:             no transaction yet");
  expect_line("used slots:         0");
}

TEST_F(DumpMetadataTest, ABitmapAsRangesWithItsDamage) {
  make_bitmap();
  const std::uint64_t bytes = (2 + dumped_ranges_max + 5) * grain;
  expect_line("file:               dirty bitmap");
  expect_line("blocks:             4");
  expect_line("total on vda:       " + std::to_string(bytes) + " bytes dirty");
  expect_line("total on vdb:       0 bytes dirty");
  expect_line("dirty on vda:       131072 bytes at 458752");
  expect_line("and on vda:         6 more ranges");
  EXPECT_EQ(dump().find("damage"), std::string::npos);
  poke(metadata_header_bytes + 3 * metadata_block_bytes, {std::byte{0x55}});
  expect_line("damage:             block 0 of disk vdb; it counts as all dirty");
  expect_line("total on vdb:       67109376 bytes dirty");
  const Bytes good = content_of(path_);
  std::filesystem::resize_file(path_, good.size() - 1);
  EXPECT_NE(dump().find("is cut short"), std::string::npos) << dump();
  put(good);
  poke(0, {std::byte{0x55}});
  expect_line("file:               dirty bitmap");
  EXPECT_NE(dump().find("damage:             the header of "), std::string::npos) << dump();
}

TEST_F(DumpMetadataTest, AnythingElseIsAnError) {
  for (const std::size_t size : {0U, 10U, 100000U}) {
    put(Bytes(size, std::byte{0x11}));
    const auto text = dump_metadata(path_);
    ASSERT_FALSE(text);
    EXPECT_NE(text.error().message.find(path_), std::string::npos);
    EXPECT_NE(text.error().message.find("neither"), std::string::npos);
  }
  EXPECT_EQ(dump_metadata(directory_ + "/none").error().code, ENOENT);
  EXPECT_EQ(dump_metadata(directory_).error().code, EISDIR);
}

// Exit code and output of the program.
std::pair<int, std::string> run(const std::string& arguments) {
  const std::string command = std::string(HAVM_REPL_PROGRAM) + " " + arguments + " 2>&1";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  std::string output;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe))
    output += static_cast<char>(c);
  const int status = ::pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

TEST_F(DumpMetadataTest, TheProgramPrintsItOrFails) {
  make_log();
  EXPECT_EQ(run("--dump-metadata " + path_), std::pair(0, dump()));
  put(Bytes(5000));
  const auto [code, output] = run("--dump-metadata " + path_);
  EXPECT_EQ(code, 1);
  EXPECT_EQ(output.rfind("havm-repl: " + path_ + " is neither", 0), 0U) << output;
  EXPECT_NE(run("--dump-metadata " + path_ + " --config x").first, 0);
  const auto [missing, advice] = run("");
  EXPECT_NE(missing, 0);
  EXPECT_NE(advice.find("--config"), std::string::npos) << advice;
}

}  // namespace
}  // namespace havm
