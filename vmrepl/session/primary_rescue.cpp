// The part of PrimarySession that repairs what the own disk could not read.
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/session/primary_session.hpp"

namespace havm {

void PrimarySession::take_data(OpId id) {
  Op& op = ops_[id];
  HAVM_ASSERT(received_ != nullptr && received_->size() == op.what.length,
              "the codec and the core have checked the length of the data");
  std::memcpy(op.request->data.data(), received_->data(), op.what.length);
}

// Durable, and read back: a medium that takes writes and cannot return them is no replica.
void PrimarySession::write_back(OpId id) {
  Op& op = ops_[id];
  ReplicaDisk& disk = *disks_[op.what.disk];
  const auto data = std::as_const(op.request->data).span().first(op.what.length);
  disk.write(op.what.offset, data, true, [this, id](int error) {
    if (error != 0) return written_back(id, error);
    const DiskRequest& what = ops_[id].what;
    const auto again = std::make_shared<Buffer>(what.length);
    disks_[what.disk]->read(what.offset, again->span(), [this, id, again](int read_error) {
      const bool same =
          std::memcmp(again->data(), ops_[id].request->data.data(), again->size()) == 0;
      written_back(id, read_error != 0 ? read_error : same ? 0 : EIO);
    });
  });
}

void PrimarySession::written_back(OpId id, int error) {
  core_.written_back(id, error, actions_);
  pump();
}

}  // namespace havm
