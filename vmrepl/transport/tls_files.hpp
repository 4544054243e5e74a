// The job of TlsFiles: where a node keeps what it needs for TLS. Data only.
#pragma once

#include <string>

namespace havm {

// Paths of PEM files.
struct TlsFiles {
  std::string ca;           // certificates of the cluster CA: whom this node believes
  std::string certificate;  // of this node
  std::string key;          // to that certificate
  bool operator==(const TlsFiles&) const = default;
};

}  // namespace havm
