#include "vmrepl/session/replica_files.hpp"

#include <cerrno>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <unistd.h>

#include "vmrepl/base/files.hpp"
#include "vmrepl/disk/image_snapshot.hpp"
#include "vmrepl/disk/open_disk.hpp"
#include "vmrepl/disk/record_store.hpp"
#include "vmrepl/session/marks_driver.hpp"
#include "vmrepl/session/replica_record.hpp"

namespace havm {
namespace {

Result<void> try_disks(const EngineConfig& config) {
  boost::asio::io_context io;
  BOOST_OUTCOME_TRY(const auto ring, UringLoop::create(io.get_executor()));
  for (const ConfigDisk& disk : config.disks) {
    BOOST_OUTCOME_TRY(open_replica_disk(ring, disk.path, disk.size_bytes));
  }
  return success();
}

// The first resync would take it for the state of the new replica.
Result<void> no_snapshots(const EngineConfig& config) {
  for (const ConfigDisk& disk : config.disks) {
    const std::string snapshot = snapshot_path(disk.path);
    if (::access(snapshot.c_str(), F_OK) == 0)
      return Error(
          "there is a snapshot of an earlier replica, " + snapshot + ": move it away or delete it",
          EEXIST);
  }
  return success();
}

}  // namespace

Result<void> check_record(const EngineConfig& config, const Record& record) {
  if (record.vm_id != config.vm_id || record.vm != config.vm || record.node != config.node)
    return Error("record " + config.record_path + " is that of VM " + record.vm + " (" +
                 record.vm_id + ") on node " + record.node + ", not of " + config.vm + " (" +
                 config.vm_id + ") on " + config.node + "; check the configuration");
  if (record.disks != config.disk_identities())
    return Error("record " + config.record_path + " of VM " + config.vm +
                 " lists other disks (name, order or size) than the configuration");
  return success();
}

Result<void> create_record(const EngineConfig& config, ReplicaState state) {
  BOOST_OUTCOME_TRY(const auto boot_id, read_boot_id());
  BOOST_OUTCOME_TRY(try_disks(config));
  BOOST_OUTCOME_TRY(no_snapshots(config));
  Record first;
  first.vm = config.vm;
  first.vm_id = config.vm_id;
  first.node = config.node;
  first.disks = config.disk_identities();
  first.state = state;
  first.boot_id = boot_id;
  first.clean = true;  // nothing was written through us yet
  if (::access(config.record_path.c_str(), F_OK) == 0)
    return Error("the record " + config.record_path + " exists already", EEXIST);
  // The record last: it is what says that there is a replica.
  BOOST_OUTCOME_TRY(MarksDriver::create(config.record_path, {first.vm_id, first.disks}));
  BOOST_OUTCOME_TRY(remember_images(config.record_path, config.images()));
  BOOST_OUTCOME_TRY(RecordStore::create(config.record_path, first));
  return success();
}

Result<void> adopt_images(const EngineConfig& config, AdoptedImages what) {
  BOOST_OUTCOME_TRY(const auto boot_id, read_boot_id());
  BOOST_OUTCOME_TRY(auto store, RecordStore::load(config.record_path));
  BOOST_OUTCOME_TRY(check_record(config, store.record()));
  BOOST_OUTCOME_TRY(try_disks(config));
  if (what == AdoptedImages::other) {
    if (store.record().in_sync == InSync::self)
      return Error("VM " + config.vm + " on " + config.node +
                   ": by its record this replica is the only complete one, so there is nothing to "
                   "copy it anew from; put its own images back, or restore them from a backup");
    // Before the images are taken for the right ones: a crash between the two refuses them again.
    ReplicaRecord record(store.record(), boot_id);
    record.lost_data();
    BOOST_OUTCOME_TRY(store.write(record.record()));
  }
  return remember_images(config.record_path, config.images());
}

}  // namespace havm
