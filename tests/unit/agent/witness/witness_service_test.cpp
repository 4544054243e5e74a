// The requests of docs/protocol/witness.md, without a network and with a clock of the test's own.
#include "agent/witness/witness_service.hpp"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

namespace havm {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using ::testing::HasSubstr;

struct WitnessFile : ::testing::Test {
  std::filesystem::path dir;
  WitnessFile() {
    std::string name = (std::filesystem::temp_directory_path() / "havm-witness-XXXXXX").string();
    dir = ::mkdtemp(name.data());
  }
  ~WitnessFile() override { std::filesystem::remove_all(dir); }
  [[nodiscard]] std::string db() const { return dir / "witness.db"; }
};

struct Witness : WitnessFile {
  TimePoint now = from_ns(77'000'000'000);
  std::unique_ptr<WitnessStore> store;
  std::unique_ptr<WitnessService> service;

  Witness() { restart(); }
  void restart() {
    service.reset();
    store.reset();
    auto opened = WitnessStore::open(db());
    if (!opened) throw std::runtime_error(opened.error().message);
    store = std::move(opened.value());
    service = std::make_unique<WitnessService>(*store, now);
  }
  HttpResponse ask(const std::string& method, std::vector<std::string> path, json body = nullptr) {
    HttpRequest request;
    request.method = method;
    request.path = std::move(path);
    request.path.insert(request.path.begin(), "v1");
    request.body = json::parse(body.dump());  // as it comes from the network
    return service->handle(request, now);
  }
  HttpResponse on(const std::string& method, json body = nullptr, const std::string& vm = "v") {
    return ask(method, {"clusters", "c", "registers", vm}, std::move(body));
  }
  HttpResponse cas(const json& expect, const json& to) {
    return ask("POST", {"clusters", "c", "registers", "v", "cas"},
               {{"expect", expect}, {"to", to}});
  }
  HttpResponse lease(const std::string& node, const json& vms) {
    return ask("POST", {"clusters", "c", "leases"}, {{"node", node}, {"vms", vms}});
  }
};

json reg(int epoch, const std::string& owner, const std::vector<std::string>& in_sync) {
  return {{"epoch", epoch}, {"owner", owner}, {"in_sync", in_sync}};
}
const json one = reg(1, "a", {"a"});
const json two = reg(2, "a", {"a", "b"});

TEST_F(Witness, CreateReadListRemove) {
  EXPECT_EQ(on("GET").status, 404);
  EXPECT_EQ(on("PUT", one).body["register"], one);
  EXPECT_EQ(on("PUT", one).status, 200);
  const auto conflict = on("PUT", two);
  EXPECT_EQ(conflict.status, 409);
  EXPECT_EQ(conflict.body["register"], one);
  EXPECT_TRUE(conflict.body.contains("error"));
  EXPECT_EQ(on("PUT", two, "w").status, 200);
  const auto list = ask("GET", {"clusters", "c", "registers"}).body["registers"];
  EXPECT_EQ(list.size(), 2U);
  EXPECT_EQ(list["w"]["register"], two);
  EXPECT_TRUE(ask("GET", {"clusters", "other", "registers"}).body["registers"].empty());
  EXPECT_EQ(ask("GET", {"info"}).body["registers"], 2);
  EXPECT_EQ(on("DELETE", {{"expect", two}}).status, 409);
  const auto removed = on("DELETE", {{"expect", one}});
  EXPECT_EQ(removed.status, 200);
  EXPECT_EQ(removed.body, json::object());
  EXPECT_EQ(on("DELETE", {{"expect", one}}).status, 404);
  EXPECT_EQ(on("GET").status, 404);
}

TEST_F(Witness, CompareAndSwap) {
  EXPECT_EQ(cas(one, two).status, 404);
  on("PUT", one);
  const auto applied = cas(one, two);
  EXPECT_EQ(applied.status, 200);
  EXPECT_EQ(applied.body["applied"], true);
  EXPECT_EQ(applied.body["register"], two);
  const auto again = cas(one, two);
  EXPECT_EQ(again.status, 200);
  EXPECT_EQ(again.body["applied"], false);
  EXPECT_EQ(again.body["register"], two);
  EXPECT_EQ(cas(two, reg(2, "b", {"b"})).body["applied"], false);
  EXPECT_EQ(on("GET").body["register"], two);
}

TEST_F(Witness, LeasesAndTheirAges) {
  on("PUT", one);
  now += 500ms;
  auto view = on("GET").body;
  EXPECT_TRUE(view["grant_ages_ms"]["a"].is_null());
  EXPECT_EQ(view["uptime_ms"], 500);
  const auto answer = lease("a", {{{"vm", "v"}, {"epoch", 1}}, {{"vm", "w"}, {"epoch", 1}}});
  EXPECT_EQ(answer.body["granted"], json::array({"v"}));
  EXPECT_TRUE(answer.body["refused"].contains("w"));
  EXPECT_TRUE(lease("b", {{{"vm", "v"}, {"epoch", 1}}}).body["granted"].empty());
  EXPECT_TRUE(lease("a", {{{"vm", "v"}, {"epoch", 2}}}).body["granted"].empty());
  now += 120ms;
  view = cas(one, two).body;
  EXPECT_EQ(view["grant_ages_ms"]["a"], 120);
  EXPECT_TRUE(view["grant_ages_ms"]["b"].is_null());
  EXPECT_TRUE(lease("a", {{{"vm", "v"}, {"epoch", 1}}}).body["granted"].empty());
  // A deposed node is still told with its last grant, although it is not in the register any more.
  view = cas(two, reg(3, "b", {"b"})).body;
  EXPECT_EQ(view["grant_ages_ms"]["a"], 120);
  EXPECT_TRUE(lease("a", {{{"vm", "v"}, {"epoch", 3}}}).body["granted"].empty());
}

TEST_F(Witness, GrantsAreForgottenAndRegistersKeptOverARestart) {
  on("PUT", one);
  lease("a", {{{"vm", "v"}, {"epoch", 1}}});
  const std::string id = ask("GET", {"info"}).body["store_id"];
  now += 90ms;
  restart();
  now += 10ms;
  const auto view = on("GET").body;
  EXPECT_EQ(view["register"], one);
  EXPECT_TRUE(view["grant_ages_ms"]["a"].is_null());
  EXPECT_EQ(view["uptime_ms"], 10);
  EXPECT_EQ(ask("GET", {"info"}).body["store_id"], id);
  EXPECT_EQ(id.size(), 32U);
}

TEST_F(Witness, BadRequestsChangeNothing) {
  on("PUT", one);
  const json bad_registers[] = {
      nullptr,
      json::array(),
      json::object(),
      reg(0, "a", {"a"}),
      reg(-1, "a", {"a"}),
      reg(1, "b", {"a"}),
      reg(1, "a", {"b", "a"}),
      {{"epoch", 1.5}, {"owner", "a"}, {"in_sync", {"a"}}},
      {{"epoch", "1"}, {"owner", "a"}, {"in_sync", {"a"}}},
      {{"epoch", 1}, {"owner", 7}, {"in_sync", {"a"}}},
      {{"epoch", 1}, {"owner", "a"}, {"in_sync", "a"}},
      {{"epoch", 1}, {"owner", "a"}, {"in_sync", {1}}},
      {{"epoch", 1}, {"owner", "a"}, {"in_sync", {"a"}}, {"extra", 1}},
      {{"epoch", 18446744073709551615ULL}, {"owner", "a"}, {"in_sync", {"a"}}}};
  for (const json& bad : bad_registers) {
    const auto answer = on("PUT", bad, "w");
    EXPECT_EQ(answer.status, 400) << bad;
    EXPECT_TRUE(answer.body["error"].is_string());
    EXPECT_EQ(cas(one, bad).status, 400) << bad;
    EXPECT_EQ(cas(bad, two).status, 400) << bad;
    EXPECT_EQ(on("DELETE", {{"expect", bad}}).status, 400) << bad;
  }
  EXPECT_EQ(ask("POST", {"clusters", "c", "registers", "v", "cas"}, {{"expect", one}}).status, 400);
  EXPECT_EQ(lease("a", "v").status, 400);
  EXPECT_EQ(lease("a", {{{"vm", "v"}}}).status, 400);
  EXPECT_EQ(lease("a", {{{"vm", "v"}, {"epoch", -1}}}).status, 400);
  EXPECT_EQ(lease("a", {{{"vm", 1}, {"epoch", 1}}}).status, 400);
  EXPECT_EQ(on("PUT", one, "w\n").status, 400);
  EXPECT_EQ(on("PATCH", one).status, 400);
  EXPECT_EQ(ask("GET", {"nothing"}).status, 404);
  EXPECT_EQ(ask("GET", {"clusters", "c", "registers", "v", "x", "y"}).status, 404);
  EXPECT_EQ(ask("GET", {"info"}).body["registers"], 1);
  EXPECT_EQ(on("GET").body["register"], one);
}

TEST_F(WitnessFile, ADamagedOrForeignOrUsedFileIsRefused) {
  {
    auto store = WitnessStore::open(db());
    ASSERT_TRUE(store) << store.error().message;
    for (int i = 0; i < 500; ++i) {
      const Register value(Epoch(1), "a", {"a"});
      ASSERT_TRUE(store.value()->write(RegisterKey("c", "vm" + std::to_string(i)), value));
    }
    const auto second = WitnessStore::open(db());
    ASSERT_FALSE(second);
    EXPECT_THAT(second.error().message, HasSubstr("in use"));
  }
  {
    std::fstream file(db(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4096);
    file << std::string(3 * 4096, 'x');
  }
  const auto damaged = WitnessStore::open(db());
  ASSERT_FALSE(damaged);
  EXPECT_THAT(damaged.error().message, HasSubstr(db()));
  const std::string foreign = dir / "foreign.db";
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(foreign.c_str(), &other), SQLITE_OK);
  sqlite3_exec(other, "CREATE TABLE precious (x)", nullptr, nullptr, nullptr);
  sqlite3_close(other);
  EXPECT_THAT(WitnessStore::open(foreign).error().message,
              HasSubstr("not a database of havm-witness"));
  std::ofstream(dir / "text")
      << "some text that is long enough to be no database header at all, really";
  EXPECT_THAT(WitnessStore::open(dir / "text").error().message,
              HasSubstr("not a database of havm-witness"));
  EXPECT_FALSE(WitnessStore::open(dir / "no" / "such" / "dir.db"));
}

TEST_F(WitnessFile, WritesOnlyWhatWasAsked) {
  auto opened = WitnessStore::open(db());
  ASSERT_TRUE(opened);
  WitnessStore& store = *opened.value();
  const RegisterKey odd("c'; DROP TABLE registers; --", "v\"'%");
  const Register value(Epoch(9), "n'1", {"n\"2", "n'1"});
  ASSERT_FALSE(register_problem(value)) << *register_problem(value);
  ASSERT_TRUE(store.write(odd, value));
  EXPECT_EQ(store.read(odd).value(), value);
  EXPECT_EQ(store.read(RegisterKey("c", "v")).value(), std::nullopt);
  ASSERT_TRUE(store.write(odd, std::nullopt));
  EXPECT_EQ(store.count().value(), 0U);
}

}  // namespace
}  // namespace havm
