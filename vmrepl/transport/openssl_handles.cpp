#include "vmrepl/transport/openssl_handles.hpp"

#include <openssl/err.h>

#include "vmrepl/base/assert.hpp"

namespace havm {

std::string openssl_error() {
  const unsigned long first = ERR_get_error();
  ERR_clear_error();
  const char* reason = first == 0 ? nullptr : ERR_reason_error_string(first);
  return reason == nullptr ? "no reason was given" : reason;
}

BioHandle read_bio(const std::string& text) {
  BioHandle bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  HAVM_ASSERT(bio != nullptr, "out of memory");
  return bio;
}

}  // namespace havm
