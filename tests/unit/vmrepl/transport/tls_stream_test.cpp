// What a TlsStream carries, how it ends, and when it changes its keys. Real sockets.
#include "vmrepl/transport/tls_stream.hpp"

#include <cstring>
#include <map>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include "tests/unit/vmrepl/transport/stream_pair.hpp"
#include "tests/unit/vmrepl/transport/test_cluster.hpp"
#include "vmrepl/transport/tls_context.hpp"

namespace havm {
namespace {

using testing::HasSubstr;
using Kind = StreamStep::Kind;
using Bytes = std::vector<std::byte>;

Bytes random_bytes(std::size_t size, unsigned seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; i += sizeof(std::uint64_t)) {
    const std::uint64_t word = random();
    std::memcpy(bytes.data() + i, &word, std::min(sizeof word, size - i));
  }
  return bytes;
}

iovec part_of(const Bytes& bytes, std::size_t begin, std::size_t size) {
  return {const_cast<std::byte*>(bytes.data() + begin), size};  // only read
}

// One direction: what is to be sent and what arrived.
struct Flow {
  Bytes data;
  std::size_t sent = 0;
  Bytes got;
  [[nodiscard]] bool done() const { return got.size() == data.size(); }
};

class TlsStreamTest : public testing::Test {
 protected:
  void connect(std::uint64_t records_per_key = TlsStream::default_records_per_key) {
    client_context = make_tls_context(cluster.node("a"), "a").value();
    server_context = make_tls_context(cluster.node("b"), "b").value();
    for (SSL_CTX* context : {client_context.get(), server_context.get()}) {
      SSL_CTX_set_msg_callback(context, count_message);
      SSL_CTX_set_msg_callback_arg(context, &messages);
    }
    SocketPair sockets = connect_sockets(io);
    sockets.client.non_blocking(true);
    sockets.server.non_blocking(true);
    a = TlsStream::create(std::move(sockets.client), *client_context, TlsRole::client, "b",
                          records_per_key)
            .value();
    b = TlsStream::create(std::move(sockets.server), *server_context, TlsRole::server, "a",
                          records_per_key)
            .value();
    StreamStep of_a = StreamStep::blocked();
    StreamStep of_b = StreamStep::blocked();
    for (int i = 0; i < 100 && (of_a.kind == Kind::blocked || of_b.kind == Kind::blocked); ++i) {
      if (of_a.kind == Kind::blocked) of_a = a->handshake();
      if (of_b.kind == Kind::blocked) of_b = b->handshake();
    }
    ASSERT_EQ(of_a.kind, Kind::moved) << of_a.why;
    ASSERT_EQ(of_b.kind, Kind::moved) << of_b.why;
  }

  static void count_message(int sends, int, int type, const void* bytes, std::size_t size, SSL*,
                            void* counts) {
    if (sends == 1 && type == SSL3_RT_HANDSHAKE && size > 0)
      ++(*static_cast<std::map<int, int>*>(counts))[*static_cast<const unsigned char*>(bytes)];
  }

