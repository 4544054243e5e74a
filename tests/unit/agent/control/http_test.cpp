// HTTP server and client against each other and, for bytes that a good client never sends, raw
// sockets.
#include "agent/control/http.hpp"

#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/control/http_wire.hpp"
#include "vmrepl/base/spawn_supervised.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using ::testing::HasSubstr;
constexpr auto generous = 30s;
using Answer = std::optional<Result<HttpResponse>>;

asio::awaitable<HttpResponse> echo(HttpRequest request) {
  if (request.path.size() == 1 && request.path[0] == "throw") throw std::runtime_error("it broke");
  if (request.path.size() == 1 && request.path[0] == "hang") {
    asio::steady_timer forever(co_await asio::this_coro::executor, std::chrono::hours(1));
    co_await forever.async_wait(asio::use_awaitable);
  }
  nlohmann::json body;
  body["method"] = request.method;
  body["path"] = request.path;
  body["query"] = request.query;
  body["body"] = request.body;
  co_return HttpResponse(200, std::move(body));
}

asio::awaitable<void> call(HttpClient& client, std::string method, std::string target,
                           nlohmann::json body, std::chrono::milliseconds deadline,
                           Answer& answer) {
  answer.emplace(
      co_await client.request(std::move(method), std::move(target), std::move(body), deadline));
}

struct Http : ::testing::Test {
  asio::io_context io;
  std::filesystem::path dir;
  std::unique_ptr<HttpServer> server;
  std::unique_ptr<HttpClient> client;

  Http() {
    std::string name = (std::filesystem::temp_directory_path() / "havm-http-XXXXXX").string();
    dir = ::mkdtemp(name.data());
  }
  ~Http() override { std::filesystem::remove_all(dir); }
  [[nodiscard]] std::string socket_path() const { return (dir / "api.sock").string(); }

