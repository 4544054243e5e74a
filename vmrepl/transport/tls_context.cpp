#include "vmrepl/transport/tls_context.hpp"

#include "vmrepl/base/assert.hpp"
#include "vmrepl/transport/node_identity.hpp"

namespace havm {
namespace {

// The fast one first: replication moves whole disks.
constexpr const char* ciphers =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

}  // namespace

Result<SslContextHandle> make_tls_context(const TlsFiles& files, const std::string& node) {
  BOOST_OUTCOME_TRY(const auto texts, read_identity(files));
  BOOST_OUTCOME_TRY(const auto identity, parse_identity(texts, files));
  BOOST_OUTCOME_TRY(check_identity(identity, files, node, ::time(nullptr)));
  SslContextHandle context(SSL_CTX_new(TLS_method()));
  SSL_CTX* c = context.get();
  const bool made = c != nullptr && SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) == 1 &&
                    SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) == 1 &&
                    SSL_CTX_set_ciphersuites(c, ciphers) == 1 &&
                    SSL_CTX_set_num_tickets(c, 0) == 1 &&
                    SSL_CTX_use_certificate(c, identity.certificate.get()) == 1 &&
                    SSL_CTX_use_PrivateKey(c, identity.key.get()) == 1;
  if (!made)
    return Error("TLS cannot be set up with " + files.certificate + ": " + openssl_error());
  SSL_CTX_set_options(c, SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_cert_store(c, store_of(identity.authorities).release());
  SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return context;
}

}  // namespace havm
