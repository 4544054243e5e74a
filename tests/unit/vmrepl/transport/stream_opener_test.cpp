// Who may open a stream to whom, and what both sides say when it is refused. Real sockets.
#include "vmrepl/transport/stream_opener.hpp"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "tests/unit/vmrepl/transport/stream_pair.hpp"
#include "tests/unit/vmrepl/transport/test_cluster.hpp"
#include "vmrepl/base/files.hpp"
#include "vmrepl/transport/node_identity.hpp"
#include "vmrepl/transport/tls_context.hpp"

namespace havm {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr milliseconds deadline{5000};
constexpr std::time_t hour_s = 3600;

// A client as anybody can build one, from a context of its own, in front of a server of ours.
struct ForeignClient {
  ForeignClient(boost::asio::io_context& loop, const StreamOpener& server, SSL_CTX& context)
      : io(loop) {
    SocketPair sockets = connect_sockets(io);
    sockets.client.non_blocking(true);
    stream = TlsStream::create(std::move(sockets.client), context, TlsRole::client, "b").value();
    start_opening(io, server, std::move(sockets.server), TlsRole::server, opened);
  }
  // Why the server refuses it.
  std::string refusal() {
    EXPECT_TRUE(run_loop_until(io, [this] {
      if (step.kind == StreamStep::Kind::blocked) step = stream->handshake();
      return opened.has_value();
    }));
    EXPECT_FALSE(opened->has_value());
    return opened->has_value() ? "" : opened->error().message;
  }
  // What the client is told of that.
  std::string told() {
    if (step.kind == StreamStep::Kind::blocked) step = stream->handshake();
    if (step.kind != StreamStep::Kind::moved) return step.why;
    std::array<std::byte, 8> bytes{};
    const iovec part{bytes.data(), bytes.size()};
    return stream->read({&part, 1}).why;
  }

  boost::asio::io_context& io;
  std::unique_ptr<TlsStream> stream;
  StreamStep step = StreamStep::blocked();
  std::optional<StreamOpener::Opened> opened;
};

class StreamOpenerTest : public testing::Test {
 protected:
  StreamOpener as_a(const TlsFiles& files) { return {files, "a", "b", deadline}; }
  StreamOpener as_b(const TlsFiles& files) { return {files, "b", "a", deadline}; }

  // a is the client. What each side says; "" is a usable stream.
  void expect(const StreamOpener& client, const StreamOpener& server, const std::string& of_client,
              const std::string& of_server) {
    StreamPair pair(io, client, server);
    ASSERT_TRUE(pair.run());
    EXPECT_THAT(StreamPair::problem(io, pair.client()), HasSubstr(of_client));
    EXPECT_THAT(StreamPair::problem(io, pair.server()), HasSubstr(of_server));
    EXPECT_EQ(StreamPair::problem(io, pair.client()).empty(), of_client.empty());
    EXPECT_EQ(StreamPair::problem(io, pair.server()).empty(), of_server.empty());
  }