  void start(const HttpEndpoint& endpoint, HttpHandler handler = echo) {
    auto listening = HttpServer::listen(io.get_executor(), endpoint, std::move(handler));
    ASSERT_TRUE(listening) << listening.error().message;
    server = std::move(listening.value());
    client = HttpClient::create(io.get_executor(), server->endpoint());
  }
  template <class Done>
  void run_until(Done done) {
    const auto until = std::chrono::steady_clock::now() + generous;
    while (!done() && std::chrono::steady_clock::now() < until) {
      io.restart();
      io.run_one_for(100ms);
    }
    ASSERT_TRUE(done()) << "not reached within the deadline";
  }
  void begin(Answer& answer, const std::string& method, const std::string& target,
             nlohmann::json body = nullptr, std::chrono::milliseconds deadline = 20s) {
    spawn_supervised(io.get_executor(), "call",
                     call(*client, method, target, std::move(body), deadline, answer));
  }
  Result<HttpResponse> ask(const std::string& method, const std::string& target,
                           nlohmann::json body = nullptr,
                           std::chrono::milliseconds deadline = 20s) {
    Answer answer;
    begin(answer, method, target, std::move(body), deadline);
    run_until([&answer] { return answer.has_value(); });
    return std::move(*answer);
  }
  // Sends raw bytes, half-closes, and returns everything the server says until it closes.
  std::string raw(const std::string& bytes) {
    const auto address = socket_address(server->endpoint());
    const UniqueFd fd(::socket(address.value().get()->sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0));
    (void)::connect(fd.get(), address.value().get(), address.value().size_bytes);
    std::string answer;
    std::size_t sent = 0;
    bool closed = false;
    run_until([&] {
      while (sent < bytes.size()) {
        const ssize_t n = ::send(fd.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += static_cast<std::size_t>(n);
        if (sent == bytes.size()) ::shutdown(fd.get(), SHUT_WR);
      }
      char chunk[4096];
      const ssize_t n = ::recv(fd.get(), chunk, sizeof chunk, 0);
      if (n > 0) answer.append(chunk, static_cast<std::size_t>(n));
      closed = n == 0 || (n < 0 && errno != EAGAIN && errno != ENOTCONN);
      return closed;
    });
    return answer;
  }
};

TEST(HttpTarget, EncodesAndDecodesAnyBytes) {
  const std::vector<std::string> segments{"v1", "a b/%", "\xc3\xa4?#", ".."};
  const auto decoded = decode_http_target(http_target(segments));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(decoded.value().path, segments);
  EXPECT_EQ(http_target({}), "/");
  EXPECT_TRUE(decode_http_target("/").value().path.empty());
  EXPECT_EQ(decode_http_target("/a?x=%zz//").value().query, "x=%zz//");
}

TEST(HttpTarget, RefusesWhatHasNoMeaning) {
  for (const char* bad : {"", "v1", "/a/", "//", "/a//b", "/%", "/%4", "/%zz", "/%00", "/a#b", "*"})
    EXPECT_FALSE(decode_http_target(bad)) << bad;
}

TEST(HttpBody, LimitsTheDepth) {
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  ASSERT_FALSE(parse_http_body(deep));
  EXPECT_THAT(parse_http_body(deep).error().message, HasSubstr("nested deeper"));
  EXPECT_TRUE(parse_http_body(std::string(64, '[') + std::string(64, ']')));
  EXPECT_TRUE(parse_http_body("").value().is_null());
}

TEST_F(Http, AnswersOverUnixSocketWithItsMode) {
  start(HttpEndpoint::unix_socket(socket_path()));
  struct stat file {};
  ASSERT_EQ(::stat(socket_path().c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 07777U, 0600U);
  nlohmann::json body;
  body["x"] = 1;
  const auto answer = ask("POST", "/v1/vms/web%201?all=1", body);
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer.value().status, 200);
  EXPECT_EQ(answer.value().body["method"], "POST");
  EXPECT_EQ(answer.value().body["path"][2], "web 1");
  EXPECT_EQ(answer.value().body["query"], "all=1");
  EXPECT_EQ(answer.value().body["body"]["x"], 1);
  server.reset();
  EXPECT_NE(::stat(socket_path().c_str(), &file), 0) << "the socket file must go with the server";
}

TEST_F(Http, OverlappingCallsAreAllAnsweredOverTcp) {
  start(HttpEndpoint::tcp("127.0.0.1", 0));
  ASSERT_NE(server->endpoint().port, 0);
  std::vector<Answer> answers(50);
  for (std::size_t i = 0; i < answers.size(); ++i)
    begin(answers[i], "GET", "/" + std::to_string(i));
  run_until([&] { return std::ranges::all_of(answers, [](auto& a) { return a.has_value(); }); });
  for (std::size_t i = 0; i < answers.size(); ++i) {
    ASSERT_TRUE(*answers[i]) << answers[i]->error().message;
    EXPECT_EQ(answers[i]->value().body["path"][0], std::to_string(i));
  }
}

TEST_F(Http, HandlerExceptionIsA500AndTheConnectionGoesOn) {
  start(HttpEndpoint::tcp("127.0.0.1", 0));
  const auto broken = ask("GET", "/throw");
  ASSERT_TRUE(broken) << broken.error().message;
  EXPECT_EQ(broken.value().status, 500);
  EXPECT_EQ(broken.value().body["error"], "it broke");
  EXPECT_EQ(ask("GET", "/x").value().status, 200);
}

TEST_F(Http, BadInputGetsAClear400) {
  start(HttpEndpoint::tcp("127.0.0.1", 0));
  const auto post = [](const std::string& body) {
    return "POST /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " +
           std::to_string(body.size()) + "\r\n\r\n" + body;
  };
  for (const std::string& body : {std::string("{\"a\":"), std::string("\xff\xfe{"),
                                  std::string("{}x"), std::string("\"\xc3\x28\"")}) {
    const std::string answer = raw(post(body));
    ASSERT_THAT(answer, HasSubstr("HTTP/1.1 400"));
    const auto json = nlohmann::json::parse(answer.substr(answer.find("\r\n\r\n") + 4));
    EXPECT_THAT(json["error"].get<std::string>(), HasSubstr("not valid JSON"));
  }
  EXPECT_THAT(raw("GET /a%00b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), HasSubstr("NUL"));
  EXPECT_THAT(raw("GET /a//b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
              HasSubstr("empty segment"));
  EXPECT_THAT(raw("nonsense\r\n\r\n"), HasSubstr("HTTP/1.1 400"));
  EXPECT_THAT(raw("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"),
              HasSubstr("413"));
  EXPECT_THAT(raw(post("{\"fine\":1}")), HasSubstr("HTTP/1.1 200"));
}

TEST_F(Http, DeadlineEndsOneCallAndTheNextOneWorks) {
  start(HttpEndpoint::tcp("127.0.0.1", 0));
  Answer slow;
  Answer queued;
  begin(slow, "GET", "/hang", nullptr, 200ms);
  begin(queued, "GET", "/next");
  run_until([&] { return slow && queued; });
  ASSERT_FALSE(*slow);
  EXPECT_EQ(slow->error().code, ETIMEDOUT);
  ASSERT_TRUE(*queued) << queued->error().message;
  EXPECT_EQ(queued->value().body["path"][0], "next");
}

TEST_F(Http, ADeadlineAlsoCountsTheTimeInTheQueue) {
  start(HttpEndpoint::tcp("127.0.0.1", 0));
  Answer slow;
  Answer queued;
  begin(slow, "GET", "/hang");
  begin(queued, "GET", "/next", nullptr, 100ms);
  run_until([&] { return queued.has_value(); });
  ASSERT_FALSE(*queued);
  EXPECT_EQ(queued->error().code, ETIMEDOUT);
  EXPECT_FALSE(slow.has_value());
  client.reset();
  run_until([&] { return slow.has_value(); });
  EXPECT_EQ(slow->error().code, ECANCELED);
}

TEST_F(Http, DestroyingServerOrClientEndsRunningCalls) {
  start(HttpEndpoint::tcp("127.0.0.1", 0));
  std::vector<Answer> answers(3);
  for (Answer& answer : answers)
    begin(answer, "GET", "/hang");
  io.run_for(50ms);
  server.reset();
  run_until([&] { return answers[0].has_value(); });
  ASSERT_FALSE(*answers[0]);
  EXPECT_THAT(answers[0]->error().message, HasSubstr("without an answer"));
  run_until([&] { return answers[2].has_value(); });
  EXPECT_EQ(answers[2]->error().code, ECONNREFUSED);
  Answer last;
  start(HttpEndpoint::tcp("127.0.0.1", 0));
  begin(last, "GET", "/hang");
  io.run_for(50ms);
  client.reset();
  run_until([&] { return last.has_value(); });
  EXPECT_EQ(last->error().code, ECANCELED);
}

TEST_F(Http, TheExecutorMayEndWithCallsInFlight) {
  // Coroutine frames are destroyed with the io_context; the sanitizers judge this test.
  auto own = std::make_unique<asio::io_context>();
  auto listening = HttpServer::listen(own->get_executor(), HttpEndpoint::tcp("127.0.0.1", 0), echo);
  ASSERT_TRUE(listening);
  auto caller = HttpClient::create(own->get_executor(), listening.value()->endpoint());
  std::vector<Answer> answers(3);
  for (Answer& answer : answers)
    spawn_supervised(own->get_executor(), "call",
                     call(*caller, "GET", "/hang", nullptr, 20s, answer));
  own->run_for(100ms);
  listening.value().reset();
  caller.reset();
  own.reset();
  EXPECT_FALSE(answers[0].has_value());
}

asio::awaitable<void> call_or_timer(HttpClient& client, bool& done) {
  using namespace asio::experimental::awaitable_operators;
  Answer answer;
  asio::steady_timer timer(co_await asio::this_coro::executor, 50ms);
  const auto first = co_await (call(client, "GET", "/hang", nullptr, 20s, answer) ||
                               timer.async_wait(asio::use_awaitable));
  done = first.index() == 1 && !(answer && *answer);
}

TEST_F(Http, ACancelledCallFreesTheConnection) {
  start(HttpEndpoint::tcp("127.0.0.1", 0));
  bool done = false;
  spawn_supervised(io.get_executor(), "cancelled", call_or_timer(*client, done));
  run_until([&done] { return done; });
  EXPECT_EQ(ask("GET", "/after").value().body["path"][0], "after");
}

TEST_F(Http, AKeptConnectionThatTheServerClosedIsReopened) {
  start(HttpEndpoint::unix_socket(socket_path()));
  ASSERT_TRUE(ask("GET", "/one"));
  server.reset();
  io.run_for(20ms);
  auto again = HttpServer::listen(
      io.get_executor(), client ? HttpEndpoint::unix_socket(socket_path()) : HttpEndpoint(), echo);
  ASSERT_TRUE(again) << again.error().message;
  const auto answer = ask("GET", "/two");
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer.value().body["path"][0], "two");
}

TEST_F(Http, AStaleSocketIsReplacedALiveOneIsNot) {
  {
    const UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM, 0));
    const auto address = socket_address(HttpEndpoint::unix_socket(socket_path()));
    ASSERT_EQ(::bind(dead.get(), address.value().get(), address.value().size_bytes), 0);
    ASSERT_EQ(::listen(dead.get(), 1), 0);
  }
  ASSERT_TRUE(std::filesystem::exists(socket_path()));
  start(HttpEndpoint::unix_socket(socket_path()));
  const auto second =
      HttpServer::listen(io.get_executor(), HttpEndpoint::unix_socket(socket_path()), echo);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, EADDRINUSE);
  EXPECT_THAT(second.error().message, HasSubstr("in use"));
  EXPECT_EQ(ask("GET", "/x").value().status, 200);
}

