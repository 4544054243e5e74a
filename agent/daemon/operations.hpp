// The job of Operations: the long requests of the local API (docs/protocol/api.md, Operation). At
// most one for each VM at a time; ended ones are kept for `kept_after_end`, at most `kept_max` of
// them. One thread.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <nlohmann/json.hpp>

#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

struct Operation {
  std::string id;
  std::string kind;
  std::string vm;
  std::string step;
  std::optional<int> percent;
  bool ended = false;
  std::string error;  // non-empty: failed
  nlohmann::json result;
  TimePoint ended_at{};

  [[nodiscard]] nlohmann::json to_json() const;
};

class Operations {
 public:
  static constexpr std::chrono::minutes kept_after_end{30};
  static constexpr std::size_t kept_max = 1000;
  // Tells its progress through the Operation; its result goes to the client.
  using Body =
      std::function<boost::asio::awaitable<Result<nlohmann::json>>(std::shared_ptr<Operation>)>;

  explicit Operations(boost::asio::any_io_executor executor) : executor_(std::move(executor)) {}

  // The running operation of a VM, or null.
  [[nodiscard]] std::shared_ptr<Operation> running(const std::string& vm) const;
  std::shared_ptr<Operation> start(std::string kind, std::string vm, Body body);
  [[nodiscard]] std::shared_ptr<Operation> find(const std::string& id) const;

 private:
  static boost::asio::awaitable<void> run(std::shared_ptr<Operation> operation, Body body);
  void forget_old();

  boost::asio::any_io_executor executor_;
  std::map<std::string, std::shared_ptr<Operation>> all_;
  // Starts at the boot clock: ids stay unique over a restart of the daemon.
  std::uint64_t next_ = static_cast<std::uint64_t>(to_ms(BootClock::now().time_since_epoch()));
};

}  // namespace havm
