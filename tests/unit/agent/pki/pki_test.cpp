// Certificates of a cluster: made, judged, carried, kept in files.
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <sys/stat.h>

#include "agent/pki/authority.hpp"
#include "agent/pki/bundle.hpp"
#include "agent/pki/identity_directory.hpp"
#include "tests/unit/vmrepl/transport/test_cluster.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using testing::HasSubstr;

constexpr std::time_t day_s = 24 * 60 * 60;
constexpr std::time_t now = 1'900'000'000;  // 2030-03-17
const TlsFiles names{"CA-FILE", "CERT-FILE", "KEY-FILE"};

class PkiTest : public testing::Test {
 protected:
  IdentityPem identity_of(const std::string& node, const Validity& validity) {
    const auto made = certify_node(authority, "demo", node, validity).value();
    return {authority.certificate, made.certificate, made.key};
  }
  IdentityPem identity_of(const std::string& node) { return identity_of(node, {now, now + day_s}); }
  static std::string problem(const IdentityPem& texts, const std::string& node, std::time_t at) {
    const auto identity = parse_identity(texts, names);
    if (!identity) return identity.error().message;
    const auto checked = check_identity(identity.value(), names, node, at);
    return checked ? "" : checked.error().message;
  }

  CertifiedKey authority = make_authority("demo", validity_of(100, now)).value();
};

TEST_F(PkiTest, ACertificateSaysWhoseItIs) {
  const auto identity = parse_identity(identity_of("a"), names).value();
  const IdentityFacts facts = facts_of(identity);
  EXPECT_EQ(facts.node, "a");
  EXPECT_EQ(facts.cluster, "demo");
  EXPECT_EQ(facts.issuer, "CN=havm CA of cluster demo,O=demo");
  EXPECT_EQ(facts.begin, now);
  EXPECT_EQ(facts.end, now + day_s);
  EXPECT_EQ(facts.authority_end, now + 100 * day_s);
  EXPECT_EQ(facts.fingerprint.size(), 32U * 3 - 1);
  EXPECT_EQ(utc_text(facts.begin), "2030-03-17T17:46:40Z");
  EXPECT_EQ(problem(identity_of("a"), "a", now + 1), "");
}

TEST_F(PkiTest, EachCertificateAndKeyIsAnother) {
  const IdentityPem one = identity_of("a");
  const IdentityPem two = identity_of("a");
  EXPECT_NE(one.key, two.key);
  EXPECT_NE(facts_of(parse_identity(one, names).value()).fingerprint,
            facts_of(parse_identity(two, names).value()).fingerprint);
}

TEST_F(PkiTest, EachFaultIsNamed) {
  const IdentityPem good = identity_of("a");
  EXPECT_THAT(problem(good, "b", now),
              HasSubstr("CERT-FILE is that of node a, and this is node b"));
  EXPECT_THAT(problem(good, "a", now + 2 * day_s),
              HasSubstr("CERT-FILE expired at 2030-03-18T17:46:40Z"));
  EXPECT_THAT(problem(good, "a", now - 1), HasSubstr("CERT-FILE is valid only from 2030-03-17"));
  EXPECT_THAT(problem(identity_of("a", {now, now + 1000 * day_s}), "a", now + 101 * day_s),
              HasSubstr("the cluster CA CA-FILE expired"));
  IdentityPem bad = good;
  bad.key = identity_of("a").key;
  EXPECT_THAT(problem(bad, "a", now), HasSubstr("KEY-FILE does not belong"));
  bad = good;
  bad.ca = make_authority("demo", validity_of(100, now)).value().certificate;
  EXPECT_THAT(problem(bad, "a", now), HasSubstr("it was not issued by the cluster CA"));
  // The CA itself is no node, whatever the file's name.
  bad = {authority.certificate, authority.certificate, authority.key};
  EXPECT_THAT(problem(bad, "a", now), HasSubstr("CERT-FILE is not that of a node"));
  bad = good;
  bad.certificate += good.certificate;
  EXPECT_THAT(problem(bad, "a", now), HasSubstr("CERT-FILE holds 2 certificates"));
  for (std::string IdentityPem::*part :
       {&IdentityPem::ca, &IdentityPem::certificate, &IdentityPem::key}) {
    bad = good;
    bad.*part = "nothing";
    EXPECT_THAT(problem(bad, "a", now), HasSubstr("-FILE holds no readable"));
    bad.*part = (good.*part).substr(0, (good.*part).size() / 2);
    EXPECT_THAT(problem(bad, "a", now), HasSubstr("-FILE holds no readable"));
  }
}

TEST_F(PkiTest, AKeyWithAPassphraseIsRefusedAndNobodyIsAsked) {
  IdentityPem texts = identity_of("a");
  const auto identity = parse_identity(texts, names).value();
  const BioHandle bio(BIO_new(BIO_s_mem()));
  ASSERT_EQ(PEM_write_bio_PKCS8PrivateKey(bio.get(), identity.key.get(), EVP_aes_128_cbc(),
                                          "secret", 6, nullptr, nullptr),
            1);
  BUF_MEM* content = nullptr;
  BIO_get_mem_ptr(bio.get(), &content);
  texts.key = {content->data, content->length};
  EXPECT_THAT(problem(texts, "a", now), HasSubstr("private key without passphrase"));
}

TEST_F(PkiTest, ANodeCannotMakeNodes) {
  const IdentityPem a = identity_of("a");
  const auto forged = certify_node({a.certificate, a.key}, "demo", "b", {now, now + day_s}).value();
  const IdentityPem b{authority.certificate + a.certificate, forged.certificate, forged.key};
  EXPECT_THAT(problem(b, "b", now), HasSubstr("CERT-FILE is of no use with the CA in CA-FILE"));
}

