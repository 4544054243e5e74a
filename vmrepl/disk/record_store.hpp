// The job of RecordStore: keep the one Record of one VM on this node durable, atomically
// (docs/protocol/on-disk.md). Two slots are written in turn; a crash at any instant leaves the
// record before or the record after.
//
// Guarantees
//  1. write() returns success only after the record is on stable storage.
//  2. load() never invents a record: no usable slot is an Error. A torn newest slot gives the one
//     before.
//  3. One writer: while a RecordStore exists, no other can be created or loaded for the same file.
//  4. After a failed write nothing can be said about which record is on disk: every later write
//     fails, and the engine must stop and load again.
// Blocking, milliseconds: transitions are rare. Movable. One thread.
#pragma once

#include <cstdint>
#include <string>

#include "vmrepl/base/result.hpp"
#include "vmrepl/disk/metadata_file.hpp"
#include "vmrepl/disk/record_types.hpp"

namespace havm {

class RecordStore {
 public:
  // Makes the file, complete or not at all. EEXIST when there is one already.
  static Result<RecordStore> create(const std::string& path, const Record& first);
  // ENOENT when there is no file, EBUSY when another engine has it.
  static Result<RecordStore> load(const std::string& path);

  [[nodiscard]] const Record& record() const { return record_; }
  // True when load() found the other slot damaged: normal after a crash in the middle of a write;
  // after a clean end it means that the medium has lost data.
  [[nodiscard]] bool other_slot_damaged() const { return other_slot_damaged_; }
  [[nodiscard]] const std::string& path() const { return file_.path(); }

  // Replaces the record. `next` with a lower promised_epoch or epoch is a bug of the caller.
  Result<void> write(const Record& next);

 private:
  RecordStore(MetadataFile file, Record record, std::uint64_t slot_sequence, unsigned newest_slot,
              bool other_slot_damaged);

  MetadataFile file_;
  Record record_;
  std::uint64_t slot_sequence_ = 0;
  unsigned newest_slot_ = 0;
  bool other_slot_damaged_ = false;
  int failed_errno_ = 0;
};

// The record of a file that may belong to a running engine: no lock, for tools that only look.
Result<Record> read_record(const std::string& path);

}  // namespace havm
