#include "agent/pki/authority.hpp"

#include <algorithm>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/transport/node_identity.hpp"

namespace havm {
namespace {

constexpr std::time_t seconds_per_day = 24 * 60 * 60;
constexpr int serial_bits = 127;

struct Signer {
  X509* certificate;  // null: the certificate signs itself
  EVP_PKEY* key;
};

struct Extension {
  int nid;
  std::string value;
};

Error failed(const std::string& what) {
  return Error("cannot make " + what + ": " + openssl_error());
}

KeyHandle make_key() {
  return KeyHandle(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
}

bool add_name(X509_NAME* name, const char* field, const std::string& value) {
  return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8,
                                    reinterpret_cast<const unsigned char*>(value.data()),
                                    static_cast<int>(value.size()), -1, 0) == 1;
}

bool set_random_serial(X509* certificate) {
  const std::unique_ptr<BIGNUM, OpensslFree<BN_free>> number(BN_new());
  return number && BN_rand(number.get(), serial_bits, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
         BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool add_extensions(X509* certificate, X509* issuer, const std::vector<Extension>& extensions) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  for (const Extension& each : extensions) {
    const std::unique_ptr<X509_EXTENSION, OpensslFree<X509_EXTENSION_free>> made(
        X509V3_EXT_conf_nid(nullptr, &context, each.nid, each.value.c_str()));
    if (!made || X509_add_ext(certificate, made.get(), -1) != 1) return false;
  }
  return true;
}

Result<X509Handle> sign_certificate(EVP_PKEY& key, const std::string& cluster,
                                    const std::string& name, const Validity& validity,
                                    const Signer& signer,
                                    const std::vector<Extension>& extensions) {
  X509Handle made(X509_new());
  HAVM_ASSERT(made != nullptr, "out of memory");
  X509* c = made.get();
  X509* issuer = signer.certificate == nullptr ? c : signer.certificate;
  X509_NAME* subject = X509_get_subject_name(c);
  const bool good = X509_set_version(c, X509_VERSION_3) == 1 && set_random_serial(c) &&
                    ASN1_TIME_set(X509_getm_notBefore(c), validity.begin) != nullptr &&
                    ASN1_TIME_set(X509_getm_notAfter(c), validity.end) != nullptr &&
                    X509_set_pubkey(c, &key) == 1 && add_name(subject, "O", cluster) &&
                    add_name(subject, "CN", name) &&
                    X509_set_issuer_name(c, X509_get_subject_name(issuer)) == 1 &&
                    add_extensions(c, issuer, extensions) &&
                    X509_sign(c, signer.key, EVP_sha256()) > 0;
  if (!good) return failed("the certificate '" + name + "'");
  return made;
}

std::string content_of(BIO* bio) {
  BUF_MEM* content = nullptr;
  BIO_get_mem_ptr(bio, &content);
  return {content->data, content->length};
}

Result<CertifiedKey> to_pem(X509& certificate, EVP_PKEY& key) {
  const BioHandle c(BIO_new(BIO_s_mem()));
  const BioHandle k(BIO_new(BIO_s_secmem()));
  if (PEM_write_bio_X509(c.get(), &certificate) != 1 ||
      PEM_write_bio_PKCS8PrivateKey(k.get(), &key, nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return failed("the text of a certificate");
  return CertifiedKey{content_of(c.get()), content_of(k.get())};
}

}  // namespace

Validity validity_of(int days, std::time_t now) {
  return {now - seconds_per_day, now + days * seconds_per_day};
}

Result<CertifiedKey> make_authority(const std::string& cluster, const Validity& validity) {
  ERR_clear_error();
  const KeyHandle key = make_key();
  if (!key) return failed("the key of the CA");
  BOOST_OUTCOME_TRY(const auto certificate,
                    sign_certificate(*key, cluster, "havm CA of cluster " + cluster, validity,
                                     {nullptr, key.get()},
                                     {{NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
                                      {NID_key_usage, "critical,keyCertSign,cRLSign"},
                                      {NID_subject_key_identifier, "hash"}}));
  return to_pem(*certificate, *key);
}

Result<CertifiedKey> certify_node(const CertifiedKey& authority, const std::string& cluster,
                                  const std::string& node, const Validity& validity) {
  ERR_clear_error();
  const TlsFiles names{"the CA's certificate", "the CA's certificate", "the CA's key"};
  BOOST_OUTCOME_TRY(
      const auto ca,
      parse_identity({authority.certificate, authority.certificate, authority.key}, names));
  if (X509_check_private_key(ca.certificate.get(), ca.key.get()) != 1) {
    ERR_clear_error();
    return Error("the key of the CA does not belong to its certificate", EINVAL);
  }
  const KeyHandle key = make_key();
  if (!key) return failed("the key of node " + node);
  const Validity limited{validity.begin, std::min(validity.end, end_of(*ca.certificate))};
  BOOST_OUTCOME_TRY(
      const auto certificate,
      sign_certificate(*key, cluster, node, limited, {ca.certificate.get(), ca.key.get()},
                       {{NID_basic_constraints, "critical,CA:FALSE"},
                        {NID_key_usage, "critical,digitalSignature"},
                        {NID_ext_key_usage, "serverAuth,clientAuth"},
                        {NID_subject_key_identifier, "hash"},
                        {NID_authority_key_identifier, "keyid:always"},
                        {NID_subject_alt_name, "URI:" + node_uri(node)}}));
  return to_pem(*certificate, *key);
}

}  // namespace havm