  // One step of a flow; false when something failed.
  static bool move(Flow& flow, TlsStream& from, TlsStream& to, std::size_t piece) {
    const std::size_t left = std::min(piece, flow.data.size() - flow.sent);
    // In two parts, to be gathered.
    const iovec parts[2] = {part_of(flow.data, flow.sent, left / 3),
                            part_of(flow.data, flow.sent + left / 3, left - left / 3)};
    const StreamStep written = from.write(parts);
    if (written.kind == Kind::moved) flow.sent += written.bytes;
    static Bytes room(100'000);
    const iovec into[2] = {{room.data(), 10'000}, {room.data() + 10'000, 90'000}};
    const StreamStep read = to.read(into);
    if (read.kind == Kind::moved)
      flow.got.insert(flow.got.end(), room.begin(),
                      room.begin() + static_cast<std::ptrdiff_t>(read.bytes));
    const bool good = (written.kind == Kind::moved || written.kind == Kind::blocked) &&
                      (read.kind == Kind::moved || read.kind == Kind::blocked);
    EXPECT_TRUE(good) << written.why << read.why;
    return good;
  }

  // Both directions at once, nobody waits for the other.
  void exchange(std::size_t size, std::size_t piece) {
    Flow there{random_bytes(size, 1), 0, {}};
    Flow back{random_bytes(size, 2), 0, {}};
    for (int i = 0; i < 200'000 && !(there.done() && back.done()); ++i)
      if (!move(there, *a, *b, piece) || !move(back, *b, *a, piece)) return;
    EXPECT_TRUE(there.got == there.data);
    EXPECT_TRUE(back.got == back.data);
  }

  static StreamStep read_until_told(TlsStream& stream) {
    Bytes room(4096);
    const iovec into{room.data(), room.size()};
    StreamStep step = stream.read({&into, 1});
    // TCP may keep small pieces back until an earlier one is acked.
    for (int i = 0; i < 1000 && step.kind == Kind::blocked; ++i) {
      pollfd socket{stream.socket().native_handle(), POLLIN, 0};
      (void)::poll(&socket, 1, 10);
      step = stream.read({&into, 1});
    }
    return step;
  }

  boost::asio::io_context io;
  TestCluster cluster;
  SslContextHandle client_context;
  SslContextHandle server_context;
  std::map<int, int> messages;  // handshake messages sent, by type
  std::unique_ptr<TlsStream> a;
  std::unique_ptr<TlsStream> b;
};

TEST_F(TlsStreamTest, BytesOfEveryPieceArriveBothWaysAtOnce) {
  connect();
  exchange(100, 1);
  exchange(50'000, 777);
  exchange(1U << 20, TlsStream::record_bytes);
  exchange(1U << 20, TlsStream::record_bytes + 1);
  exchange(8U << 20, 3U << 20);
  EXPECT_EQ(messages[SSL3_MT_KEY_UPDATE], 0);
  EXPECT_EQ(messages[SSL3_MT_NEWSESSION_TICKET], 0) << "a ticket would let a session be resumed";
}

TEST_F(TlsStreamTest, KeysAreChangedInTime) {
  connect(4);
  exchange(4U << 20, 8U << 20);
  // 256 full records each way, a new key after every fourth at the latest.
  EXPECT_GE(messages[SSL3_MT_KEY_UPDATE], 2 * 256 / (4 + 16));
  exchange(1000, 10);
}

TEST_F(TlsStreamTest, AnOrderlyEndIsAnEnd) {
  connect();
  const Bytes last = random_bytes(1000, 3);
  const iovec part = part_of(last, 0, last.size());
  ASSERT_EQ(a->write({&part, 1}).bytes, last.size());
  a->end_sending();
  EXPECT_EQ(read_until_told(*b).bytes, last.size());
  const StreamStep end = read_until_told(*b);
  EXPECT_EQ(end.kind, Kind::ended);
  EXPECT_EQ(end.why, "the other side closed the connection");
  EXPECT_TRUE(b->has_unread()) << "an end must not be waited for";
  // The other direction is still open.
  ASSERT_EQ(b->write({&part, 1}).bytes, last.size());
  EXPECT_EQ(read_until_told(*a).bytes, last.size());
}

TEST_F(TlsStreamTest, ACutIsNoOrderlyEnd) {
  connect();
  const Bytes last = random_bytes(1000, 3);
  const iovec part = part_of(last, 0, last.size());
  ASSERT_EQ(a->write({&part, 1}).bytes, last.size());
  ASSERT_EQ(::shutdown(a->socket().native_handle(), SHUT_WR), 0);  // TCP's end, not that of TLS
  EXPECT_EQ(read_until_told(*b).bytes, last.size());
  const StreamStep end = read_until_told(*b);
  EXPECT_EQ(end.kind, Kind::failed);
  EXPECT_THAT(end.why, HasSubstr("cut off"));
}

TEST_F(TlsStreamTest, ForeignBytesInTheStreamEndIt) {
  connect();
  const std::string record = std::string("\x17\x03\x03\x00\x20", 5) + std::string(32, 'x');
  ASSERT_EQ(::send(a->socket().native_handle(), record.data(), record.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(record.size()));
  const StreamStep end = read_until_told(*b);
  EXPECT_EQ(end.kind, Kind::failed);
  EXPECT_FALSE(end.why.empty());
  EXPECT_EQ(read_until_told(*b).kind, Kind::failed) << "it does not come back to life";
}

TEST_F(TlsStreamTest, WhatTheSocketDoesNotTakeIsKeptAndGoesOnLater) {
  connect();
  const Bytes data = random_bytes(48U << 20, 4);
  std::size_t sent = 0;
  for (;;) {  // nobody reads: the socket's buffers fill up
    const iovec part = part_of(data, sent, data.size() - sent);
    const StreamStep step = a->write({&part, 1});
    if (step.kind == Kind::blocked) break;
    ASSERT_EQ(step.kind, Kind::moved) << step.why;
    sent += step.bytes;
    ASSERT_LT(sent, data.size());
  }
  EXPECT_TRUE(a->has_unsent());
  Bytes got;
  Bytes room(1U << 20);
  const iovec into{room.data(), room.size()};
  for (int i = 0; i < 100'000 && got.size() < sent; ++i) {
    ASSERT_NE(a->write({}).kind, Kind::failed);
    const StreamStep step = b->read({&into, 1});
    ASSERT_NE(step.kind, Kind::failed) << step.why;
    got.insert(got.end(), room.begin(), room.begin() + static_cast<std::ptrdiff_t>(step.bytes));
  }
  EXPECT_FALSE(a->has_unsent());
  EXPECT_TRUE(std::equal(got.begin(), got.end(), data.begin()));
  EXPECT_EQ(got.size(), sent);
}

}  // namespace
}  // namespace havm
