#include "agent/pki/bundle.hpp"

#include <cerrno>
#include <vector>

#include <openssl/err.h>
#include <openssl/pem.h>

namespace havm {
namespace {

struct Block {
  std::string kind;  // "CERTIFICATE", "PRIVATE KEY"
  std::string text;  // with its BEGIN and END
};

struct FreeBytes {
  void operator()(char* bytes) const { OPENSSL_free(bytes); }
  void operator()(unsigned char* bytes) const { OPENSSL_free(bytes); }
};

std::vector<Block> blocks_of(const std::string& text) {
  std::vector<Block> blocks;
  const BioHandle bio = read_bio(text);
  for (;;) {
    char* kind = nullptr;
    char* header = nullptr;
    unsigned char* data = nullptr;
    long size = 0;
    if (PEM_read_bio(bio.get(), &kind, &header, &data, &size) != 1) break;
    const std::unique_ptr<char, FreeBytes> own_kind(kind);
    const std::unique_ptr<char, FreeBytes> own_header(header);
    const std::unique_ptr<unsigned char, FreeBytes> own_data(data);
    const BioHandle again(BIO_new(BIO_s_secmem()));
    PEM_write_bio(again.get(), kind, header, data, size);
    BUF_MEM* written = nullptr;
    BIO_get_mem_ptr(again.get(), &written);
    blocks.push_back({kind, {written->data, written->length}});
  }
  ERR_clear_error();
  return blocks;
}

}  // namespace

std::string make_bundle(const IdentityPem& identity, const std::string& cluster,
                        const std::string& node) {
  return "# Secret. For node " + node + " of cluster " + cluster +
         ": havm node-join --from THIS-FILE; then delete it.\n" + identity.ca +
         identity.certificate + identity.key;
}

Result<IdentityPem> parse_bundle(const std::string& text, const std::string& name) {
  const auto blocks = blocks_of(text);
  const bool good = blocks.size() == 3 && blocks[0].kind == "CERTIFICATE" &&
                    blocks[1].kind == "CERTIFICATE" && blocks[2].kind == "PRIVATE KEY";
  if (!good)
    return Error(name + " is no bundle of 'havm node-join NODE', or was cut short on its way",
                 EINVAL);
  return IdentityPem{blocks[0].text, blocks[1].text, blocks[2].text};
}

}  // namespace havm
