// The job of NodeIdentity: what makes a node of a cluster one in TLS: the certificates of the
// cluster CA, the node's own certificate, its key; and the one rule how a certificate names its
// node: one URI "havm-node:NAME" among its alternative names.
//
// Guarantee of check_identity(): a partner that has the same CA and the right time accepts this
// certificate as that of `node`. Errors name the file. Any thread.
#pragma once

#include <ctime>
#include <string>
#include <vector>

#include "vmrepl/base/result.hpp"
#include "vmrepl/transport/openssl_handles.hpp"
#include "vmrepl/transport/tls_files.hpp"

namespace havm {

struct NodeIdentity {
  std::vector<X509Handle> authorities;  // at least one
  X509Handle certificate;
  KeyHandle key;
};

// Texts in PEM.
struct IdentityPem {
  std::string ca;
  std::string certificate;
  std::string key;
};

// "havm-node:a"
std::string node_uri(const std::string& node);
// The node that a certificate names; "" when it names none, or several.
std::string node_of(const X509& certificate);
std::string cluster_of(const X509& certificate);  // its organization
// Why OpenSSL (X509_V_ERR_…) refuses a certificate, in words.
std::string certificate_problem(int x509_error);
// "2035-01-31T09:30:00Z"
std::string utc_text(std::time_t time);
std::time_t begin_of(const X509& certificate);
std::time_t end_of(const X509& certificate);

// `names`: what to call each text in an Error, usually the paths of the files.
Result<NodeIdentity> parse_identity(const IdentityPem& texts, const TlsFiles& names);
Result<IdentityPem> read_identity(const TlsFiles& files);

Result<void> check_identity(const NodeIdentity& identity, const TlsFiles& names,
                            const std::string& node, std::time_t now);

// Trusts these authorities and nothing else.
X509StoreHandle store_of(const std::vector<X509Handle>& authorities);

}  // namespace havm
