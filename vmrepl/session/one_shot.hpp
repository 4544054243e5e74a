// The job of OneShot: let a coroutine wait for a value that a callback brings, once. Waits on the
// same executor that sets it; set() before wait() is fine. One thread.
#pragma once

#include <optional>
#include <utility>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace havm {

template <class T>
class OneShot {
 public:
  explicit OneShot(const boost::asio::any_io_executor& executor)
      : timer_(executor, boost::asio::steady_timer::time_point::max()) {}

  void set(T value) {
    value_.emplace(std::move(value));
    timer_.cancel();
  }

  boost::asio::awaitable<T> wait() {
    boost::system::error_code woken;
    while (!value_)
      co_await timer_.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, woken));
    co_return std::move(*value_);
  }

 private:
  boost::asio::steady_timer timer_;
  std::optional<T> value_;
};

}  // namespace havm
