// The job of HypervisorWorker: make the blocking hypervisor calls of one VM on a thread of its own,
// each with a deadline, so that one hanging QEMU or libvirtd cannot delay any other VM. Calls of
// one worker run in order. A call that misses its deadline goes on in the background; its result is
// dropped.
#pragma once

#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "vmrepl/base/result.hpp"

namespace havm {

class HypervisorWorker {
 public:
  explicit HypervisorWorker(boost::asio::any_io_executor executor)
      : executor_(std::move(executor)), pool_(std::make_shared<boost::asio::thread_pool>(1)) {}
  // Does not wait for a call that hangs: the pool is left to the process's end then.
  ~HypervisorWorker() {
    pool_->stop();
    if (busy_->load() > 0) new std::shared_ptr<boost::asio::thread_pool>(pool_);
  }
  HypervisorWorker(const HypervisorWorker&) = delete;
  HypervisorWorker& operator=(const HypervisorWorker&) = delete;

  // `what` names the call in the error of a missed deadline.
  template <class T>
  boost::asio::awaitable<Result<T>> run(std::string what, std::function<Result<T>()> call,
                                        std::chrono::milliseconds deadline) {
    struct Shared {
      explicit Shared(const boost::asio::any_io_executor& ex) : timer(ex) {}
      boost::asio::steady_timer timer;
      std::optional<Result<T>> result;
    };
    auto shared = std::make_shared<Shared>(executor_);
    shared->timer.expires_after(deadline);
    boost::asio::post(*pool_, [shared, call = std::move(call), busy = busy_, ex = executor_] {
      busy->fetch_add(1);
      auto result = std::make_shared<Result<T>>(call());
      busy->fetch_sub(1);
      boost::asio::post(ex, [shared, result] {
        shared->result = std::move(*result);
        shared->timer.cancel();
      });
    });
    if (!shared->result) {
      constexpr auto as_result = boost::asio::as_tuple(boost::asio::use_awaitable);
      auto waited = co_await shared->timer.async_wait(as_result);
      static_cast<void>(waited);
    }
    if (!shared->result)
      co_return Error(what + " did not end within " + std::to_string(deadline.count()) + " ms",
                      ETIMEDOUT);
    co_return std::move(*shared->result);
  }

 private:
  boost::asio::any_io_executor executor_;
  std::shared_ptr<boost::asio::thread_pool> pool_;
  std::shared_ptr<std::atomic<int>> busy_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace havm
