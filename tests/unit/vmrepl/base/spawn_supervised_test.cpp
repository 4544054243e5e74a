// spawn_supervised: an escaped exception stops the process and is named; cancellation is quiet.
#include "vmrepl/base/spawn_supervised.hpp"

#include <stdexcept>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <gtest/gtest.h>

namespace havm {
namespace {

namespace asio = boost::asio;

asio::awaitable<void> throws_at_once() {
  throw std::runtime_error("the sky fell");
  co_return;
}

asio::awaitable<void> waits_on(asio::steady_timer& timer) {
  co_await timer.async_wait(asio::use_awaitable);
}

TEST(SpawnSupervisedDeathTest, AnEscapedExceptionStopsTheProcess) {
  EXPECT_DEATH(
      {
        asio::io_context io;
        spawn_supervised(io.get_executor(), "sky watcher", throws_at_once());
        io.run();
      },
      "task 'sky watcher' failed: the sky fell");
}

TEST(SpawnSupervised, CancellationEndsQuietly) {
  asio::io_context io;
  asio::steady_timer timer(io, std::chrono::hours(1));
  spawn_supervised(io.get_executor(), "waiter", waits_on(timer));
  asio::steady_timer soon(io, std::chrono::milliseconds(1));
  soon.async_wait([&timer](const auto&) { timer.cancel(); });
  EXPECT_GT(io.run(), 0U);
}

}  // namespace
}  // namespace havm
