// The job of TestCluster: certificates of a cluster in a folder of their own, made as havm makes
// them, good ones and bad ones. The folder goes with the object.
#pragma once

#include <ctime>
#include <string>

#include "agent/pki/authority.hpp"
#include "vmrepl/transport/tls_files.hpp"

namespace havm {

class TestCluster {
 public:
  explicit TestCluster(const std::string& name = "demo");
  ~TestCluster();
  TestCluster(const TestCluster&) = delete;
  TestCluster& operator=(const TestCluster&) = delete;

  // The files of a node; made anew at each call, under `file` when that is not the node's name.
  TlsFiles node(const std::string& name, const std::string& file = "");
  TlsFiles node(const std::string& name, const Validity& validity, const std::string& file);

  [[nodiscard]] const CertifiedKey& authority() const { return authority_; }
  [[nodiscard]] const std::string& folder() const { return folder_; }
  // The path.
  std::string write(const std::string& file, const std::string& text) const;

 private:
  std::string name_;
  std::string folder_;
  CertifiedKey authority_;
};

}  // namespace havm
