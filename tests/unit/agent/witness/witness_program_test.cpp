// havm-witness itself over HTTP: one winner of concurrent swaps, and nothing acknowledged is lost
// by a kill.
#include <filesystem>
#include <random>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/witness/witness_client.hpp"
#include "tests/unit/agent/guard/child_process.hpp"
#include "vmrepl/base/spawn_supervised.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using ::testing::HasSubstr;
constexpr auto deadline = 20'000ms;

// What a client knows of one register: the last value it saw acknowledged and what it tried after
// that.
struct Chain {
  std::string vm;
  Register acknowledged;
  std::optional<Register> attempted;
  std::uint64_t swaps = 0;
};

template <class T>
asio::awaitable<void> store(asio::awaitable<Result<T>> call, std::optional<Result<T>>& answer) {
  answer.emplace(co_await std::move(call));
}

struct WitnessProgram : ::testing::Test {
  asio::io_context io;
  std::filesystem::path dir;
  std::unique_ptr<ChildProcess> witness;
  std::uint16_t port = 0;

  WitnessProgram() {
    std::string name = (std::filesystem::temp_directory_path() / "havm-witness-XXXXXX").string();
    dir = ::mkdtemp(name.data());
  }
  ~WitnessProgram() override {
    witness.reset();
    std::filesystem::remove_all(dir);
  }
  std::vector<std::string> argv() const {
    return {HAVM_WITNESS, "--listen", "127.0.0.1:" + std::to_string(port), "--db", dir / "w.db"};
  }
  void start() {
    const std::string log = dir / "witness.log";
    std::filesystem::remove(log);
    witness = std::make_unique<ChildProcess>(argv(), log);
    const std::string before = "listens on 127.0.0.1:";
    ASSERT_TRUE(eventually([&] {
      const std::string text = witness->log();
      const std::size_t found = text.find(before);
      if (found == std::string::npos || text.find(',', found) == std::string::npos)
        return witness->ended();
      port = static_cast<std::uint16_t>(std::stoi(text.substr(found + before.size())));
      return true;
    }));
    ASSERT_FALSE(witness->ended()) << witness->log();
  }
  std::unique_ptr<WitnessClient> connect() {
    return std::make_unique<WitnessClient>(io.get_executor(), "c",
                                           HttpEndpoint::tcp("127.0.0.1", port));
  }
  template <class T>
  Result<T> wait(asio::awaitable<Result<T>> call) {
    std::optional<Result<T>> answer;
    spawn_supervised(io.get_executor(), "call", store(std::move(call), answer));
    const auto until = std::chrono::steady_clock::now() + 30s;
    while (!answer && std::chrono::steady_clock::now() < until) {
      io.restart();
      io.run_one_for(100ms);
    }
    if (!answer) return Error("the test waited too long");
    return std::move(*answer);
  }
};

const Register first(Epoch(1), "a", {"a"});

