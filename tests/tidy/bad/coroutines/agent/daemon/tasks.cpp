#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

boost::asio::awaitable<void> good(Links links, std::size_t i) {
  std::function<void()> call = [i] { use(i); };
  auto a = co_await links[i]->request("{ braces in a string }", std::move(call));
  if (auto b = co_await links[i]->read(); b) {
    co_await done();
  }
}

boost::asio::awaitable<void> bad(Worker worker, int n) {
  auto a = co_await worker.run(Request{n, "text"});
  auto b = co_await worker.run([n] { return n; });
  auto c = co_await worker.run(
      "over several lines",
      {n, n});
  auto task = [n]() -> boost::asio::awaitable<void> { co_return; };
  boost::asio::co_spawn(worker.executor(), task(), boost::asio::detached);
}
