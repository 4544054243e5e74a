// Starts, stops, clients that come and go, requests that are held.
#include <cerrno>
#include <fstream>
#include <functional>

#include <boost/asio/post.hpp>
#include <sys/socket.h>
#include <sys/stat.h>

#include "tests/unit/vmrepl/nbd/nbd_server_fixture.hpp"
#include "vmrepl/nbd/nbd_connection.hpp"

namespace havm::nbd_test {
namespace {

class NbdServerLife : public NbdServerTest {
 protected:
  mode_t mode_of_socket() const {
    struct stat file {};
    EXPECT_EQ(::stat(options.socket_path.c_str(), &file), 0);
    return file.st_mode & 07777;
  }
  bool socket_exists() const { return std::filesystem::exists(options.socket_path); }

  // A client with one held write.
  NbdTestClient client_with_held_write() {
    service.completion = Completion::held;
    auto client = connect();
    EXPECT_TRUE(client.go(true));
    EXPECT_TRUE(client.send(request(nbd_cmd_write, 1, 0, 512) + Bytes(512)));
    EXPECT_TRUE(until([&] { return service.waiting() == 1; }));
    return client;
  }
};

TEST_F(NbdServerLife, TheSocketIsForItsOwnerAloneUnlessSaidOtherwise) {
  EXPECT_EQ(mode_of_socket(), 0600U);
  options.socket_mode = 0666;
  make_server();
  EXPECT_EQ(mode_of_socket(), 0666U);
}

TEST_F(NbdServerLife, StartsAndStopsRepeatedly) {
  for (int round = 0; round < 50; ++round) {
    ASSERT_TRUE(server->start());
    EXPECT_TRUE(server->serving());
    auto client = connect();
    ASSERT_TRUE(client.go(false)) << round;
    server->stop();
    server->stop();
    EXPECT_FALSE(server->serving());
    EXPECT_FALSE(socket_exists());
    EXPECT_EQ(server->clients(), 0U);
    EXPECT_TRUE(client.sees_end());
    EXPECT_FALSE(connect().connected());
  }
}

TEST_F(NbdServerLife, AConnectionOfAnEarlierStartIsNotServedByTheNext) {
  auto early = connect();  // in the backlog, perhaps accepted, not yet seen
  server->stop();
  ASSERT_TRUE(server->start());
  EXPECT_TRUE(early.sees_end());
  EXPECT_TRUE(connect().go(false));
}

TEST_F(NbdServerLife, AnAcceptThatFinishedBeforeAStopDoesNotCountAfterTheNextStart) {
  // stop() and start() run in each of the first turns of the loop: in one of them the accept is
  // done but its handler has not run.
  for (int turns = 0; turns < 5; ++turns) {
    // The second is accepted in the turn of the first, and its handler waits for its own turn.
    auto first = connect();
    auto early = connect();
    std::function<void(int)> restart = [&](int left) {
      if (left > 0) return boost::asio::post(io, [&restart, left] { restart(left - 1); });
      server->stop();
      ASSERT_TRUE(server->start());
    };
    io.restart();
    boost::asio::post(io, [&] { restart(turns); });
    settle();
    EXPECT_FALSE(early.go(false)) << turns;
  }
}

TEST_F(NbdServerLife, AStaleSocketFileIsReplaced) {
  const std::string aside = directory + "/aside";
  std::filesystem::rename(options.socket_path, aside);
  server->stop();
  std::filesystem::rename(aside, options.socket_path);
  ASSERT_TRUE(std::filesystem::is_socket(options.socket_path));
  ASSERT_TRUE(server->start());
  EXPECT_TRUE(connect().go(false));
}

TEST_F(NbdServerLife, ALivingServerIsNotReplaced) {
  NbdServer second(io, service, options);
  const auto started = second.start();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, EADDRINUSE);
  EXPECT_NE(started.error().message.find(options.socket_path), std::string::npos);
  EXPECT_TRUE(connect().go(false));
}

TEST_F(NbdServerLife, AFileThatIsNoSocketIsNotTouched) {
  options.socket_path = directory + "/file";
  std::ofstream(options.socket_path) << "precious";
  NbdServer second(io, service, options);
  const auto started = second.start();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, EEXIST);
  EXPECT_EQ(std::filesystem::file_size(options.socket_path), 8U);
}