TEST_F(WitnessProgram, EveryCallOfTheClient) {
  start();
  const auto client = connect();
  EXPECT_EQ(wait(client->read("v", deadline)).value(), std::nullopt);
  EXPECT_TRUE(wait(client->create("v", first, deadline)).value().applied);
  EXPECT_TRUE(wait(client->create("v", first, deadline)).value().applied) << "it may be repeated";
  const Register second(Epoch(2), "a", {"a", "b"});
  const auto conflict = wait(client->create("v", second, deadline));
  EXPECT_FALSE(conflict.value().applied);
  EXPECT_EQ(conflict.value().present->value, first);
  const auto applied = wait(client->cas("v", first, second, deadline));
  ASSERT_TRUE(applied) << applied.error().message;
  EXPECT_TRUE(applied.value().applied);
  EXPECT_EQ(applied.value().present->value, second);
  EXPECT_FALSE(wait(client->cas("v", first, second, deadline)).value().applied);
  const auto absent = wait(client->cas("absent", first, second, deadline));
  EXPECT_FALSE(absent.value().applied);
  EXPECT_FALSE(absent.value().present);
  std::vector<WitnessLease> wanted{WitnessLease("v", Epoch(2)), WitnessLease("w", Epoch(1))};
  const TimePoint before = BootClock::now();
  const auto grants = wait(client->lease("a", wanted, deadline));
  ASSERT_TRUE(grants) << grants.error().message;
  EXPECT_THAT(grants.value().granted, ::testing::ElementsAre("v"));
  EXPECT_EQ(grants.value().refused.count("w"), 1U);
  EXPECT_GE(grants.value().sent, before);
  const auto view = wait(client->read("v", deadline));
  ASSERT_TRUE(view && view.value());
  EXPECT_LE(view.value()->grant_age("a"), BootClock::now() - grants.value().sent);
  EXPECT_EQ(view.value()->grant_age("b"), view.value()->uptime) << "unknown: since the start";
  EXPECT_EQ(wait(client->list(deadline)).value().at("v").value, second);
  const Register odd(Epoch(0), "a", {"a"});
  EXPECT_EQ(wait(client->create("v", odd, deadline)).error().code, EINVAL);
  EXPECT_FALSE(wait(client->remove("v", first, deadline)).value().applied);
  EXPECT_TRUE(wait(client->remove("v", second, deadline)).value().applied);
  EXPECT_FALSE(wait(client->remove("v", second, deadline)).value().present);
  const std::string name = "b\xc3\xa4r/%2F web";
  EXPECT_TRUE(wait(client->create(name, first, deadline)).value().applied);
  EXPECT_EQ(wait(client->list(deadline)).value().at(name).value, first);
}

TEST_F(WitnessProgram, NoAnswerIsAnErrorAndItRecovers) {
  start();
  const auto client = connect();
  ASSERT_TRUE(wait(client->create("v", first, deadline)).value().applied);
  witness->signal(SIGSTOP);
  const auto silent = wait(client->read("v", 200ms));
  ASSERT_FALSE(silent);
  EXPECT_EQ(silent.error().code, ETIMEDOUT);
  witness->signal(SIGCONT);
  EXPECT_EQ(wait(client->read("v", deadline)).value()->value, first);
  witness->signal(SIGTERM);
  const int status = witness->wait();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << witness->log();
  const auto refused = wait(client->cas("v", first, Register(Epoch(2), "a", {"a"}), deadline));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ECONNREFUSED);
  start();
  EXPECT_EQ(wait(client->read("v", deadline)).value()->value, first);
}

asio::awaitable<void> try_swap(WitnessClient& client, Register expect, Register to, int& winners,
                               int& done) {
  const auto answer = co_await client.cas("v", std::move(expect), std::move(to), deadline);
  EXPECT_TRUE(answer) << answer.error().message;
  if (answer && answer.value().applied) ++winners;
  ++done;
}

TEST_F(WitnessProgram, ExactlyOneConcurrentSwapWins) {
  start();
  constexpr int clients_count = 24;
  std::vector<std::unique_ptr<WitnessClient>> clients;
  for (int i = 0; i < clients_count; ++i)
    clients.push_back(connect());
  ASSERT_TRUE(wait(clients[0]->create("v", first, deadline)).value().applied);
  Register present = first;
  for (int round = 0; round < 10; ++round) {
    int winners = 0;
    int done = 0;
    for (int i = 0; i < clients_count; ++i) {
      const std::string node = "n" + std::to_string(i);
      const Register to(present.epoch.next(), node, {node});
      spawn_supervised(io.get_executor(), "swap",
                       try_swap(*clients[static_cast<std::size_t>(i)], present, to, winners, done));
    }
    const auto until = std::chrono::steady_clock::now() + 30s;
    while (done < clients_count && std::chrono::steady_clock::now() < until) {
      io.restart();
      io.run_one_for(100ms);
    }
    ASSERT_EQ(done, clients_count);
    ASSERT_EQ(winners, 1) << "round " << round;
    present = wait(clients[0]->read("v", deadline)).value()->value;
    ASSERT_EQ(present.epoch, Epoch(static_cast<std::uint64_t>(round) + 2));
  }
}

