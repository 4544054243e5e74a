// The job of GuardClient: hand each lease grant of the partner to havm-guard
// (docs/protocol/guard.md, `renew`), so that a dead agent costs no lease. Without a guard it goes
// on and tries again later: who has no guard has nobody who would pause the VM. One thread.
#pragma once

#include <optional>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/strong_types.hpp"

namespace havm {

class GuardClient {
 public:
  static constexpr Duration retry_delay = std::chrono::seconds(1);

  // An empty path: there is no guard.
  GuardClient(boost::asio::any_io_executor executor, std::string path, std::string vm);

  // A grant for `epoch`, counted from when it was requested.
  void renew(Epoch epoch, TimePoint requested);

 private:
  bool connected();
  void read_answers();
  void disconnect(const std::string& why);

  boost::asio::any_io_executor executor_;
  std::string path_;
  std::string vm_;
  std::optional<boost::asio::posix::stream_descriptor> socket_;
  TimePoint tried_at_;
  bool told_ = false;  // that the guard is away
};

}  // namespace havm
