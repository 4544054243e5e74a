// The job of PeerClient: ask the partner's havmd (docs/protocol/peer.md) over whichever link
// answers. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <nlohmann/json.hpp>

#include "agent/control/http.hpp"
#include "agent/policy/definition.hpp"
#include "vmrepl/base/result.hpp"
#include "vmrepl/base/strong_types.hpp"

namespace havm {

class PeerClient {
 public:
  PeerClient(boost::asio::any_io_executor executor, std::string partner,
             const std::vector<std::string>& links, std::uint16_t port);
  ~PeerClient();

  // `deadline` is for all links together. A refusal (status ≥ 400) is an Error with the partner's
  // sentence and code EPROTO; no answer on any link is an Error with code EHOSTUNREACH. A request
  // that reached the partner and got no answer may still have been carried out: every request of
  // this protocol may be repeated.
  boost::asio::awaitable<Result<nlohmann::json>> request(std::string method, std::string target,
                                                         nlohmann::json body,
                                                         std::chrono::milliseconds deadline);

  boost::asio::awaitable<Result<void>> ask_takeover(std::string vm, Epoch epoch,
                                                    std::chrono::milliseconds deadline);
  // Tries once, in the background; the periodic report notices when it did not arrive.
  void push_definition(const VmDefinition& definition);

 private:
  struct Shared;
  static boost::asio::awaitable<Result<nlohmann::json>> request_on(
      std::shared_ptr<Shared> shared, std::string method, std::string target, nlohmann::json body,
      std::chrono::milliseconds deadline);
  static boost::asio::awaitable<void> push(std::shared_ptr<Shared> shared, std::string target,
                                           nlohmann::json body);

  std::shared_ptr<Shared> shared_;
};

}  // namespace havm
