#include "tests/unit/vmrepl/transport/test_cluster.hpp"

#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

constexpr int days = 30;

}  // namespace

TestCluster::TestCluster(const std::string& name) : name_(name) {
  std::string folder = testing::TempDir() + "havm-tls-XXXXXX";
  HAVM_ASSERT(::mkdtemp(folder.data()) != nullptr, "the tests need a writable temporary folder");
  folder_ = folder;
  authority_ = make_authority(name, validity_of(days, ::time(nullptr))).value();
  write("ca.pem", authority_.certificate);
}

TestCluster::~TestCluster() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::string TestCluster::write(const std::string& file, const std::string& text) const {
  const std::string path = folder_ + "/" + file;
  EXPECT_TRUE(replace_file(path, text));
  return path;
}

TlsFiles TestCluster::node(const std::string& name, const std::string& file) {
  return node(name, validity_of(days, ::time(nullptr)), file.empty() ? name : file);
}

TlsFiles TestCluster::node(const std::string& name, const Validity& validity,
                           const std::string& file) {
  const auto made = certify_node(authority_, name_, name, validity).value();
  return {folder_ + "/ca.pem", write(file + ".pem", made.certificate),
          write(file + ".key", made.key)};
}

}  // namespace havm