TEST_F(Http, ListenErrorsAreClear) {
  start(HttpEndpoint::tcp("127.0.0.1", 0));
  const auto busy = HttpServer::listen(io.get_executor(), server->endpoint(), echo);
  ASSERT_FALSE(busy);
  EXPECT_EQ(busy.error().code, EADDRINUSE);
  EXPECT_THAT(busy.error().message, HasSubstr(server->endpoint().text()));
  const std::string file = (dir / "file").string();
  std::ofstream(file) << "precious";
  const auto not_socket =
      HttpServer::listen(io.get_executor(), HttpEndpoint::unix_socket(file), echo);
  ASSERT_FALSE(not_socket);
  EXPECT_TRUE(std::filesystem::exists(file));
  EXPECT_FALSE(HttpServer::listen(io.get_executor(), HttpEndpoint::tcp("localhost", 0), echo));
  EXPECT_FALSE(HttpServer::listen(io.get_executor(),
                                  HttpEndpoint::unix_socket("/" + std::string(200, 'x')), echo));
}

TEST_F(Http, TooManyConnectionsAreToldSo) {
  start(HttpEndpoint::unix_socket(socket_path()));
  const auto address = socket_address(server->endpoint());
  std::vector<UniqueFd> many;
  for (int i = 0; i < 256; ++i) {
    many.emplace_back(::socket(AF_UNIX, SOCK_STREAM, 0));
    ASSERT_EQ(::connect(many.back().get(), address.value().get(), address.value().size_bytes), 0);
    io.restart();
    io.run_one_for(50ms);
  }
  io.run_for(100ms);
  EXPECT_THAT(raw("GET /x HTTP/1.1\r\nHost: x\r\n\r\n"), HasSubstr("too many connections"));
  many.clear();
  io.run_for(100ms);
  EXPECT_EQ(ask("GET", "/x").value().status, 200);
}

}  // namespace
}  // namespace havm