// Swaps its register onwards until the witness is gone.
asio::awaitable<void> load(WitnessClient& client, Chain& chain, int& running) {
  ++running;
  while (true) {
    const bool wide = chain.acknowledged.epoch.value % 2 == 0;
    std::vector<std::string> in_sync{"a"};
    if (wide) in_sync.emplace_back("b");
    const Register to(chain.acknowledged.epoch.next(), "a", std::move(in_sync));
    chain.attempted = to;
    const auto answer = co_await client.cas(chain.vm, chain.acknowledged, to, deadline);
    if (!answer) break;
    EXPECT_TRUE(answer.value().applied) << chain.vm << ": an expected value was not there";
    if (!answer.value().applied) break;
    chain.acknowledged = to;
    chain.attempted.reset();
    ++chain.swaps;
  }
  --running;
}

asio::awaitable<void> kill_after(ChildProcess& process, std::chrono::microseconds delay) {
  asio::steady_timer timer(co_await asio::this_coro::executor, delay);
  co_await timer.async_wait(asio::use_awaitable);
  process.signal(SIGKILL);
}

TEST_F(WitnessProgram, NothingAcknowledgedIsLostByKills) {
  constexpr int kills = 30;
  const auto end = std::chrono::steady_clock::now() + 20s;
  std::mt19937 random(std::random_device{}());
  std::vector<Chain> chains(6);
  start();
  for (std::size_t i = 0; i < chains.size(); ++i) {
    chains[i].vm = "vm" + std::to_string(i);
    chains[i].acknowledged = first;
    ASSERT_TRUE(wait(connect()->create(chains[i].vm, first, deadline)).value().applied);
  }
  int done = 0;
  for (; done < kills && std::chrono::steady_clock::now() < end; ++done) {
    std::vector<std::unique_ptr<WitnessClient>> clients;
    int running = 0;
    for (Chain& chain : chains) {
      clients.push_back(connect());
      spawn_supervised(io.get_executor(), "load", load(*clients.back(), chain, running));
    }
    const std::chrono::microseconds delay(2000 + random() % 60000);
    spawn_supervised(io.get_executor(), "kill", kill_after(*witness, delay));
    const auto until = std::chrono::steady_clock::now() + 30s;
    do {
      io.restart();
      io.run_one_for(100ms);
    } while ((running > 0 || !witness->ended()) && std::chrono::steady_clock::now() < until);
    ASSERT_EQ(running, 0);
    start();
    const auto all = wait(connect()->list(deadline));
    ASSERT_TRUE(all) << all.error().message;
    for (Chain& chain : chains) {
      const Register& found = all.value().at(chain.vm).value;
      const bool sound =
          found == chain.acknowledged || (chain.attempted && found == *chain.attempted);
      ASSERT_TRUE(sound) << chain.vm << ": epoch " << found.epoch.value << " found, "
                         << chain.acknowledged.epoch.value << " was acknowledged";
      chain.acknowledged = found;
      chain.attempted.reset();
    }
  }
  std::uint64_t swaps = 0;
  for (const Chain& chain : chains)
    swaps += chain.swaps;
  RecordProperty("kills", done);
  RecordProperty("swaps", std::to_string(swaps));
  EXPECT_GE(done, 10) << "too slow to say anything";
  EXPECT_GT(swaps, static_cast<std::uint64_t>(done)) << "hardly any load was under way";
}

TEST_F(WitnessProgram, StartErrorsAreClear) {
  start();
  ChildProcess same_port(
      {HAVM_WITNESS, "--listen", "127.0.0.1:" + std::to_string(port), "--db", dir / "other.db"},
      dir / "same_port.log");
  EXPECT_EQ(WEXITSTATUS(same_port.wait()), 1);
  EXPECT_THAT(same_port.log(), HasSubstr("in use"));
  ChildProcess same_db({HAVM_WITNESS, "--listen", "127.0.0.1:0", "--db", dir / "w.db"},
                       dir / "same_db.log");
  EXPECT_EQ(WEXITSTATUS(same_db.wait()), 1);
  EXPECT_THAT(same_db.log(), HasSubstr("another havm-witness"));
  ChildProcess bad({HAVM_WITNESS, "--listen", "nowhere", "--db", dir / "x.db"}, dir / "bad.log");
  EXPECT_EQ(WEXITSTATUS(bad.wait()), 1);
  EXPECT_THAT(bad.log(), HasSubstr("is not ADDR:PORT"));
}

}  // namespace
}  // namespace havm
