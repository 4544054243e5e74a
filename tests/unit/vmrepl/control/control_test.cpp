// ControlServer and EngineClient, against each other and against a client that misbehaves.
#include <filesystem>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "vmrepl/base/spawn_supervised.hpp"
#include "vmrepl/control/control_server.hpp"
#include "vmrepl/control/engine_client.hpp"

namespace havm {
namespace {

using boost::asio::awaitable;
using boost::asio::use_awaitable;
using Json = nlohmann::json;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;

class ControlTest : public testing::Test {
 protected:
  ~ControlTest() override { std::filesystem::remove_all(directory); }

  // `echo` answers its arguments, `fail` an error, `later` when released, `never` not at all.
  void execute(const std::string& cmd, const Json& request, ControlServer::Reply reply) {
    executed.push_back(cmd);
    if (cmd == "echo") return reply(request);
    if (cmd == "fail") return reply(Error("it cannot be done"));
    waiting.push_back(std::move(reply));
  }
  void run(awaitable<void> body) {
    bool ended = false;
    spawn_supervised(io.get_executor(), "test", wrap(std::move(body), ended));
    io.restart();
    io.run_for(std::chrono::seconds(20));
    EXPECT_TRUE(ended) << "the test did not end in time";
  }
  awaitable<void> wrap(awaitable<void> body, bool& ended) {
    co_await std::move(body);
    ended = true;
    io.stop();
  }
  awaitable<void> sleep(milliseconds time) {
    boost::asio::steady_timer timer(io, time);
    co_await timer.async_wait(use_awaitable);
  }
  awaitable<Result<Json>> ask(EngineClient& whom, const char* cmd, Json args = Json::object(),
                              milliseconds deadline = milliseconds(5000)) {
    std::string name = cmd;
    auto outcome = co_await whom.call(std::move(name), std::move(args), deadline);
    co_return outcome;
  }

  static std::string fresh_directory() {
    std::string name = testing::TempDir() + "havm-control-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    return name;
  }

