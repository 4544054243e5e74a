// The job of spawn_supervised: start a coroutine whose exception is never swallowed (as with
// co_spawn(…, detached)). An escaped exception is a bug: it is printed with the coroutine's name
// and the process stops. Cancellation of an Asio operation (operation_aborted) ends the coroutine
// quietly.
#pragma once

#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

namespace havm {

void spawn_supervised(const boost::asio::any_io_executor& executor, std::string name,
                      boost::asio::awaitable<void> body);

}  // namespace havm
