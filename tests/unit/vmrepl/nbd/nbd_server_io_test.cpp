// Requests and replies over a real socket.
#include <algorithm>
#include <cerrno>
#include <map>

#include "tests/unit/vmrepl/nbd/nbd_server_fixture.hpp"
#include "vmrepl/nbd/nbd_connection.hpp"

namespace havm::nbd_test {
namespace {

using Seen = MemoryBlockService::Seen;
constexpr std::uint32_t mib = 1U << 20;

class NbdServerIo : public NbdServerTest {
 protected:
  bool disk_holds(std::uint64_t offset, const Bytes& bytes) {
    return std::equal(bytes.begin(), bytes.end(),
                      service.disk().begin() + static_cast<std::ptrdiff_t>(offset));
  }
};

TEST_F(NbdServerIo, SimpleRepliesCarryWritesAndReads) {
  auto client = connect();
  ASSERT_TRUE(client.go(false));
  const Bytes data = random_bytes(4096, 1);
  ASSERT_TRUE(client.send(request(nbd_cmd_write, 7, 8192, 4096) + data));
  auto reply = client.simple_reply();
  EXPECT_EQ(reply.magic, nbd_simple_reply_magic);
  EXPECT_EQ(reply.error, 0U);
  EXPECT_EQ(reply.cookie, 7U);
  EXPECT_TRUE(disk_holds(8192, data));

  ASSERT_TRUE(client.send(request(nbd_cmd_read, 8, 8192, 4096)));
  reply = client.simple_reply();
  EXPECT_EQ(reply.cookie, 8U);
  EXPECT_EQ(reply.error, 0U);
  EXPECT_EQ(client.receive(4096), data);
}

TEST_F(NbdServerIo, StructuredReadsAreOneDataChunkOrOneHole) {
  auto client = connect();
  ASSERT_TRUE(client.go(true));
  const Bytes data = random_bytes(4096, 2);
  std::copy(data.begin(), data.end(), service.disk().begin() + 4096);

  ASSERT_TRUE(client.send(request(nbd_cmd_read, 1, 0, 8192, nbd_cmd_flag_df)));
  auto chunk = client.chunk();
  EXPECT_EQ(chunk.magic, nbd_structured_reply_magic);
  EXPECT_EQ(chunk.flags, nbd_reply_flag_done);
  EXPECT_EQ(chunk.type, nbd_reply_offset_data);
  EXPECT_EQ(chunk.payload, Bytes(8) + Bytes(4096) + data);

  ASSERT_TRUE(client.send(request(nbd_cmd_read, 2, mib, mib)));
  chunk = client.chunk();
  NbdWriter hole;
  hole.integer(std::uint64_t{mib}).integer(mib);
  EXPECT_EQ(chunk.type, nbd_reply_offset_hole);
  EXPECT_EQ(chunk.payload, hole.bytes());

  ASSERT_TRUE(client.send(request(nbd_cmd_read, 3, 0, 0)));
  chunk = client.chunk();
  EXPECT_EQ(chunk.type, nbd_reply_none);
  EXPECT_EQ(chunk.cookie, 3U);
}

TEST_F(NbdServerIo, ServesTheLargestRequests) {
  auto client = connect();
  ASSERT_TRUE(client.go(true));
  const Bytes data = random_bytes(nbd_payload_bytes_max, 3);
  ASSERT_TRUE(client.send(request(nbd_cmd_write, 1, 512, nbd_payload_bytes_max) + data));
  EXPECT_EQ(client.simple_reply().error, 0U);
  EXPECT_TRUE(disk_holds(512, data));
  ASSERT_TRUE(client.send(request(nbd_cmd_read, 2, 512, nbd_payload_bytes_max)));
  const auto chunk = client.chunk();
  EXPECT_EQ(chunk.type, nbd_reply_offset_data);
  ASSERT_EQ(chunk.payload.size(), data.size() + 8);
  EXPECT_TRUE(std::equal(data.begin(), data.end(), chunk.payload.begin() + 8));
}

TEST_F(NbdServerIo, BytesMayArriveOneByOne) {
  auto client = connect();
  const Bytes data = random_bytes(512, 4);
  const Bytes all = client_flags() + option(nbd_opt_export_name) +
                    request(nbd_cmd_write, 1, 0, 512) + data + request(nbd_cmd_read, 2, 0, 512);
  for (const std::byte b : all) {
    ASSERT_TRUE(client.send(std::span(&b, 1)));
    io.restart();
    io.poll();
  }
  ASSERT_EQ(client.receive(18 + 10).size(), 28U);
  EXPECT_EQ(client.simple_reply().cookie, 1U);
  EXPECT_EQ(client.simple_reply().cookie, 2U);
  EXPECT_EQ(client.receive(512), data);
}

TEST_F(NbdServerIo, RequestsMayArriveTogetherWithTheHandshake) {
  auto client = connect();
  const Bytes data = random_bytes(mib, 5);
  ASSERT_TRUE(client.send(client_flags() + option(4711, Bytes(60'000)) +
                          option(nbd_opt_export_name) + request(nbd_cmd_write, 1, 0, mib) + data +
                          request(nbd_cmd_flush, 2, 0, 0)));
  constexpr std::size_t refusal = 20 + std::string_view("unknown option").size();
  ASSERT_EQ(client.receive(18 + refusal + 10).size(), 18 + refusal + 10);
  EXPECT_EQ(client.simple_reply().cookie, 1U);
  EXPECT_EQ(client.simple_reply().cookie, 2U);
  EXPECT_TRUE(disk_holds(0, data));
}

TEST_F(NbdServerIo, PipelinedRequestsAreServedConcurrentlyAndAnsweredByCookie) {
  service.completion = Completion::shuffled;
  auto client = connect();
  ASSERT_TRUE(client.go(true));
  constexpr std::uint64_t count = 100;
  Bytes stream;
  std::map<std::uint64_t, Bytes> written;
  for (std::uint64_t i = 0; i < count; ++i) {
    written[i] = random_bytes(512 * (1 + i % 9), static_cast<unsigned>(i));
    stream = stream +
             request(nbd_cmd_write, i, i * 8192, static_cast<std::uint32_t>(written[i].size())) +
             written[i];
  }
  ASSERT_TRUE(client.send(stream));
  std::vector<std::uint64_t> order;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto reply = client.simple_reply();
    EXPECT_EQ(reply.error, 0U);
    order.push_back(reply.cookie);
  }
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  Bytes reads;
  for (std::uint64_t i = 0; i < count; ++i)
    reads =
        reads + request(nbd_cmd_read, i, i * 8192, static_cast<std::uint32_t>(written[i].size()));
  ASSERT_TRUE(client.send(reads));
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto chunk = client.chunk();
    ASSERT_EQ(chunk.type, nbd_reply_offset_data);
    ASSERT_EQ(chunk.payload.size(), written[chunk.cookie].size() + 8);
    EXPECT_TRUE(std::equal(written[chunk.cookie].begin(), written[chunk.cookie].end(),
                           chunk.payload.begin() + 8));
    written.erase(chunk.cookie);
  }
  EXPECT_TRUE(written.empty());
}

TEST_F(NbdServerIo, TheServiceSeesCommandsAndFlags) {
  auto client = connect();
  ASSERT_TRUE(client.go(false));
  const Bytes data(512);
  ASSERT_TRUE(client.send(
      request(nbd_cmd_write, 1, 0, 512, nbd_cmd_flag_fua) + data +
      request(nbd_cmd_write, 2, 512, 512) + data +
      request(nbd_cmd_flush, 3, 0, 0, nbd_cmd_flag_fua) +
      request(nbd_cmd_trim, 4, 1024, 512, nbd_cmd_flag_fua) +
      request(nbd_cmd_write_zeroes, 5, 2048, mib) +
      request(nbd_cmd_write_zeroes, 6, 0, 512, nbd_cmd_flag_no_hole | nbd_cmd_flag_fua) +
      request(nbd_cmd_read, 7, 0, 512, nbd_cmd_flag_fua)));
  for (std::uint64_t i = 1; i <= 7; ++i) {
    const auto reply = client.simple_reply();
    EXPECT_EQ(reply.cookie, i);
    EXPECT_EQ(reply.error, 0U);
  }
  EXPECT_EQ(client.receive(512).size(), 512U);
  const std::vector<Seen> expected{{BlockOp::write, 0, 512, true, false},
                                   {BlockOp::write, 512, 512, false, false},
                                   {BlockOp::flush, 0, 0, false, false},
                                   {BlockOp::trim, 1024, 512, true, false},
                                   {BlockOp::write_zeroes, 2048, mib, false, true},
                                   {BlockOp::write_zeroes, 0, 512, true, false},
                                   {BlockOp::read, 0, 512, false, false}};
  EXPECT_EQ(service.seen, expected);
}

TEST_F(NbdServerIo, ErrorsOfTheServiceAreTold) {
  for (const bool structured : {false, true}) {
    auto client = connect();
    ASSERT_TRUE(client.go(structured));
    for (const std::uint16_t command : {nbd_cmd_read, nbd_cmd_write, nbd_cmd_flush}) {
      service.next_error = EDQUOT;
      const std::uint32_t length = command == nbd_cmd_flush ? 0 : 512;
      ASSERT_TRUE(
          client.send(request(command, 1, 0, length) + Bytes(command == nbd_cmd_write ? 512 : 0)));
      if (!structured) {
        EXPECT_EQ(client.simple_reply().error, nbd_error_nospc);
        continue;
      }
      const auto chunk = client.chunk();
      EXPECT_EQ(chunk.type, nbd_reply_error);
      EXPECT_EQ(load_big_endian<std::uint32_t>(chunk.payload.data()), nbd_error_nospc);
    }
    ASSERT_TRUE(client.send(request(nbd_cmd_flush, 2, 0, 0)));
    EXPECT_EQ(client.simple_reply().error, 0U);
  }
}

TEST_F(NbdServerIo, RefusedRequestsDoNotReachTheServiceAndTheStreamGoesOn) {
  auto client = connect();
  ASSERT_TRUE(client.go(false));
  ASSERT_TRUE(client.send(request(nbd_cmd_write, 1, disk_bytes, 4096) + random_bytes(4096, 6) +
                          request(nbd_cmd_write, 2, 1, 100'000) + random_bytes(100'000, 7) +
                          request(nbd_cmd_read, 3, 0, nbd_payload_bytes_max + 512) +
                          request(99, 4, 0, 0) + request(nbd_cmd_write, 5, 0, 0)));
  const std::vector<std::uint32_t> expected{nbd_error_nospc, nbd_error_inval, nbd_error_inval,
                                            nbd_error_inval, 0};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto reply = client.simple_reply();
    EXPECT_EQ(reply.cookie, i + 1);
    EXPECT_EQ(reply.error, expected[i]);
  }
  EXPECT_TRUE(service.seen.empty());
  ASSERT_TRUE(client.send(request(nbd_cmd_flush, 6, 0, 0)));
  EXPECT_EQ(client.simple_reply().cookie, 6U);
  EXPECT_EQ(service.seen.size(), 1U);
}

TEST_F(NbdServerIo, BrokenFramingDropsTheConnection) {
  for (const Bytes& broken :
       {Bytes(nbd_request_bytes), request(nbd_cmd_write, 1, 0, nbd_payload_bytes_max + 1)}) {
    auto client = connect();
    ASSERT_TRUE(client.go(true));
    ASSERT_TRUE(client.send(broken));
    EXPECT_TRUE(client.sees_end());
  }
  EXPECT_TRUE(service.seen.empty());
  EXPECT_EQ(server->clients(), 0U);
}

TEST_F(NbdServerIo, BlockStatusTellsExtents) {
  auto client = connect();
  ASSERT_TRUE(client.go(true, true));
  service.disk()[3 * 4096] = std::byte{1};
  const auto status = [&](std::uint32_t length, std::uint16_t flags) {
    EXPECT_TRUE(client.send(request(nbd_cmd_block_status, 5, 0, length, flags)));
    const auto chunk = client.chunk();
    EXPECT_EQ(chunk.type, nbd_reply_block_status);
    std::vector<std::uint32_t> numbers;
    for (std::size_t at = 0; at + 4 <= chunk.payload.size(); at += 4)
      numbers.push_back(load_big_endian<std::uint32_t>(chunk.payload.data() + at));
    return numbers;
  };
  using Numbers = std::vector<std::uint32_t>;
  EXPECT_EQ(status(mib, 0), (Numbers{1, 12288, 3, 4096, 0, mib - 16384, 3}));
  EXPECT_EQ(status(mib, nbd_cmd_flag_req_one), (Numbers{1, 12288, 3}));
  service.extents_error = EIO;
  EXPECT_EQ(status(mib, 0), (Numbers{1, mib, 0}));
}

TEST_F(NbdServerIo, DisconnectAnswersWhatIsUnderWayFirst) {
  service.completion = Completion::held;
  auto client = connect();
  ASSERT_TRUE(client.go(false));
  ASSERT_TRUE(client.send(request(nbd_cmd_flush, 1, 0, 0) + request(nbd_cmd_disc, 2, 0, 0)));
  ASSERT_TRUE(until([&] { return service.waiting() == 1; }));
  EXPECT_TRUE(client.sees_silence());
  EXPECT_EQ(server->clients(), 1U);
  service.release();
  EXPECT_EQ(client.simple_reply().cookie, 1U);
  EXPECT_TRUE(client.sees_end());
  EXPECT_EQ(server->clients(), 0U);
}

TEST_F(NbdServerIo, AbortIsAnsweredBeforeTheClose) {
  auto client = connect();
  ASSERT_TRUE(client.send(client_flags() + option(nbd_opt_abort)));
  const Bytes answer = client.receive(18 + 20);
  EXPECT_EQ(Bytes(answer.begin() + 18, answer.end()), option_reply(nbd_opt_abort, nbd_rep_ack));
  EXPECT_TRUE(client.sees_end());
}

TEST_F(NbdServerIo, RequestsInFlightAreBounded) {
  service.completion = Completion::held;
  auto client = connect();
  ASSERT_TRUE(client.go(false));
  constexpr std::uint64_t count = 2 * nbd_in_flight_requests_max + 10;
  Bytes stream;
  for (std::uint64_t i = 0; i < count; ++i)
    stream = stream + request(nbd_cmd_flush, i, 0, 0);
  ASSERT_TRUE(client.send(stream));
  settle();
  EXPECT_EQ(service.waiting(), nbd_in_flight_requests_max);
  std::size_t answered = 0;
  while (answered < count) {
    ASSERT_TRUE(until([&] { return service.waiting() > 0; }));
    const std::size_t released = service.release();
    for (std::size_t i = 0; i < released; ++i)
      ASSERT_EQ(client.simple_reply().error, 0U);
    answered += released;
    settle();
    ASSERT_LE(service.waiting(), nbd_in_flight_requests_max);
  }
  EXPECT_EQ(answered, count);
}

TEST_F(NbdServerIo, PayloadInFlightIsBounded) {
  service.completion = Completion::held;
  auto client = connect();
  ASSERT_TRUE(client.go(false));
  ASSERT_TRUE(client.send(request(nbd_cmd_read, 1, 0, nbd_payload_bytes_max) +
                          request(nbd_cmd_read, 2, 0, nbd_payload_bytes_max) +
                          request(nbd_cmd_read, 3, 0, 512)));
  settle();
  EXPECT_EQ(service.waiting(), 2U);
  // Not even the replies free the room: the client must have taken them.
  service.release();
  settle();
  EXPECT_EQ(service.waiting(), 0U);
  EXPECT_EQ(client.receive(16 + nbd_payload_bytes_max).size(), 16 + nbd_payload_bytes_max);
  EXPECT_TRUE(until([&] { return service.waiting() == 1; }));
  EXPECT_EQ(service.seen.size(), 3U);
}

TEST_F(NbdServerIo, AClientThatDoesNotReadItsRepliesAndGoesAwayHarmsNobody) {
  auto client = connect();
  ASSERT_TRUE(client.go(false));
  std::fill(service.disk().begin(), service.disk().end(), std::byte{1});
  Bytes stream;
  for (std::uint64_t i = 0; i < 8; ++i)
    stream = stream + request(nbd_cmd_read, i, 0, 8 * mib);
  ASSERT_TRUE(client.send(stream));
  settle();
  client.close();
  EXPECT_TRUE(until([&] { return server->clients() == 0; }));
  auto other = connect();
  ASSERT_TRUE(other.go(false));
  ASSERT_TRUE(other.send(request(nbd_cmd_flush, 9, 0, 0)));
  EXPECT_EQ(other.simple_reply().cookie, 9U);
}

TEST_F(NbdServerIo, ConnectionsAreServedSideBySide) {
  auto first = connect();
  auto second = connect();
  ASSERT_TRUE(first.go(false));
  ASSERT_TRUE(second.go(true));
  const Bytes data = random_bytes(512, 8);
  ASSERT_TRUE(first.send(request(nbd_cmd_write, 1, 0, 512) + data));
  EXPECT_EQ(first.simple_reply().error, 0U);
  ASSERT_TRUE(second.send(request(nbd_cmd_read, 1, 0, 512)));
  EXPECT_EQ(second.chunk().payload, Bytes(8) + data);
}

}  // namespace
}  // namespace havm::nbd_test
