#include "vmrepl/base/result.hpp"

#include <system_error>

namespace havm {

Error errno_error(const std::string& what, int errno_value) {
  return Error(what + ": " + std::generic_category().message(errno_value), errno_value);
}

}  // namespace havm
