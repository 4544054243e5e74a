// The job of IdentityDirectory: the directory where a node keeps its certificates (/etc/havm/tls):
// what is in it, whether it is any good, and writing it.
//
// Guarantees
//  1. install() changes nothing before every byte of every file is written and synced beside its
//     place; then it renames. A crash among the renames leaves files that do not fit together,
//     which check() and every TLS connection notice.
//  2. Keys have mode 0600 from their first byte on, certificates 0644, a directory made here 0700.
// Blocking; any thread. Errors name the file.
#pragma once

#include <ctime>
#include <string>
#include <vector>

#include "agent/pki/authority.hpp"
#include "vmrepl/base/result.hpp"
#include "vmrepl/transport/node_identity.hpp"

namespace havm {

struct IdentityFacts {
  std::string node;  // "" when the certificate names none
  std::string cluster;
  std::string issuer;
  std::string fingerprint;  // SHA-256 of the certificate: "ab:cd:…"
  std::time_t begin = 0;
  std::time_t end = 0;
  std::time_t authority_end = 0;
};

struct NewFile {
  std::string path;
  std::string content;
  bool is_secret = false;
};

class IdentityDirectory {
 public:
  static constexpr const char* usual = "/etc/havm/tls";

  explicit IdentityDirectory(std::string path) : path_(std::move(path)) {}

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] TlsFiles files() const {
    return {path_ + "/ca.pem", path_ + "/node.pem", path_ + "/node.key"};
  }
  [[nodiscard]] std::string authority_key() const { return path_ + "/ca.key"; }
  // Of the files above; empty when none is there.
  [[nodiscard]] std::vector<std::string> existing() const;
  [[nodiscard]] bool has_authority_key() const;

  // The CA of this cluster, where it was made. The Error says where to look for it else.
  [[nodiscard]] Result<CertifiedKey> read_authority() const;
  [[nodiscard]] Result<IdentityFacts> facts() const;
  // As check_identity() on what is there now.
  [[nodiscard]] Result<void> check(const std::string& node, std::time_t now) const;

  // Without `authority_key` ("") the key of a CA that is there stays.
  Result<void> install(const IdentityPem& identity, const std::string& authority_key) const;

 private:
  std::string path_;
};

IdentityFacts facts_of(const NodeIdentity& identity);

// All or, when one cannot be written, none (guarantees 1 and 2). Existing files are replaced.
Result<void> install_files(const std::vector<NewFile>& files);

}  // namespace havm
