// Two FrameConnections over loopback TCP, plain and with TLS, and a raw socket that sends what no
// engine would.
#include "vmrepl/session/frame_connection.hpp"

#include <cstring>
#include <random>

#include <boost/asio/io_context.hpp>
#include <boost/asio/write.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "tests/unit/vmrepl/transport/stream_pair.hpp"
#include "tests/unit/vmrepl/transport/test_cluster.hpp"
#include "vmrepl/transport/tcp_stream.hpp"

namespace havm {
namespace {

using Tcp = boost::asio::ip::tcp;
using testing::HasSubstr;

struct Received {
  FrameHeader header;
  std::vector<std::byte> payload;
};

// One side and what happened to it.
struct Side {
  explicit Side(std::unique_ptr<ByteStream> stream)
      : connection(std::make_shared<FrameConnection>(std::move(stream), std::chrono::seconds(2))) {}

  void start() {
    FrameConnection::Handlers h;
    h.admit = [this](const FrameHeader& header) { return header.type != refused; };
    h.on_frame = [this](const FrameHeader& header, Buffer payload) {
      const auto bytes = std::as_const(payload).span();
      frames.push_back({header, {bytes.begin(), bytes.end()}});
      if (close_on_frame) connection->close();
      if (pause_on_frame) connection->pause_receiving(true);
    };
    h.on_closed = [this](const std::string& reason) { ends.push_back(reason); };
    connection->start(std::move(h));
  }

  std::shared_ptr<FrameConnection> connection;
  std::vector<Received> frames;
  std::vector<std::string> ends;
  FrameType refused = FrameType::hello;
  bool close_on_frame = false;
  bool pause_on_frame = false;
};

enum class Over { plain, tls };

class FrameConnectionTest : public testing::TestWithParam<Over> {
 protected:
  FrameConnectionTest() {
    std::optional<TlsFiles> of_a;
    std::optional<TlsFiles> of_b;
    if (GetParam() == Over::tls) {
      of_a = cluster.node("a");
      of_b = cluster.node("b");
    }
    const StreamOpener client(of_a, "a", "b", std::chrono::seconds(5));
    const StreamOpener server(of_b, "b", "a", std::chrono::seconds(5));
    StreamPair pair(io, client, server);
    EXPECT_TRUE(pair.run());
    fd_of_a = pair.client().value()->socket().native_handle();
    a = std::make_unique<Side>(std::move(pair.client()).value());
    b = std::make_unique<Side>(std::move(pair.server()).value());
    b->start();
  }
  ~FrameConnectionTest() override {
    a->connection->close();
    b->connection->close();
    run();
  }
  void run(std::chrono::milliseconds time = std::chrono::milliseconds(100)) {
    io.restart();
    io.run_for(time);
  }
  void run_until(const std::function<bool()>& condition) {
    for (int i = 0; i < 1000 && !condition(); ++i) {
      io.restart();
      io.run_for(std::chrono::milliseconds(5));
    }
    EXPECT_TRUE(condition());
  }
  // Nothing but TCP's own end is sent.
  void cut_a() { ASSERT_EQ(::shutdown(fd_of_a, SHUT_WR), 0); }
  static FrameHeader frame(FrameType type, std::uint64_t sequence) {
    FrameHeader h;
    h.type = type;
    h.sequence = Sequence(sequence);
    h.session = SessionId(5);
    return h;
  }
  static std::vector<std::byte> random_bytes(std::size_t size, unsigned seed) {
    std::mt19937_64 random(seed);
    std::vector<std::byte> bytes(size);
    for (std::size_t i = 0; i < size; i += sizeof(std::uint64_t)) {
      const std::uint64_t word = random();
      std::memcpy(bytes.data() + i, &word, std::min(sizeof word, size - i));
    }
    return bytes;
  }

