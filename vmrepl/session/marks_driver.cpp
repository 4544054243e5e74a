#include "vmrepl/session/marks_driver.hpp"

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

Result<void> remove_durably(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    return errno_error("cannot remove " + path, errno);
  return sync_directory_of(path);
}

}  // namespace

std::string MarksDriver::log_path(const std::string& record_path) {
  return record_path + ".activity-log";
}

std::string MarksDriver::bitmap_path(const std::string& record_path) {
  return record_path + ".bitmap";
}

Result<void> MarksDriver::create(const std::string& record_path, const MetadataIdentity& identity) {
  for (const std::string& path : {log_path(record_path), bitmap_path(record_path)}) {
    BOOST_OUTCOME_TRY(remove_durably(path));
  }
  BOOST_OUTCOME_TRY(ActivityLogStore::create(log_path(record_path), identity));
  return BitmapStore::create(bitmap_path(record_path), identity.vm_id, identity.disks);
}

Result<std::unique_ptr<MarksDriver>> MarksDriver::open(std::shared_ptr<UringLoop> loop,
                                                       const std::string& record_path,
                                                       const MetadataIdentity& identity,
                                                       Failed failed) {
  const std::string log_file = log_path(record_path);
  const std::string bitmap_file = bitmap_path(record_path);
  auto log = ActivityLogStore::load(loop, log_file, identity);
  const bool log_missing = !log && log.error().code == ENOENT;
  if (!log && !log_missing) return log.error();
  if (log_missing || log.value().contents().damaged()) {
    spdlog::warn("{}: {}; everything is taken for dirty", log_file,
                 log_missing ? "there is no such file" : log.value().contents().damage);
    // Without a bitmap file everything is dirty, so this comes first.
    BOOST_OUTCOME_TRY(remove_durably(bitmap_file));
    if (log_missing) {
      BOOST_OUTCOME_TRY(ActivityLogStore::create(log_file, identity));
      log = ActivityLogStore::load(loop, log_file, identity);
      if (!log) return log.error();
    } else {
      BOOST_OUTCOME_TRY(log.value().reset());
    }
  }
  auto bitmaps = BitmapStore::load(loop, bitmap_file, identity.vm_id, identity.disks);
  if (!bitmaps && bitmaps.error().code == ENOENT) {
    spdlog::warn("{}: a new bitmap is made, in which everything is dirty", bitmap_file);
    BOOST_OUTCOME_TRY(BitmapStore::create(bitmap_file, identity.vm_id, identity.disks, true));
    bitmaps = BitmapStore::load(loop, bitmap_file, identity.vm_id, identity.disks);
  }
  if (!bitmaps) return bitmaps.error();
  LoadedBitmaps& loaded = bitmaps.value().loaded;
  if (!loaded.header_damage.empty() || !loaded.damaged_blocks.empty())
    spdlog::warn("{}: damaged ({}); {} is taken for dirty", bitmap_file,
                 loaded.header_damage.empty() ? "single blocks" : loaded.header_damage,
                 loaded.header_damage.empty() ? "what they speak of" : "everything");
  const LogContents& contents = log.value().contents();
  ReplicaMarks marks(std::move(loaded.bitmaps), contents.table, contents.next_transaction);
  return std::unique_ptr<MarksDriver>(new MarksDriver(loop, std::move(log.value()),
                                                      std::move(bitmaps.value().store),
                                                      std::move(marks), std::move(failed)));
}

MarksDriver::MarksDriver(const std::shared_ptr<UringLoop>& loop, ActivityLogStore log,
                         BitmapStore bitmaps, ReplicaMarks marks, Failed failed)
    : log_(std::move(log)),
      bitmaps_(std::move(bitmaps)),
      marks_(std::move(marks)),
      failed_(std::move(failed)),
      timer_(loop->executor()) {
  tick();
}

MarksDriver::~MarksDriver() = default;

void MarksDriver::write_log(const LogTransaction& transaction, std::function<void()> done) {
  log_.write(transaction, [this, done = std::move(done)](int error) {
    if (error != 0) return failed_(log_.path(), error);
    done();
  });
}

void MarksDriver::save() {
  if (marks_.is_saving()) {
    save_again_ = true;
    return;
  }
  marks_.save_started();
  std::vector<const DirtyBitmap*> bitmaps;
  for (std::uint16_t disk = 0; disk < marks_.disks(); ++disk)
    bitmaps.push_back(&marks_.dirty(disk));
  bitmaps_.save(bitmaps, [this](int error) { save_ended(error); });
}

void MarksDriver::save_ended(int error) {
  if (error == ECANCELED) return;  // this object is going away
  if (error != 0) return failed_(bitmaps_.path(), error);
  marks_.save_done();
  if (saved_) saved_();
  if (std::exchange(save_again_, false)) save();
}

Result<void> MarksDriver::forget() {
  BOOST_OUTCOME_TRY(log_.reset());
  marks_.forget(log_.contents().next_transaction);
  save();
  return success();
}

void MarksDriver::tick() {
  if (marks_.changed()) save();
  since_retire_ += save_interval;
  if (since_retire_ >= idle_in_log) {
    since_retire_ = {};
    marks_.retire_idle();
    if (saved_) saved_();  // whoever drives the log starts its next transaction
  }
  timer_.expires_after(save_interval);
  timer_.async_wait([this](const boost::system::error_code& e) {
    if (!e) tick();
  });
}

}  // namespace havm
