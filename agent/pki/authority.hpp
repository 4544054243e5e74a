// The job of these functions: make the certificates of a cluster: its CA, and with that CA the
// certificate of each node. Keys are ECDSA P-256. A node's certificate serves a client and a server
// of TLS, names its node as node_identity.hpp wants it, and can sign nothing. Texts are PEM. They
// write no file. Any thread.
#pragma once

#include <ctime>
#include <string>

#include "vmrepl/base/result.hpp"

namespace havm {

struct Validity {
  std::time_t begin = 0;
  std::time_t end = 0;
};

inline constexpr int days_max = 36500;
// From a day before `now`, so that a partner whose clock is behind believes it, for `days`.
Validity validity_of(int days, std::time_t now);

struct CertifiedKey {
  std::string certificate;
  std::string key;
};

Result<CertifiedKey> make_authority(const std::string& cluster, const Validity& validity);

// The end of the certificate is at most that of the CA's. Refused when key and certificate of the
// CA do not belong together.
Result<CertifiedKey> certify_node(const CertifiedKey& authority, const std::string& cluster,
                                  const std::string& node, const Validity& validity);

}  // namespace havm
