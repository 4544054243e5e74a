// The job of these types: own OpenSSL's objects and free each once, and turn OpenSSL's error queue
// into words. Any thread.
#pragma once

#include <memory>
#include <string>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

namespace havm {

template <auto free_it>
struct OpensslFree {
  template <class T>
  void operator()(T* object) const {
    free_it(object);
  }
};

using BioHandle = std::unique_ptr<BIO, OpensslFree<BIO_free_all>>;
using X509Handle = std::unique_ptr<X509, OpensslFree<X509_free>>;
using KeyHandle = std::unique_ptr<EVP_PKEY, OpensslFree<EVP_PKEY_free>>;
using X509StoreHandle = std::unique_ptr<X509_STORE, OpensslFree<X509_STORE_free>>;
using X509StoreContextHandle = std::unique_ptr<X509_STORE_CTX, OpensslFree<X509_STORE_CTX_free>>;
using GeneralNamesHandle = std::unique_ptr<GENERAL_NAMES, OpensslFree<GENERAL_NAMES_free>>;
using SslContextHandle = std::unique_ptr<SSL_CTX, OpensslFree<SSL_CTX_free>>;
using SslHandle = std::unique_ptr<SSL, OpensslFree<SSL_free>>;

// The first error of the queue in OpenSSL's words; empties the queue.
std::string openssl_error();

// A memory BIO that reads `text`, which must outlive it.
BioHandle read_bio(const std::string& text);

}  // namespace havm