  boost::asio::io_context io;
  TestCluster cluster;
  TlsFiles a = cluster.node("a");
  TlsFiles b = cluster.node("b");
};

TEST_F(StreamOpenerTest, TwoNodesOfOneClusterMeet) {
  expect(as_a(a), as_b(b), "", "");
  expect(as_a(a), as_b(b), "", "");
}

TEST_F(StreamOpenerTest, PlainTcpNeedsNothing) {
  expect({std::nullopt, "a", "b", deadline}, {std::nullopt, "b", "a", deadline}, "", "");
}

TEST_F(StreamOpenerTest, AnotherClusterIsRefused) {
  TestCluster other("demo");  // the same name, another CA
  expect(as_a(other.node("a")), as_b(b),
         "the certificate of node b is refused: it was not issued by the cluster CA", "cluster");
  // The client alone is of another cluster, but believes this one: the server refuses.
  TlsFiles stranger = other.node("a");
  stranger.ca =
      cluster.write("both.pem", other.authority().certificate + cluster.authority().certificate);
  expect(as_a(stranger), as_b(b), "the other side refuses this node: it does not know the CA",
         "the certificate of node a is refused: it was not issued by the cluster CA");
}

TEST_F(StreamOpenerTest, AnotherNodeOfTheClusterIsRefused) {
  // Its own certificate is right, but it is not the partner.
  const TlsFiles c = cluster.node("c");
  expect({c, "c", "b", deadline}, as_b(b), "does it expect another node?",
         "the certificate of node c is refused: that of node a is expected");
  expect(as_a(a), {c, "c", "a", deadline},
         "the certificate of node c is refused: that of node b is expected",
         "does it expect another node?");
}

TEST_F(StreamOpenerTest, ANodeThatSignsForAnotherIsRefused) {
  // c has a certificate of the cluster; with its key it makes one for "a".
  const TlsFiles c = cluster.node("c");
  const CertifiedKey signer{read_file(c.certificate).value(), read_file(c.key).value()};
  const auto forged = certify_node(signer, "demo", "a", validity_of(30, ::time(nullptr))).value();
  SslContextHandle context = make_tls_context(a, "a").value();
  const auto identity =
      parse_identity({cluster.authority().certificate, forged.certificate, forged.key}, a).value();
  ASSERT_EQ(SSL_CTX_use_certificate(context.get(), identity.certificate.get()), 1);
  ASSERT_EQ(SSL_CTX_use_PrivateKey(context.get(), identity.key.get()), 1);
  ASSERT_EQ(
      SSL_CTX_add1_chain_cert(
          context.get(), parse_identity({signer.certificate, signer.certificate, signer.key}, c)
                             .value()
                             .certificate.get()),
      1);
  const StreamOpener server = as_b(b);
  ForeignClient client(io, server, *context);
  EXPECT_THAT(client.refusal(), HasSubstr("the certificate of node a is refused"));
}

TEST_F(StreamOpenerTest, AnOwnCertificateThatIsNoGoodIsToldBeforeAnythingIsSent) {
  const std::time_t now = ::time(nullptr);
  const TlsFiles expired = cluster.node("a", {now - 2 * hour_s, now - hour_s}, "expired");
  expect(as_a(expired), as_b(b), "expired.pem expired at", "closed the connection");
  const TlsFiles early = cluster.node("a", {now + hour_s, now + 2 * hour_s}, "early");
  expect(as_a(early), as_b(b), "early.pem is valid only from", "closed the connection");
  expect(as_a(b), as_b(b), "is that of node b, and this is node a", "closed the connection");
  TlsFiles mixed = a;
  mixed.key = b.key;
  expect(as_a(mixed), as_b(b), "does not belong to the certificate", "closed the connection");
  TlsFiles missing = a;
  missing.key = cluster.folder() + "/nowhere.key";
  expect(as_a(missing), as_b(b), "nowhere.key", "closed the connection");
}

// One side's clock is right; the other believes its expired certificate still good. Only the peer's
// check stands here: the client's own is left out.
TEST_F(StreamOpenerTest, AnExpiredCertificateOfThePartnerIsRefused) {
  const std::time_t now = ::time(nullptr);
  const TlsFiles expired = cluster.node("a", {now - 2 * hour_s, now - hour_s}, "expired");
  SslContextHandle context = make_tls_context(a, "a").value();
  ASSERT_EQ(
      SSL_CTX_use_certificate_file(context.get(), expired.certificate.c_str(), SSL_FILETYPE_PEM),
      1);
  ASSERT_EQ(SSL_CTX_use_PrivateKey_file(context.get(), expired.key.c_str(), SSL_FILETYPE_PEM), 1);
  const StreamOpener server = as_b(b);
  ForeignClient client(io, server, *context);
  EXPECT_THAT(client.refusal(), HasSubstr("the certificate of node a is refused: it has expired"));
  EXPECT_THAT(client.told(), HasSubstr("finds this node's certificate expired"));
}

TEST_F(StreamOpenerTest, AClientWithoutCertificateIsRefused) {
  SslContextHandle context(SSL_CTX_new(TLS_client_method()));
  ASSERT_EQ(SSL_CTX_load_verify_file(context.get(), a.ca.c_str()), 1);
  const StreamOpener server = as_b(b);
  ForeignClient client(io, server, *context);
  EXPECT_THAT(client.refusal(), HasSubstr("the other side shows no certificate"));
  EXPECT_THAT(client.told(), HasSubstr("it got no certificate"));
}

TEST_F(StreamOpenerTest, AClientOfTls12IsRefused) {
  SslContextHandle context(SSL_CTX_new(TLS_client_method()));
  ASSERT_EQ(SSL_CTX_set_max_proto_version(context.get(), TLS1_2_VERSION), 1);
  ASSERT_EQ(SSL_CTX_load_verify_file(context.get(), a.ca.c_str()), 1);
  ASSERT_EQ(SSL_CTX_use_certificate_file(context.get(), a.certificate.c_str(), SSL_FILETYPE_PEM),
            1);
  ASSERT_EQ(SSL_CTX_use_PrivateKey_file(context.get(), a.key.c_str(), SSL_FILETYPE_PEM), 1);
  const StreamOpener server = as_b(b);
  ForeignClient client(io, server, *context);
  EXPECT_THAT(client.refusal(), HasSubstr("does not speak TLS 1.3"));
  EXPECT_THAT(client.told(), HasSubstr("does not speak this version of TLS"));
}

TEST_F(StreamOpenerTest, PlainBytesForATlsServerAreRefused) {
  SocketPair sockets = connect_sockets(io);
  const StreamOpener server = as_b(b);
  std::optional<StreamOpener::Opened> opened;
  start_opening(io, server, std::move(sockets.server), TlsRole::server, opened);
  ASSERT_EQ(::send(sockets.client.native_handle(), "HVRP, or anything else", 22, MSG_NOSIGNAL), 22);
  ASSERT_TRUE(run_loop_until(io, [&] {
    // It lingers until this end closes or its time is up.
    std::array<char, 64> reply{};
    const ssize_t n =
        ::recv(sockets.client.native_handle(), reply.data(), reply.size(), MSG_DONTWAIT);
    if (n == 0) ::shutdown(sockets.client.native_handle(), SHUT_WR);
    return opened.has_value();
  }));
  ASSERT_FALSE(opened->has_value());
  EXPECT_THAT(opened->error().message, HasSubstr("is the other side set to plain TCP?"));
}

TEST_F(StreamOpenerTest, AServerThatIsPlainIsRefused) {
  SocketPair sockets = connect_sockets(io);
  const StreamOpener client = as_a(a);
  std::optional<StreamOpener::Opened> opened;
  start_opening(io, client, std::move(sockets.client), TlsRole::client, opened);
  // A plain engine closes what is no frame.
  ASSERT_TRUE(run_loop_until(io, [&] {
    std::array<char, 2048> hello{};
    if (::recv(sockets.server.native_handle(), hello.data(), hello.size(), MSG_DONTWAIT) > 0)
      ::shutdown(sockets.server.native_handle(), SHUT_WR);
    return opened.has_value();
  }));
  ASSERT_FALSE(opened->has_value());
  EXPECT_THAT(opened->error().message, HasSubstr("is it set to plain TCP?"));
}

// The loop goes on while a handshake stalls, and the deadline ends it: for one that says nothing,
// and for one that says a little now and then.
TEST_F(StreamOpenerTest, AStalledHandshakeEndsAtTheDeadline) {
  const milliseconds short_deadline{500};
  for (const bool drips : {false, true}) {
    for (const TlsRole role : {TlsRole::client, TlsRole::server}) {
      const bool is_client = role == TlsRole::client;
      SocketPair sockets = connect_sockets(io);
      const StreamOpener opener(is_client ? a : b, is_client ? "a" : "b", is_client ? "b" : "a",
                                short_deadline);
      ByteStream::Socket& peer = is_client ? sockets.server : sockets.client;
      std::optional<StreamOpener::Opened> opened;
      const auto began = std::chrono::steady_clock::now();
      start_opening(io, opener, std::move(is_client ? sockets.client : sockets.server), role,
                    opened);
      const std::string record("\x16\x03\x03\x40\x00", 5);  // announces 16 KiB
      std::size_t sent = 0;
      int turns = 0;
      ASSERT_TRUE(run_loop_until(io, [&] {
        ++turns;
        const char byte = sent < record.size() ? record[sent] : 'x';
        if (drips && ::send(peer.native_handle(), &byte, 1, MSG_NOSIGNAL) == 1) ++sent;
        return opened.has_value();
      }));
      const auto took = std::chrono::steady_clock::now() - began;
      ASSERT_FALSE(opened->has_value());
      EXPECT_THAT(opened->error().message, HasSubstr("did not finish the handshake within 500 ms"));
      EXPECT_GE(took, short_deadline);
      EXPECT_LT(took, short_deadline + StreamOpener::refusal_linger + milliseconds(1000));
      EXPECT_GT(turns, 3) << "the loop was blocked";
    }
  }
}

// Certificates are read for each connection: new ones count without a restart.
TEST_F(StreamOpenerTest, NewFilesCountFromTheNextConnection) {
  const StreamOpener client = as_a(a);
  const StreamOpener server = as_b(b);
  const std::string good = read_file(a.certificate).value();
  std::filesystem::remove(a.certificate);
  expect(client, server, "a.pem", "closed the connection");
  cluster.write("a.pem", good);
  expect(client, server, "", "");
}

}  // namespace
}  // namespace havm
