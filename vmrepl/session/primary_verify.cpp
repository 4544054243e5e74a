// The part of PrimarySession that lets a VerifyDriver compare the replicas.
#include <utility>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/session/primary_session.hpp"

namespace havm {

VerifyDriver PrimarySession::make_verify() {
  std::vector<std::string> names;
  for (const ConfigDisk& disk : config_.disks)
    names.push_back(disk.name);
  VerifyDriver::Hooks h;
  h.check = [this](std::uint64_t run, const VerifyCheck& check, bool repair) {
    verify_range(run, check, repair);
  };
  h.flush = [this](std::uint64_t run, std::uint16_t disk) { verify_flush(run, disk); };
  h.guest_busy = [this] { return core_.guest_requests() > 0; };
  h.changed = [this] { callbacks_.verify_changed(); };
  return VerifyDriver(executor_, config_.vm, std::move(names), config_.disk_sizes_bytes(),
                      std::move(h));
}

void PrimarySession::start_verify(bool repair, std::uint64_t rate_bytes_per_s) {
  HAVM_ASSERT(core_.state() == SessionState::live && partner_has_hashes(),
              "a verify without a partner that can be asked");
  verify_.start(repair, rate_bytes_per_s);
}

// Without a live session its loss is about to be told to the driver.
void PrimarySession::verify_range(std::uint64_t run, const VerifyCheck& check, bool repair) {
  if (core_.state() != SessionState::live) return;
  const OpId id = new_op();
  Op& op = ops_[id];
  op.verify_run = run;
  op.check = check;
  op.copy.disk = check.disk;
  op.copy.offset = check.offset;
  op.copy.length = check.length;
  core_.verify(id, {check.disk, check.offset, check.length}, repair, actions_);
  pump();
}

void PrimarySession::verify_flush(std::uint64_t run, std::uint16_t disk) {
  if (core_.state() != SessionState::live) return;
  const OpId id = new_op();
  ops_[id].verify_run = run;
  core_.verify_flush(id, disk, actions_);
  pump();
}

void PrimarySession::verify_done(const Op& op, const PrimaryAction& action) {
  if (op.copy.length == 0)
    verify_.flushed(op.verify_run, action.error);
  else
    verify_.checked(op.verify_run, op.check, action.error, action.check);
}

}  // namespace havm
