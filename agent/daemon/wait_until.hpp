// The job of wait_until: wait in a coroutine for a condition of the daemon, with a deadline.
#pragma once

#include <chrono>
#include <functional>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "vmrepl/base/clock.hpp"

namespace havm {

// True when `condition` held within `deadline`; looked at every 100 ms on the coroutine's executor.
inline boost::asio::awaitable<bool> wait_until(boost::asio::any_io_executor executor,
                                               std::function<bool()> condition,
                                               std::chrono::milliseconds deadline) {
  const TimePoint end = BootClock::now() + deadline;
  boost::asio::steady_timer timer(executor);
  constexpr auto as_result = boost::asio::as_tuple(boost::asio::use_awaitable);
  while (!condition()) {
    if (BootClock::now() >= end) co_return false;
    timer.expires_after(std::chrono::milliseconds(100));
    auto waited = co_await timer.async_wait(as_result);
    static_cast<void>(waited);
  }
  co_return true;
}

}  // namespace havm
