#include "vmrepl/disk/record_store.hpp"

#include <cerrno>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/buffer.hpp"
#include "vmrepl/disk/record_codec.hpp"
#include "vmrepl/disk/unnamed_file.hpp"

namespace havm {
namespace {

Result<void> write_slot(int fd, const std::string& path, unsigned slot,
                        std::span<const std::byte> bytes) {
  Buffer aligned(record_slot_bytes);
  std::memcpy(aligned.data(), bytes.data(), record_slot_bytes);
  const auto offset = static_cast<off_t>(slot * record_slot_bytes);
  ssize_t n = -1;
  do {
    n = ::pwrite(fd, aligned.data(), record_slot_bytes, offset);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return errno_error("cannot write the record " + path, errno);
  if (static_cast<std::size_t>(n) != record_slot_bytes)
    return Error("cannot write the record " + path + ": only a part was written", ENOSPC);
  return success();
}

// The slots as far as the file reaches.
Result<Buffer> read_slots(int fd, const std::string& path) {
  Buffer bytes(record_file_bytes);
  std::memset(bytes.data(), 0, record_file_bytes);
  ssize_t n = -1;
  do {
    n = ::pread(fd, bytes.data(), record_file_bytes, 0);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return errno_error("cannot read the record " + path, errno);
  return bytes;
}

// An open-file-description lock on the whole file: it ends with the descriptor, however that
// happens.
Result<void> lock_for_writing(int fd, const std::string& path) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return success();
  if (errno == EAGAIN || errno == EACCES)
    return Error("the record " + path + " is in use by another engine of this VM", EBUSY);
  return errno_error("cannot lock the record " + path, errno);
}

struct Chosen {
  DecodedSlot decoded;
  unsigned slot = 0;
  bool other_damaged = false;
};

Result<Chosen> choose_slot(std::span<const std::byte> bytes, const std::string& path) {
  std::optional<Chosen> best;
  std::string faults;
  bool damaged = false;
  for (unsigned i = 0; i < record_slots; ++i) {
    auto decoded = decode_slot(bytes.subspan(i * record_slot_bytes, record_slot_bytes));
    if (const auto* fault = std::get_if<SlotFault>(&decoded)) {
      faults += (faults.empty() ? "slot " : ", slot ") + std::to_string(i) + " " + to_text(*fault);
      // An intact slot that cannot be understood may be the newest truth: never pass over it.
      if (*fault == SlotFault::newer_format || *fault == SlotFault::wrong_contents)
        return Error("the record " + path + " cannot be used: " + faults, EINVAL);
      damaged = true;
      continue;
    }
    auto& slot = std::get<DecodedSlot>(decoded);
    if (!best || slot.slot_sequence > best->decoded.slot_sequence)
      best = Chosen{std::move(slot), i, false};
  }
  if (!best)
    return Error("the record " + path + " cannot be used: " + faults +
                     "; restore the file or make this replica anew from its partner",
                 EILSEQ);
  best->other_damaged = damaged;
  return std::move(*best);
}

// Both slots hold the record from the start, so that damage to either is survived from the start.
Result<void> write_new_file(int fd, const std::string& path, const Record& first) {
  for (unsigned i = 0; i < record_slots; ++i) {
    BOOST_OUTCOME_TRY(const auto slot, encode_slot(first, i + 1));
    BOOST_OUTCOME_TRY(write_slot(fd, path, i, slot));
  }
  return success();
}

}  // namespace

RecordStore::RecordStore(std::string path, UniqueFd fd, Record record, std::uint64_t slot_sequence,
                         unsigned newest_slot, bool other_slot_damaged)
    : path_(std::move(path)),
      fd_(std::move(fd)),
      record_(std::move(record)),
      slot_sequence_(slot_sequence),
      newest_slot_(newest_slot),
      other_slot_damaged_(other_slot_damaged) {}

Result<RecordStore> RecordStore::create(const std::string& path, const Record& first) {
  BOOST_OUTCOME_TRY(UniqueFd fd, create_unnamed(path));
  BOOST_OUTCOME_TRY(lock_for_writing(fd.get(), path));
  BOOST_OUTCOME_TRY(write_new_file(fd.get(), path, first));
  BOOST_OUTCOME_TRY(give_name(fd.get(), path));
  return RecordStore(path, std::move(fd), first, record_slots, record_slots - 1, false);
}

Result<RecordStore> RecordStore::load(const std::string& path) {
  UniqueFd fd = open_direct(path, O_RDWR);
  if (!fd.valid()) return errno_error("cannot open the record " + path, errno);
  BOOST_OUTCOME_TRY(lock_for_writing(fd.get(), path));
  BOOST_OUTCOME_TRY(const auto bytes, read_slots(fd.get(), path));
  BOOST_OUTCOME_TRY(auto chosen, choose_slot(bytes.span(), path));
  // What was read may still be in the page cache only (an engine that died between write and sync):
  // it must not be acted upon before it is durable.
  if (::fdatasync(fd.get()) != 0) return errno_error("cannot sync the record " + path, errno);
  return RecordStore(path, std::move(fd), std::move(chosen.decoded.record),
                     chosen.decoded.slot_sequence, chosen.slot, chosen.other_damaged);
}

Result<void> RecordStore::write(const Record& next) {
  HAVM_ASSERT(next.epoch >= record_.epoch, "a record's epoch never goes down");
  HAVM_ASSERT(next.promised_epoch >= record_.promised_epoch, "a promise is never taken back");
  if (failed_errno_ != 0)
    return Error(
        "the record " + path_ + " failed before; restart the engine to read what is on disk",
        failed_errno_);
  // A record that does not fit is refused before anything was touched.
  BOOST_OUTCOME_TRY(const auto slot, encode_slot(next, slot_sequence_ + 1));
  const unsigned target = 1 - newest_slot_;
  Result<void> written = write_slot(fd_.get(), path_, target, slot);
  if (written && ::fdatasync(fd_.get()) != 0)
    written = errno_error("cannot sync the record " + path_, errno);
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
  const UniqueFd fd = open_direct(path, O_RDONLY);
  if (!fd.valid()) return errno_error("cannot open the record " + path, errno);
  BOOST_OUTCOME_TRY(const auto bytes, read_slots(fd.get(), path));
  BOOST_OUTCOME_TRY(auto chosen, choose_slot(bytes.span(), path));
  return std::move(chosen.decoded.record);
}

}  // namespace havm
