// The job of Result<T>: carry an expected failure as a value. An Error says what happened, to which
// VM, node or file, and what to do next, in one sentence for a person; `code` is an errno value or
// 0. Use BOOST_OUTCOME_TRY(auto v, f()) in functions and BOOST_OUTCOME_CO_TRY in coroutines (g++
// 12: name every non-trivial argument before the co_await expression). This is the only header of
// base that includes Boost; `_core` files return plain values instead.
#pragma once

#include <string>
#include <utility>

#include <boost/outcome/basic_result.hpp>
#include <boost/outcome/policy/terminate.hpp>
#include <boost/outcome/try.hpp>

namespace havm {

struct Error {
  std::string message;
  int code = 0;

  Error() = default;
  explicit Error(std::string text, int errno_value = 0)
      : message(std::move(text)), code(errno_value) {}
};

// An Error whose message is "<what>: <strerror(errno_value)>".
Error errno_error(const std::string& what, int errno_value);

template <class T>
using Result = boost::outcome_v2::basic_result<T, Error, boost::outcome_v2::policy::terminate>;

using boost::outcome_v2::success;

}  // namespace havm
