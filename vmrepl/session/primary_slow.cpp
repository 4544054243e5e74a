// The part of PrimarySession that measures the partner and leaves one that is too slow.
#include "vmrepl/session/primary_session.hpp"

namespace havm {

void PrimarySession::note_sent(const FrameHeader& header) {
  const bool waits = header.type == FrameType::write || header.type == FrameType::zero ||
                     header.type == FrameType::flush || header.type == FrameType::read;
  if (waits && !header.resync) slow_.sent(header.sequence, BootClock::now());
}

void PrimarySession::judge_partner(TimePoint now) {
  // While it is held nothing of it is in a guest request's way, once its last copies have ended.
  const bool waits = resync_ && resync_->in_flight() == 0 && flow_.holds().held(now);
  slow_.copying(resync_ && !resync_->finished() && !waits);
  if (slow_.judge(now)) callbacks_.partner_slow(slow_.is_slow(), slow_.reason());
  // Where the partner may be in-sync, leaving it holds all I/O until the arbiter has taken it out:
  // whether the arbiter answers is for the agent to know.
  if (!core_.partner_required()) (void)leave_slow_partner();
}

bool PrimarySession::leave_slow_partner() {
  if (!slow_.is_slow()) return false;
  const std::string reason = slow_.reason();
  slow_.left_behind(BootClock::now());
  drop_session(reason);
  return true;
}

}  // namespace havm
