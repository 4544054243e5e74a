// The job of make_tls_context: the settings of every TLS connection between engines. TLS 1.3 only;
// both sides show a certificate; only the cluster CA is believed; no tickets and no early data, so
// that each connection proves again who is there. The files are read anew for each connection: a
// new certificate counts from the next one on, without a restart. Blocking on small files.
#pragma once

#include <string>

#include "vmrepl/base/result.hpp"
#include "vmrepl/transport/openssl_handles.hpp"
#include "vmrepl/transport/tls_files.hpp"

namespace havm {

// Refused when the partner would refuse this node: see check_identity. `node` is this one.
Result<SslContextHandle> make_tls_context(const TlsFiles& files, const std::string& node);

}  // namespace havm