TEST_F(NbdServerLife, StopDoesNotRemoveTheSocketOfAnother) {
  const std::string path = options.socket_path;
  std::filesystem::rename(path, directory + "/moved");
  NbdServer second(io, service, options);
  ASSERT_TRUE(second.start());
  server->stop();
  EXPECT_TRUE(socket_exists());
  EXPECT_TRUE(connect().go(false));
}

TEST_F(NbdServerLife, ImpossibleOptionsAreRefusedWithAReason) {
  NbdServerOptions bad = options;
  bad.socket_path = directory + "/" + std::string(200, 'x');
  EXPECT_FALSE(NbdServer(io, service, bad).start());
  bad.socket_path = directory + "/no/such/directory.sock";
  const auto missing = NbdServer(io, service, bad).start();
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ENOENT);
  MemoryBlockService odd(io, 1000, 512);
  bad.socket_path = directory + "/odd.sock";
  EXPECT_FALSE(NbdServer(io, odd, bad).start());
  EXPECT_FALSE(std::filesystem::exists(bad.socket_path));
}

TEST_F(NbdServerLife, AHeldRequestIsAnsweredWhenItIsReleased) {
  auto client = client_with_held_write();
  EXPECT_TRUE(client.sees_silence());
  EXPECT_EQ(service.release(), 1U);
  EXPECT_EQ(client.simple_reply().cookie, 1U);
}

TEST_F(NbdServerLife, StopDropsAHeldRequestWithoutAnAnswer) {
  auto client = client_with_held_write();
  server->stop();
  EXPECT_TRUE(client.receive(1).empty());
  EXPECT_EQ(service.release(), 1U);  // the late completion is harmless
  service.completion = Completion::inside;
  ASSERT_TRUE(server->start());
  EXPECT_TRUE(connect().go(false));
}

TEST_F(NbdServerLife, ALateCompletionMayOutliveTheServer) {
  auto client = client_with_held_write();
  server.reset();
  settle();
  EXPECT_EQ(service.release(), 1U);
  EXPECT_TRUE(client.receive(1).empty());
}

TEST_F(NbdServerLife, AHeldRequestMayBeForgottenByTheService) {
  auto client = client_with_held_write();
  service.forget();
  EXPECT_TRUE(client.sees_silence());
  server->stop();
  EXPECT_TRUE(client.receive(1).empty());
}

TEST_F(NbdServerLife, AClientThatLeavesWithAHeldRequestIsNoticed) {
  auto client = client_with_held_write();
  client.close();
  EXPECT_TRUE(until([&] { return server->clients() == 0; }));
  EXPECT_EQ(service.release(), 1U);
}

TEST_F(NbdServerLife, AClientThatLeavesWhileItsSocketIsNotReadIsNoticed) {
  service.completion = Completion::held;
  for (int round = 0; round < 3; ++round) {
    auto client = connect();
    ASSERT_TRUE(client.go(true));
    const Bytes flush = request(nbd_cmd_flush, 1, 0, 0);
    const auto fill = [&] {
      for (std::size_t i = 0; i <= nbd_in_flight_requests_max; ++i)
        ASSERT_TRUE(client.send(flush));
      ASSERT_TRUE(until([&] { return service.waiting() == nbd_in_flight_requests_max; }));
    };
    fill();
    // Full, empty, and full again: the watch must survive the change.
    for (int again = 0; again < round; ++again) {
      while (service.waiting() > 0) {
        const std::size_t count = service.release();
        for (std::size_t i = 0; i < count; ++i)
          ASSERT_EQ(client.simple_reply().error, 0U);
        settle();
      }
      fill();
    }
    settle();
    EXPECT_EQ(server->clients(), 1U);
    client.close();
    EXPECT_TRUE(until([&] { return server->clients() == 0; })) << round;
    service.release();
  }
}

