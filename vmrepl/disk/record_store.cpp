#include "vmrepl/disk/record_store.hpp"

#include <cerrno>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/disk/record_codec.hpp"

namespace havm {
namespace {

// The slots as far as the file reaches.
Result<std::vector<std::byte>> read_slots(const MetadataFile& file) {
  std::vector<std::byte> bytes(record_file_bytes);
  BOOST_OUTCOME_TRY(file.read(0, bytes));
  return bytes;
}

Result<ChosenSlot> choose(std::span<const std::byte> bytes, const MetadataFile& file) {
  auto chosen = choose_slot(bytes);
  if (!chosen) return Error(file.name() + " " + chosen.error().message, chosen.error().code);
  return chosen;
}

// Both slots hold the record from the start, so that damage to either is survived from the start.
Result<void> write_new_file(const MetadataFile& file, const Record& first) {
  for (unsigned i = 0; i < record_slots; ++i) {
    BOOST_OUTCOME_TRY(const auto slot, encode_slot(first, i + 1));
    BOOST_OUTCOME_TRY(file.write(i * record_slot_bytes, slot));
  }
  return success();
}

}  // namespace

RecordStore::RecordStore(MetadataFile file, Record record, std::uint64_t slot_sequence,
                         unsigned newest_slot, bool other_slot_damaged)
    : file_(std::move(file)),
      record_(std::move(record)),
      slot_sequence_(slot_sequence),
      newest_slot_(newest_slot),
      other_slot_damaged_(other_slot_damaged) {}

Result<RecordStore> RecordStore::create(const std::string& path, const Record& first) {
  BOOST_OUTCOME_TRY(MetadataFile file, MetadataFile::create_nameless("record", path));
  BOOST_OUTCOME_TRY(write_new_file(file, first));
  BOOST_OUTCOME_TRY(file.publish());
  return RecordStore(std::move(file), first, record_slots, record_slots - 1, false);
}

Result<RecordStore> RecordStore::load(const std::string& path) {
  BOOST_OUTCOME_TRY(MetadataFile file, MetadataFile::open("record", path));
  BOOST_OUTCOME_TRY(const auto bytes, read_slots(file));
  BOOST_OUTCOME_TRY(auto chosen, choose(bytes, file));
  // What was read may still be in the page cache only (an engine that died between write and sync):
  // it must not be acted upon before it is durable.
  BOOST_OUTCOME_TRY(file.sync());
  return RecordStore(std::move(file), std::move(chosen.decoded.record),
                     chosen.decoded.slot_sequence, chosen.slot, chosen.other_damaged);
}

Result<void> RecordStore::write(const Record& next) {
  HAVM_ASSERT(next.epoch >= record_.epoch, "a record's epoch never goes down");
  HAVM_ASSERT(next.promised_epoch >= record_.promised_epoch, "a promise is never taken back");
  if (failed_errno_ != 0)
    return Error(file_.name() + " failed before; restart the engine to read what is on disk",
                 failed_errno_);
  // A record that does not fit is refused before anything was touched.
  BOOST_OUTCOME_TRY(const auto slot, encode_slot(next, slot_sequence_ + 1));
  const unsigned target = 1 - newest_slot_;
  Result<void> written = file_.write(target * record_slot_bytes, slot);
  if (written) written = file_.sync();
  if (!written) {
    failed_errno_ = written.error().code != 0 ? written.error().code : EIO;
    return written;
  }
  ++slot_sequence_;
  newest_slot_ = target;
  other_slot_damaged_ = false;
  record_ = next;
  return success();
}

Result<Record> read_record(const std::string& path) {
  BOOST_OUTCOME_TRY(const MetadataFile file, MetadataFile::open_to_look("record", path));
  BOOST_OUTCOME_TRY(const auto bytes, read_slots(file));
  BOOST_OUTCOME_TRY(auto chosen, choose(bytes, file));
  return std::move(chosen.decoded.record);
}

}  // namespace havm