  std::string directory = fresh_directory();
  std::string path = directory + "/control.sock";
  boost::asio::io_context io;
  std::vector<std::string> executed;
  std::vector<ControlServer::Reply> waiting;
  ControlServer server{
      io.get_executor(), path,
      [this](const std::string& cmd, const Json& request, ControlServer::Reply reply) {
        execute(cmd, request, std::move(reply));
      },
      [] {
        return Json{{"role", "none"}};
      }};
  EngineClient client{io.get_executor()};
};

TEST_F(ControlTest, TheSocketIsForItsOwnerOnly) {
  ASSERT_TRUE(server.start());
  struct stat info {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  server.stop();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(ControlTest, ASecondServerOnTheSamePathIsRefused) {
  ASSERT_TRUE(server.start());
  ControlServer second(io.get_executor(), path, nullptr, nullptr);
  EXPECT_FALSE(second.start());
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(ControlTest, RepliesAndRefusalsReachTheirCallers) {
  ASSERT_TRUE(server.start());
  auto body = [](auto& t) -> awaitable<void> {
    EXPECT_TRUE(co_await t.client.connect(t.path));
    Json args = {{"epoch", 7}};
    const auto echoed = co_await t.ask(t.client, "echo", args);
    EXPECT_TRUE(echoed && echoed.value() == args);
    const auto failed = co_await t.ask(t.client, "fail");
    EXPECT_FALSE(failed);
    EXPECT_EQ(failed.error().message, "it cannot be done");
    EXPECT_EQ(failed.error().code, 0);
  };
  run(body(*this));
}

TEST_F(ControlTest, CommandsRunOneAfterTheOther) {
  ASSERT_TRUE(server.start());
  auto body = [](auto& t) -> awaitable<void> {
    EXPECT_TRUE(co_await t.client.connect(t.path));
    auto first = [](auto& u) -> awaitable<void> { (void)co_await u.ask(u.client, "later"); };
    spawn_supervised(t.io.get_executor(), "first", first(t));
    co_await t.sleep(milliseconds(30));
    Json none;
    const auto second = co_await t.ask(t.client, "echo", none, milliseconds(100));
    EXPECT_FALSE(second);
    EXPECT_EQ(second.error().code, ETIMEDOUT);
    EXPECT_THAT(t.executed, ElementsAre("later"));
    t.waiting[0](Json::object());
    co_await t.sleep(milliseconds(30));
    EXPECT_THAT(t.executed, ElementsAre("later", "echo"));
    // The late reply of the abandoned call disturbs nobody.
    const auto third = co_await t.ask(t.client, "echo");
    EXPECT_TRUE(third);
  };
  run(body(*this));
}

TEST_F(ControlTest, ASubscriberGetsAStatusAndThenEveryEvent) {
  ASSERT_TRUE(server.start());
  std::vector<std::string> events;
  client.on_event([&](const Json& e) { events.push_back(e["event"].get<std::string>()); });
  auto body = [](auto& t, std::vector<std::string>& seen) -> awaitable<void> {
    EXPECT_TRUE(co_await t.client.connect(t.path));
    Json early = {{"event", "early"}};
    t.server.broadcast(early);
    EXPECT_TRUE(co_await t.ask(t.client, "subscribe"));
    Json synced = {{"event", "synced"}};
    t.server.broadcast(synced);
    co_await t.sleep(milliseconds(50));
    EXPECT_THAT(seen, ElementsAre("status", "synced"));
  };
  run(body(*this, events));
}

TEST_F(ControlTest, TheEndOfTheEngineEndsEveryCallAndIsToldOnce) {
  ASSERT_TRUE(server.start());
  int lost = 0;
  client.on_lost([&](const std::string&) { ++lost; });
  auto body = [](auto& t, int& times) -> awaitable<void> {
    EXPECT_TRUE(co_await t.client.connect(t.path));
    auto stopper = [](auto& u) -> awaitable<void> {
      co_await u.sleep(milliseconds(30));
      u.server.stop();
    };
    spawn_supervised(t.io.get_executor(), "stopper", stopper(t));
    const auto pending = co_await t.ask(t.client, "never");
    EXPECT_FALSE(pending);
    EXPECT_EQ(pending.error().code, ENOTCONN);
    const auto after = co_await t.ask(t.client, "echo");
    EXPECT_EQ(after.error().code, ENOTCONN);
    co_await t.sleep(milliseconds(30));
    EXPECT_EQ(times, 1);
    EXPECT_FALSE(t.client.connected());
  };
  run(body(*this, lost));
}

TEST_F(ControlTest, ClosingOneselfIsNotALoss) {
  ASSERT_TRUE(server.start());
  int lost = 0;
  client.on_lost([&](const std::string&) { ++lost; });
  auto body = [](auto& t, int& times) -> awaitable<void> {
    EXPECT_TRUE(co_await t.client.connect(t.path));
    EXPECT_TRUE(co_await t.client.connect(t.path));  // replaces the first
    EXPECT_TRUE(co_await t.ask(t.client, "echo"));
    t.client.close();
    co_await t.sleep(milliseconds(30));
    EXPECT_EQ(times, 0);
  };
  run(body(*this, lost));
}

TEST_F(ControlTest, NobodyListeningIsAnErrorWithThePath) {
  auto body = [](auto& t) -> awaitable<void> {
    const auto failed = co_await t.client.connect(t.path);
    EXPECT_FALSE(failed);
    EXPECT_THAT(failed.error().message, HasSubstr(t.path));
    EXPECT_EQ(failed.error().code, ENOENT);
  };
  run(body(*this));
}

TEST_F(ControlTest, EveryBadLineIsAnswered) {
  ASSERT_TRUE(server.start());
  auto body = [](auto& t) -> awaitable<void> {
    boost::asio::local::stream_protocol::socket raw(t.io);
    boost::asio::local::stream_protocol::endpoint where(t.path);
    co_await raw.async_connect(where, use_awaitable);
    std::string input;
    const std::vector<std::pair<std::string, std::string>> cases{
        {"nonsense", "not one JSON object"},
        {"[1]", "not one JSON object"},
        {"", "not one JSON object"},
        {R"({"id":1})", "'cmd'"},
        {R"({"id":"x","cmd":"echo"})", "'id'"},
        {R"({"id":1,"cmd":7})", "'cmd'"}};
    for (const auto& [line, complaint] : cases) {
      const std::string text = line + "\n";
      co_await boost::asio::async_write(raw, boost::asio::buffer(text), use_awaitable);
      const std::size_t n = co_await boost::asio::async_read_until(
          raw, boost::asio::dynamic_buffer(input), '\n', use_awaitable);
      const Json reply = Json::parse(input.substr(0, n));
      input.erase(0, n);
      EXPECT_EQ(reply["ok"], false) << line;
      EXPECT_THAT(reply["error"].get<std::string>(), HasSubstr(complaint)) << line;
    }
    EXPECT_TRUE(t.executed.empty());
  };
  run(body(*this));
}

TEST_F(ControlTest, ALineWithoutEndIsRefusedAtItsLimit) {
  ASSERT_TRUE(server.start());
  auto body = [](auto& t) -> awaitable<void> {
    boost::asio::local::stream_protocol::socket raw(t.io);
    boost::asio::local::stream_protocol::endpoint where(t.path);
    co_await raw.async_connect(where, use_awaitable);
    const std::string flood(ControlServer::line_bytes_max + 10, 'x');
    co_await boost::asio::async_write(raw, boost::asio::buffer(flood), use_awaitable);
    std::string input;
    const std::size_t n = co_await boost::asio::async_read_until(
        raw, boost::asio::dynamic_buffer(input), '\n', use_awaitable);
    EXPECT_THAT(input.substr(0, n), HasSubstr("longer than 1 MiB"));
  };
  run(body(*this));
}

}  // namespace
}  // namespace havm