TEST_F(PkiTest, NoCertificateOutlivesItsCa) {
  const auto identity = parse_identity(identity_of("a", {now, now + 1000 * day_s}), names).value();
  EXPECT_EQ(facts_of(identity).end, now + 100 * day_s);
}

TEST_F(PkiTest, ACaWithTheKeyOfAnotherMakesNothing) {
  const auto other = make_authority("demo", validity_of(100, now)).value();
  const auto made = certify_node({authority.certificate, other.key}, "demo", "a", {now, now + 1});
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message, HasSubstr("key of the CA does not belong"));
}

// ---- bundles ---------------------------------------------------------------------------------

TEST_F(PkiTest, ABundleCarriesAnIdentity) {
  const IdentityPem sent = identity_of("b");
  const std::string bundle = make_bundle(sent, "demo", "b");
  const auto got = parse_bundle(bundle, "FILE");
  ASSERT_TRUE(got);
  EXPECT_EQ(got.value().ca, sent.ca);
  EXPECT_EQ(got.value().certificate, sent.certificate);
  EXPECT_EQ(got.value().key, sent.key);
}

TEST_F(PkiTest, ABundleThatIsCutAnywhereIsRefused) {
  const std::string bundle = make_bundle(identity_of("b"), "demo", "b");
  for (std::size_t size = 0; size + 1 < bundle.size(); ++size) {
    const auto got = parse_bundle(bundle.substr(0, size), "FILE");
    ASSERT_FALSE(got && problem(got.value(), "b", now).empty()) << "cut at " << size;
    if (!got) {
      ASSERT_THAT(got.error().message, HasSubstr("FILE is no bundle"));
    }
  }
  EXPECT_FALSE(parse_bundle(bundle + identity_of("b").key, "FILE"));
}

// ---- files -----------------------------------------------------------------------------------

mode_t mode_of(const std::string& path) {
  struct stat st {};
  EXPECT_EQ(::stat(path.c_str(), &st), 0) << path;
  return st.st_mode & 07777;
}

class IdentityDirectoryTest : public PkiTest {
 protected:
  TestCluster folder;
  IdentityDirectory directory{folder.folder() + "/etc/tls"};
};

TEST_F(IdentityDirectoryTest, InstallsWithTheRightModes) {
  EXPECT_TRUE(directory.existing().empty());
  const ::mode_t before = ::umask(0);
  const auto installed = directory.install(identity_of("a"), authority.key);
  ::umask(before);
  ASSERT_TRUE(installed) << installed.error().message;
  EXPECT_EQ(mode_of(directory.path()), 0700U);
  EXPECT_EQ(mode_of(directory.files().key), 0600U);
  EXPECT_EQ(mode_of(directory.authority_key()), 0600U);
  EXPECT_EQ(mode_of(directory.files().certificate), 0644U);
  EXPECT_EQ(mode_of(directory.files().ca), 0644U);
  EXPECT_EQ(directory.existing().size(), 4U);
  EXPECT_TRUE(directory.check("a", now));
  EXPECT_FALSE(directory.check("b", now));
  EXPECT_EQ(directory.facts().value().node, "a");
  EXPECT_EQ(directory.read_authority().value().key, authority.key);
}

TEST_F(IdentityDirectoryTest, TheKeyOfTheCaStaysWhenOnlyTheNodeIsNew) {
  ASSERT_TRUE(directory.install(identity_of("a"), authority.key));
  const IdentityPem renewed = identity_of("a");
  ASSERT_TRUE(directory.install(renewed, ""));
  EXPECT_EQ(directory.read_authority().value().key, authority.key);
  EXPECT_EQ(read_file(directory.files().certificate).value(), renewed.certificate);
}

TEST_F(IdentityDirectoryTest, WhatCannotBeWrittenChangesNothing) {
  const IdentityPem first = identity_of("a");
  ASSERT_TRUE(directory.install(first, authority.key));
  // The last file written has no room: a directory stands in its way.
  ASSERT_TRUE(std::filesystem::create_directory(directory.files().ca + ".new"));
  const auto again = directory.install(identity_of("a"), authority.key);
  ASSERT_FALSE(again);
  EXPECT_THAT(again.error().message, HasSubstr("ca.pem.new"));
  EXPECT_EQ(read_file(directory.files().certificate).value(), first.certificate);
  EXPECT_EQ(read_file(directory.files().key).value(), first.key);
  std::filesystem::remove(directory.files().ca + ".new");
  std::size_t entries = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory.path()))
    entries += entry.exists() ? 1 : 0;
  EXPECT_EQ(entries, 4U) << "something half done was left";
  EXPECT_TRUE(directory.check("a", now));
}

TEST_F(IdentityDirectoryTest, ATemporaryOfAnInterruptedRunDoesNotLendItsMode) {
  std::filesystem::create_directories(directory.path());
  ASSERT_TRUE(replace_file(directory.files().key + ".new", "old"));
  ASSERT_EQ(::chmod((directory.files().key + ".new").c_str(), 0666), 0);
  ASSERT_TRUE(directory.install(identity_of("a"), authority.key));
  EXPECT_EQ(mode_of(directory.files().key), 0600U);
}

TEST_F(IdentityDirectoryTest, ANodeWithoutTheCaKeySaysWhereItIs) {
  ASSERT_TRUE(directory.install(identity_of("a"), ""));
  EXPECT_FALSE(directory.has_authority_key());
  EXPECT_THAT(directory.read_authority().error().message, HasSubstr("'havm cluster-init' ran"));
}

}  // namespace
}  // namespace havm
