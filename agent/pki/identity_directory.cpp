#include "agent/pki/identity_directory.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmrepl/base/files.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

bool exists(const std::string& path) {
  struct stat st {};
  return ::lstat(path.c_str(), &st) == 0;
}

std::string directory_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

std::string temporary_of(const NewFile& file) {
  return file.path + ".new";
}

Result<void> write_temporary(const NewFile& file) {
  const std::string path = temporary_of(file);
  // One that an interrupted run left may have another mode.
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    return errno_error("cannot remove " + path, errno);
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) return errno_error("cannot create " + path, errno);
  std::size_t done = 0;
  while (done < file.content.size()) {
    const ssize_t n = ::write(fd.get(), file.content.data() + done, file.content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("cannot write " + path, errno);
    done += static_cast<std::size_t>(n);
  }
  if (!file.is_secret && ::fchmod(fd.get(), 0644) != 0)
    return errno_error("cannot set the mode of " + path, errno);
  if (::fsync(fd.get()) != 0) return errno_error("cannot sync " + path, errno);
  return success();
}

Result<void> rename_all(const std::vector<NewFile>& files) {
  for (const NewFile& file : files)
    if (::rename(temporary_of(file).c_str(), file.path.c_str()) != 0)
      return errno_error("cannot rename " + temporary_of(file) + " to " + file.path, errno);
  for (const NewFile& file : files) {
    const std::string directory = directory_of(file.path);
    const UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid() || ::fsync(fd.get()) != 0)
      return errno_error("cannot sync directory " + directory, errno);
  }
  return success();
}

Result<void> write_all(const std::vector<NewFile>& files) {
  for (const NewFile& file : files) {
    BOOST_OUTCOME_TRY(write_temporary(file));
  }
  return rename_all(files);
}

std::string one_line(const X509_NAME* name) {
  const BioHandle bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), name, 0, XN_FLAG_RFC2253);
  BUF_MEM* text = nullptr;
  BIO_get_mem_ptr(bio.get(), &text);
  return {text->data, text->length};
}

std::string fingerprint_of(const X509& certificate) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (X509_digest(&certificate, EVP_sha256(), digest.data(), &size) != 1) return "";
  constexpr const char* hex = "0123456789abcdef";
  std::string text;
  for (unsigned i = 0; i < size; ++i) {
    if (i > 0) text += ':';
    text += hex[digest[i] >> 4];
    text += hex[digest[i] & 15];
  }
  return text;
}

}  // namespace

Result<void> install_files(const std::vector<NewFile>& files) {
  auto written = write_all(files);
  if (!written)
    for (const NewFile& file : files)
      ::unlink(temporary_of(file).c_str());
  return written;
}

IdentityFacts facts_of(const NodeIdentity& identity) {
  const X509& own = *identity.certificate;
  IdentityFacts facts;
  facts.node = node_of(own);
  facts.cluster = cluster_of(own);
  facts.issuer = one_line(X509_get_issuer_name(&own));
  facts.fingerprint = fingerprint_of(own);
  facts.begin = begin_of(own);
  facts.end = end_of(own);
  for (const X509Handle& authority : identity.authorities)
    facts.authority_end = std::max(facts.authority_end, end_of(*authority));
  return facts;
}

std::vector<std::string> IdentityDirectory::existing() const {
  std::vector<std::string> found;
  for (const std::string& path : {files().ca, authority_key(), files().certificate, files().key})
    if (exists(path)) found.push_back(path);
  return found;
}

bool IdentityDirectory::has_authority_key() const {
  return exists(authority_key());
}

Result<CertifiedKey> IdentityDirectory::read_authority() const {
  CertifiedKey authority;
  auto key = read_file(authority_key());
  if (!key && key.error().code == ENOENT)
    return Error("this node does not have the key of the cluster CA, " + authority_key() +
                     ": it is on the node where 'havm cluster-init' ran",
                 ENOENT);
  BOOST_OUTCOME_TRY(authority.key, std::move(key));
  BOOST_OUTCOME_TRY(authority.certificate, read_file(files().ca));
  return authority;
}

Result<IdentityFacts> IdentityDirectory::facts() const {
  BOOST_OUTCOME_TRY(const auto texts, read_identity(files()));
  BOOST_OUTCOME_TRY(const auto identity, parse_identity(texts, files()));
  return facts_of(identity);
}

Result<void> IdentityDirectory::check(const std::string& node, std::time_t now) const {
  BOOST_OUTCOME_TRY(const auto texts, read_identity(files()));
  BOOST_OUTCOME_TRY(const auto identity, parse_identity(texts, files()));
  return check_identity(identity, files(), node, now);
}

Result<void> IdentityDirectory::install(const IdentityPem& identity,
                                        const std::string& authority_key_pem) const {
  BOOST_OUTCOME_TRY(make_directories(directory_of(path_)));
  if (::mkdir(path_.c_str(), 0700) != 0 && errno != EEXIST)
    return errno_error("cannot create directory " + path_, errno);
  std::vector<NewFile> all;
  if (!authority_key_pem.empty()) all.push_back({authority_key(), authority_key_pem, true});
  all.push_back({files().key, identity.key, true});
  all.push_back({files().certificate, identity.certificate, false});
  all.push_back({files().ca, identity.ca, false});
  return install_files(all);
}

}  // namespace havm
