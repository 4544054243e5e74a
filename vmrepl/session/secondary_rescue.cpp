// The part of SecondarySession that reads for an owner whose own disk could not.
#include <cerrno>
#include <cstring>
#include <utility>

#include <boost/asio/post.hpp>
#include <spdlog/spdlog.h>

#include "vmrepl/session/secondary_session.hpp"

namespace havm {

// A frame of 64 bytes asks for up to 32 MiB, so memory is taken when it is its turn.
void SecondarySession::read(OpId id) {
  waiting_reads_.push_back(id);
  start_reads();
}

void SecondarySession::start_reads() {
  while (!waiting_reads_.empty()) {
    const OpId id = waiting_reads_.front();
    Request& r = requests_[id];
    const FrameHeader& h = r.header;
    if (reading_bytes_ != 0 && reading_bytes_ + h.length > reading_bytes_max) return;
    waiting_reads_.pop_front();
    ReplicaDisk& disk = *disks_[h.disk];
    reading_bytes_ += h.length;
    if (h.offset % disk.alignment_bytes() != 0 || h.length % disk.alignment_bytes() != 0) {
      boost::asio::post(executor_, [this, id] { read_done(id, EINVAL); });
      continue;
    }
    r.data = Buffer(h.length);
    in_flight_bytes_ += h.length;
    disk.read(h.offset, r.data.span(), [this, id](int error) { read_done(id, error); });
  }
}

void SecondarySession::read_done(OpId id, int error) {
  const FrameHeader& h = requests_[id].header;
  if (error != 0)
    spdlog::error("vm={} disk={} {} bytes at {} can be read neither by the owner nor here: {}",
                  config_.vm, config_.disks[h.disk].name, h.length, h.offset, std::strerror(error));
  reading_bytes_ -= h.length;
  core_.read_done(id, error, actions_);
  pump();  // sends the data, before its buffer goes
  free_request(id);
  start_reads();
}

void SecondarySession::send_data(const SecondaryAction& action) {
  const auto it = connections_.find(action.connection);
  if (it == connections_.end()) return;
  if (action.frame.status != 0) {
    it->second->send(action.frame, {});
    return;
  }
  const auto data = std::as_const(requests_[action.id].data).span();
  const auto number = it->second->send(action.frame, data);
  if (!it->second->is_sent(number)) it->second->detach(number);
}

}  // namespace havm
