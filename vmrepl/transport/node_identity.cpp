#include "vmrepl/transport/node_identity.hpp"

#include <array>
#include <cerrno>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

constexpr const char* uri_scheme = "havm-node:";

std::time_t to_time(const ASN1_TIME* when) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(when, &parts) != 1) return 0;
  return ::timegm(&parts);
}

std::string text_of(const ASN1_STRING* text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
          static_cast<std::size_t>(ASN1_STRING_length(text))};
}

Result<std::vector<X509Handle>> parse_certificates(const std::string& pem,
                                                   const std::string& name) {
  ERR_clear_error();
  std::vector<X509Handle> all;
  const BioHandle bio = read_bio(pem);
  while (X509* one = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr))
    all.emplace_back(one);
  // The end of the text is an error of its own kind.
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (!all.empty() && at_end) {
    ERR_clear_error();
    return all;
  }
  return Error(name + " holds no readable certificate: " + openssl_error(), EINVAL);
}

// A key with a passphrase could not be used by a daemon: no passphrase is ever asked for.
int no_passphrase(char*, int, int, void*) {
  return 0;
}

Result<KeyHandle> parse_key(const std::string& pem, const std::string& name) {
  ERR_clear_error();
  const BioHandle bio = read_bio(pem);
  KeyHandle key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr));
  if (!key)
    return Error(name + " holds no readable private key without passphrase: " + openssl_error(),
                 EINVAL);
  return key;
}

Result<void> check_time(const X509& certificate, const std::string& what, std::time_t now) {
  if (now > end_of(certificate))
    return Error(what + " expired at " + utc_text(end_of(certificate)), EINVAL);
  if (now < begin_of(certificate))
    return Error(what + " is valid only from " + utc_text(begin_of(certificate)) +
                     ", and the clock of this host says " + utc_text(now),
                 EINVAL);
  return success();
}

}  // namespace

std::string node_uri(const std::string& node) {
  return uri_scheme + node;
}

std::string node_of(const X509& certificate) {
  const GeneralNamesHandle names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(&certificate, NID_subject_alt_name, nullptr, nullptr)));
  std::string node;
  if (!names) return node;
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const std::string uri = text_of(name->d.uniformResourceIdentifier);
    if (!uri.starts_with(uri_scheme)) continue;
    if (!node.empty()) return "";
    node = uri.substr(std::string(uri_scheme).size());
  }
  return node;
}

std::string cluster_of(const X509& certificate) {
  const X509_NAME* subject = X509_get_subject_name(&certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_organizationName, -1);
  if (at < 0) return "";
  return text_of(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

std::string utc_text(std::time_t time) {
  std::tm parts{};
  ::gmtime_r(&time, &parts);
  std::array<char, 32> text{};
  const std::size_t size = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return {text.data(), size};
}

std::time_t begin_of(const X509& certificate) {
  return to_time(X509_get0_notBefore(&certificate));
}

std::time_t end_of(const X509& certificate) {
  return to_time(X509_get0_notAfter(&certificate));
}

std::string certificate_problem(int x509_error) {
  switch (x509_error) {
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
      return "it was not issued by the cluster CA that this node knows";
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return "it has expired, or the clock of this host is wrong";
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return "it is not valid yet, or the clock of this host is wrong";
    default:
      return X509_verify_cert_error_string(x509_error);
  }
}

Result<NodeIdentity> parse_identity(const IdentityPem& texts, const TlsFiles& names) {
  NodeIdentity identity;
  BOOST_OUTCOME_TRY(identity.authorities, parse_certificates(texts.ca, names.ca));
  BOOST_OUTCOME_TRY(auto own, parse_certificates(texts.certificate, names.certificate));
  if (own.size() != 1)
    return Error(names.certificate + " holds " + std::to_string(own.size()) +
                     " certificates where one, that of this node, is expected",
                 EINVAL);
  identity.certificate = std::move(own.front());
  BOOST_OUTCOME_TRY(identity.key, parse_key(texts.key, names.key));
  return identity;
}

Result<IdentityPem> read_identity(const TlsFiles& files) {
  IdentityPem texts;
  BOOST_OUTCOME_TRY(texts.ca, read_file(files.ca));
  BOOST_OUTCOME_TRY(texts.certificate, read_file(files.certificate));
  BOOST_OUTCOME_TRY(texts.key, read_file(files.key));
  return texts;
}

X509StoreHandle store_of(const std::vector<X509Handle>& authorities) {
  X509StoreHandle store(X509_STORE_new());
  HAVM_ASSERT(store != nullptr, "out of memory");
  for (const X509Handle& authority : authorities)
    X509_STORE_add_cert(store.get(), authority.get());
  return store;
}

Result<void> check_identity(const NodeIdentity& identity, const TlsFiles& names,
                            const std::string& node, std::time_t now) {
  const X509& own = *identity.certificate;
  if (X509_check_private_key(&own, identity.key.get()) != 1) {
    ERR_clear_error();
    return Error(
        "the key " + names.key + " does not belong to the certificate " + names.certificate,
        EINVAL);
  }
  const std::string named = node_of(own);
  if (named != node)
    return Error("the certificate " + names.certificate + " is " +
                     (named.empty() ? "not that of a node" : "that of node " + named) +
                     ", and this is node " + node,
                 EINVAL);
  for (const X509Handle& authority : identity.authorities)
    if (X509_check_issued(authority.get(), identity.certificate.get()) == X509_V_OK) {
      BOOST_OUTCOME_TRY(
          check_time(*authority, "the certificate of the cluster CA " + names.ca, now));
    }
  BOOST_OUTCOME_TRY(check_time(own, "the certificate " + names.certificate, now));
  // A node is client to its partner and server, by whoever owns the VM.
  const X509StoreHandle store = store_of(identity.authorities);
  for (const int purpose : {X509_PURPOSE_SSL_CLIENT, X509_PURPOSE_SSL_SERVER}) {
    const X509StoreContextHandle check(X509_STORE_CTX_new());
    X509_STORE_CTX_init(check.get(), store.get(), identity.certificate.get(), nullptr);
    X509_STORE_CTX_set_time(check.get(), 0, now);
    X509_STORE_CTX_set_purpose(check.get(), purpose);
    if (X509_verify_cert(check.get()) == 1) continue;
    const int why = X509_STORE_CTX_get_error(check.get());
    ERR_clear_error();
    return Error("the certificate " + names.certificate + " is of no use with the CA in " +
                     names.ca + ": " + certificate_problem(why),
                 EINVAL);
  }
  return success();
}

}  // namespace havm
