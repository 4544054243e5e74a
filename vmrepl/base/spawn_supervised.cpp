#include "vmrepl/base/spawn_supervised.hpp"

#include <cstdio>
#include <cstdlib>
#include <exception>

#include <boost/asio/co_spawn.hpp>
#include <boost/system/system_error.hpp>

namespace havm {
namespace {

void report_end(const std::string& name, const std::exception_ptr& error) {
  if (!error) return;
  try {
    std::rethrow_exception(error);
  } catch (const boost::system::system_error& e) {
    if (e.code() == boost::asio::error::operation_aborted) return;
    std::fprintf(stderr, "havm: task '%s' failed: %s\n", name.c_str(), e.what());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "havm: task '%s' failed: %s\n", name.c_str(), e.what());
  }
  std::abort();
}

}  // namespace

void spawn_supervised(const boost::asio::any_io_executor& executor, std::string name,
                      boost::asio::awaitable<void> body) {
  boost::asio::co_spawn(
      executor, std::move(body),
      [name = std::move(name)](const std::exception_ptr& e) { report_end(name, e); });
}

}  // namespace havm
