// The job of a bundle: one file that carries to a node what it needs to be one: the certificate of
// the CA, the node's certificate and its key, in PEM, in this order, behind a line for people. It
// holds a secret. Any thread.
#pragma once

#include <string>

#include "vmrepl/base/result.hpp"
#include "vmrepl/transport/node_identity.hpp"

namespace havm {

std::string make_bundle(const IdentityPem& identity, const std::string& cluster,
                        const std::string& node);

// Exactly two certificates and one key; whether they are any good is for check_identity to say.
// `name` is that of the file, for Errors.
Result<IdentityPem> parse_bundle(const std::string& text, const std::string& name);

}  // namespace havm