TEST_F(NbdServerLife, AClientThatLeavesAfterARefillIsNoticed) {
  service.completion = Completion::held;
  auto client = connect();
  ASSERT_TRUE(client.go(false));
  const Bytes flush = request(nbd_cmd_flush, 1, 0, 0);
  Bytes stream;
  for (std::size_t i = 0; i < 4 * nbd_in_flight_requests_max; ++i)
    stream = stream + flush;
  ASSERT_TRUE(client.send(stream));
  ASSERT_TRUE(until([&] { return service.waiting() == nbd_in_flight_requests_max; }));
  settle();
  // What waits in the socket fills the room again in the same turn in which it became free.
  EXPECT_EQ(service.release(0, 1), 1U);
  EXPECT_EQ(client.simple_reply().error, 0U);
  ASSERT_TRUE(until([&] { return service.waiting() == nbd_in_flight_requests_max; }));
  settle();
  client.close();
  EXPECT_TRUE(until([&] { return server->clients() == 0; }));
}

TEST_F(NbdServerLife, ClientsAreCountedAndEveryChangeIsTold) {
  std::vector<std::size_t> told;
  server->on_clients_changed([&](std::size_t clients) { told.push_back(clients); });
  auto idle = connect();
  settle();
  EXPECT_EQ(server->clients(), 0U);  // still in its handshake
  auto first = connect();
  ASSERT_TRUE(first.go(false));
  auto second = connect();
  ASSERT_TRUE(second.go(false));
  EXPECT_EQ(server->clients(), 2U);
  first.close();
  ASSERT_TRUE(until([&] { return server->clients() == 1; }));
  EXPECT_EQ(told, (std::vector<std::size_t>{1, 2, 1}));
  idle.close();
  settle();
  server->stop();
  EXPECT_EQ(told, (std::vector<std::size_t>{1, 2, 1, 0}));
  server->stop();
  EXPECT_EQ(told.size(), 4U);
}

TEST_F(NbdServerLife, DestructionTellsNobody) {
  auto client = connect();
  ASSERT_TRUE(client.go(false));
  server->on_clients_changed([](std::size_t) { FAIL() << "told"; });
  server.reset();
  EXPECT_TRUE(client.sees_end());
}

TEST_F(NbdServerLife, TheCallbackMayStopTheServer) {
  server->on_clients_changed([&](std::size_t) { server->stop(); });
  auto client = connect();
  client.go(false);
  EXPECT_TRUE(client.sees_end());
  EXPECT_FALSE(server->serving());
}

TEST_F(NbdServerLife, TheServiceMayStopTheServerInsideSubmit) {
  service.before_submit = [&] { server->stop(); };
  auto client = connect();
  ASSERT_TRUE(client.go(false));
  const Bytes flush = request(nbd_cmd_flush, 1, 0, 0);
  ASSERT_TRUE(client.send(flush + flush + flush));
  EXPECT_TRUE(client.sees_end());
  EXPECT_EQ(service.seen.size(), 1U);
}

TEST_F(NbdServerLife, ConnectionsAreBounded) {
  std::vector<NbdTestClient> clients;
  for (std::size_t i = 0; i < nbd_connections_max; ++i) {
    clients.push_back(connect());
    ASSERT_TRUE(clients.back().go(false)) << i;
  }
  auto refused = connect();
  EXPECT_FALSE(refused.go(false));
  clients.pop_back();
  ASSERT_TRUE(until([&] { return server->clients() == nbd_connections_max - 1; }));
  EXPECT_TRUE(connect().go(false));
}

TEST_F(NbdServerLife, AHandshakeThatDoesNotEndIsDropped) {
  options.handshake_timeout = std::chrono::milliseconds(50);
  make_server();
  auto slow = connect();
  ASSERT_TRUE(slow.send(client_flags()));
  auto quick = connect();
  ASSERT_TRUE(quick.go(false));
  EXPECT_TRUE(slow.sees_end());
  EXPECT_TRUE(quick.sees_silence());
  EXPECT_EQ(server->clients(), 1U);
}

}  // namespace
}  // namespace havm::nbd_test
