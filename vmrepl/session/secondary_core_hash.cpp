// The part of SecondaryCore that tells the owner the checksums of its replica.
#include <utility>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/session/secondary_core.hpp"

namespace havm {

// A failed read is the owner's to judge: this replica has lost no write by it.
void SecondaryCore::hash_done(OpId id, int error, std::vector<GrainHash> hashes, Actions& out) {
  const auto it = ops_.find(id);
  HAVM_ASSERT(it != ops_.end() && it->second.running, "a hash ended that was not started");
  const Op op = it->second;
  HAVM_ASSERT(op.header.type == FrameType::hash, "only a hash has checksums");
  ops_.erase(it);
  --in_flight_;
  if (session_ && op.session_number == session_number_) {
    reply(FrameType::hash_ok, op.header.sequence, out);
    SecondaryAction& answer = out.back();
    answer.frame.status = static_cast<std::uint32_t>(error);
    answer.frame.disk = op.header.disk;
    answer.frame.offset = op.header.offset;
    answer.frame.length = op.header.length;
    if (error == 0) answer.hashes = std::move(hashes);
  }
  ended(id, op, out);
}

}  // namespace havm