  TestCluster cluster;
  boost::asio::io_context io;
  int fd_of_a = -1;
  std::unique_ptr<Side> a;
  std::unique_ptr<Side> b;
};

INSTANTIATE_TEST_SUITE_P(Streams, FrameConnectionTest, testing::Values(Over::plain, Over::tls),
                         [](const auto& each) {
                           return each.param == Over::plain ? "Plain" : "Tls";
                         });

TEST_P(FrameConnectionTest, FramesOfEverySizeArriveInOrderAndWhole) {
  a->start();
  std::vector<std::vector<std::byte>> sent;
  for (std::uint32_t size : {1U, 512U, 4096U, 65536U, 131072U, 1U << 20, 8U << 20, 3U, 200000U,
                             static_cast<std::uint32_t>(payload_bytes_max), 511U})
    sent.push_back(random_bytes(size, size));
  for (std::size_t i = 0; i < sent.size(); ++i) {
    FrameHeader h = frame(FrameType::write, i + 1);
    h.length = static_cast<std::uint32_t>(sent[i].size());
    a->connection->send(h, sent[i]);
    a->connection->send(frame(FrameType::flush, 100 + i), {});
  }
  run_until([&] { return b->frames.size() == 2 * sent.size(); });
  for (std::size_t i = 0; i < sent.size(); ++i) {
    EXPECT_EQ(b->frames[2 * i].header.sequence, Sequence(i + 1));
    EXPECT_EQ(b->frames[2 * i].payload, sent[i]);
    EXPECT_EQ(b->frames[2 * i + 1].header.sequence, Sequence(100 + i));
  }
  EXPECT_TRUE(a->connection->is_sent(2 * sent.size() - 1));
}

TEST_P(FrameConnectionTest, LargeFramesBothWaysAtOnceDoNotWaitForEachOther) {
  a->start();
  const auto there = random_bytes(16U << 20, 1);
  const auto back = random_bytes(16U << 20, 2);
  FrameHeader h = frame(FrameType::write, 1);
  h.length = 16U << 20;
  for (int i = 0; i < 3; ++i) {
    a->connection->send(h, there);
    b->connection->send(h, back);
  }
  run_until([&] { return a->frames.size() == 3 && b->frames.size() == 3; });
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(a->frames[i].payload == back);
    EXPECT_TRUE(b->frames[i].payload == there);
  }
}

// What was received, but not yet handed on when receiving paused, needs nothing new from the wire.
TEST_P(FrameConnectionTest, WhatCameBeforeAPauseIsHandedOnAfterIt) {
  a->start();
  b->pause_on_frame = true;
  const auto payload = random_bytes(100'000, 3);
  FrameHeader h = frame(FrameType::write, 1);
  h.length = 100'000;
  for (int i = 0; i < 12; ++i)
    a->connection->send(h, payload);
  for (std::size_t i = 0; i < 12; ++i) {
    run_until([&] { return b->frames.size() > i; });
    b->connection->pause_receiving(false);
  }
  run_until([&] { return b->frames.size() == 12; });
  for (const Received& each : b->frames)
    EXPECT_TRUE(each.payload == payload);
}

TEST_P(FrameConnectionTest, ACutConnectionIsToldAsAnEnd) {
  a->start();
  FrameHeader h = frame(FrameType::write, 1);
  const auto payload = random_bytes(100'000, 3);
  h.length = 100'000;
  a->connection->send(h, payload);
  run_until([&] { return b->frames.size() == 1; });
  // As a kernel does whose process was killed.
  cut_a();
  run_until([&] { return !b->ends.empty(); });
  EXPECT_EQ(b->ends.size(), 1u);
  EXPECT_THAT(b->ends[0], HasSubstr(GetParam() == Over::tls ? "cut off" : "closed"));
}

TEST_P(FrameConnectionTest, ALeaseOvertakesWhatWaits) {
  a->start();
  b->connection->pause_receiving(true);
  const auto big = random_bytes(16U << 20, 1);
  FrameHeader h = frame(FrameType::write, 1);
  h.length = static_cast<std::uint32_t>(big.size());
  for (int i = 0; i < 3; ++i)
    a->connection->send(h, big);
  run();
  a->connection->send_urgent(frame(FrameType::lease_request, 9));
  run();
  b->connection->pause_receiving(false);
  run_until([&] { return b->frames.size() == 4; });
  EXPECT_EQ(b->frames[1].header.type, FrameType::lease_request);
  EXPECT_EQ(b->frames[3].payload, big);
}

TEST_P(FrameConnectionTest, ADetachedPayloadMayBeFreed) {
  a->start();
  b->connection->pause_receiving(true);
  auto filler = random_bytes(16U << 20, 1);
  FrameHeader h = frame(FrameType::write, 1);
  h.length = static_cast<std::uint32_t>(filler.size());
  a->connection->send(h, filler);
  auto payload = std::make_unique<std::vector<std::byte>>(random_bytes(4096, 2));
  const auto copy = *payload;
  h.length = 4096;
  const auto number = a->connection->send(h, *payload);
  run();
  ASSERT_FALSE(a->connection->is_sent(number));
  a->connection->detach(number);
  payload.reset();
  b->connection->pause_receiving(false);
  run_until([&] { return b->frames.size() == 2; });
  EXPECT_EQ(b->frames[1].payload, copy);
}

TEST_P(FrameConnectionTest, WhatIsSentBeforeFinishArrives) {
  a->start();
  b->connection->send(frame(FrameType::ack, 1), {});  // unread bytes must not reset it
  FrameHeader h = frame(FrameType::bye, 2);
  a->connection->send_text(h, R"({"reason":"test"})");
  a->connection->finish();
  run_until([&] { return !b->ends.empty(); });
  ASSERT_EQ(b->frames.size(), 1u);
  EXPECT_EQ(b->frames[0].header.type, FrameType::bye);
  EXPECT_TRUE(a->ends.empty());
}

TEST_P(FrameConnectionTest, TheOtherSidesEndIsToldOnce) {
  a->start();
  a->connection->close();
  run_until([&] { return !b->ends.empty(); });
  EXPECT_EQ(b->ends.size(), 1u);
  EXPECT_TRUE(a->ends.empty());
}

TEST_P(FrameConnectionTest, AfterCloseFromAHandlerNothingMoreIsCalled) {
  a->start();
  b->close_on_frame = true;
  for (std::uint64_t i = 1; i < 20; ++i)
    a->connection->send(frame(FrameType::flush, i), {});
  run();
  EXPECT_EQ(b->frames.size(), 1u);
  EXPECT_TRUE(b->ends.empty());
}

TEST_P(FrameConnectionTest, AFailureIsNotToldAfterFinish) {
  a->start();
  b->connection->pause_receiving(true);
  const auto payload = random_bytes(payload_bytes_max, 1);
  FrameHeader h = frame(FrameType::write, 1);
  h.length = payload_bytes_max;
  while (a->connection->is_open())  // until more waits than may
    a->connection->send(h, payload);
  a->connection->finish();
  run();
  EXPECT_TRUE(a->ends.empty());
}

TEST_P(FrameConnectionTest, AFrameThatIsNotAdmittedEndsTheConnection) {
  a->start();
  FrameHeader h = frame(FrameType::hello, 1);
  a->connection->send_text(h, "{}");
  run_until([&] { return !b->ends.empty(); });
  EXPECT_THAT(b->ends[0], HasSubstr("hello"));
  EXPECT_TRUE(b->frames.empty());
}

// Every single damaged byte of a frame is noticed and nothing of it is handed on.
TEST(FrameConnectionDamageTest, EveryFlippedByteEndsTheConnection) {
  std::vector<std::byte> payload(64, std::byte{7});
  FrameHeader h;
  h.type = FrameType::write;
  h.sequence = Sequence(1);
  h.length = 64;
  const FrameHeaderBytes header = encode_header(h, payload);
  std::vector<std::byte> whole(header.begin(), header.end());
  whole.insert(whole.end(), payload.begin(), payload.end());
  for (std::size_t i = 0; i < whole.size(); ++i) {
    boost::asio::io_context io;
    Tcp::acceptor acceptor(io, Tcp::endpoint(boost::asio::ip::address_v4::loopback(), 0));
    Tcp::socket raw(io);
    raw.connect(acceptor.local_endpoint());
    Side side(std::make_unique<TcpStream>(acceptor.accept()));
    side.start();
    auto damaged = whole;
    damaged[i] ^= std::byte{0x10};
    boost::asio::write(raw, boost::asio::buffer(damaged.data(), damaged.size()));
    io.run_for(std::chrono::milliseconds(50));
    EXPECT_TRUE(side.frames.empty()) << "byte " << i;
    EXPECT_EQ(side.ends.size(), 1u) << "byte " << i;
    side.connection->close();
    io.restart();
    io.poll();
  }
}

// One side is set to TLS and the other to plain TCP.
TEST(FrameConnectionDamageTest, TlsWhereFramesAreExpectedIsNamed) {
  TestCluster cluster;
  boost::asio::io_context io;
  for (const bool client_is_tls : {true, false}) {
    const std::optional<TlsFiles> of_a = cluster.node("a");
    const std::optional<TlsFiles> of_b = cluster.node("b");
    SocketPair sockets = connect_sockets(io);
    const StreamOpener tls(client_is_tls ? of_a : of_b, client_is_tls ? "a" : "b",
                           client_is_tls ? "b" : "a", std::chrono::seconds(5));
    std::optional<StreamOpener::Opened> opened;
    start_opening(io, tls, std::move(client_is_tls ? sockets.client : sockets.server),
                  client_is_tls ? TlsRole::client : TlsRole::server, opened);
    Side plain(
        std::make_unique<TcpStream>(std::move(client_is_tls ? sockets.server : sockets.client)));
    plain.start();
    if (!client_is_tls) {
      FrameHeader hello;
      hello.type = FrameType::hello;
      plain.connection->send_text(hello, "{}");
    }
    EXPECT_TRUE(run_loop_until(io, [&] { return opened.has_value() && !plain.ends.empty(); }));
    ASSERT_EQ(plain.ends.size(), 1u);
    // A TLS server that reads a frame says nothing, it closes.
    EXPECT_THAT(plain.ends[0], HasSubstr(client_is_tls ? "is the other side set to TLS"
                                                       : "the other side closed the connection"));
    ASSERT_FALSE(opened->has_value());
    EXPECT_THAT(opened->error().message, HasSubstr("set to plain TCP?"));
    plain.connection->close();
    run_loop_until(io, [] { return true; });
  }
}

}  // namespace
}  // namespace havm
