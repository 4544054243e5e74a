#include "agent/daemon/peer_client.hpp"

#include <cerrno>

#include <spdlog/spdlog.h>

#include "vmrepl/base/spawn_supervised.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

constexpr milliseconds push_deadline{2000};

}  // namespace

struct PeerClient::Shared {
  asio::any_io_executor executor;
  std::string partner;
  std::vector<std::unique_ptr<HttpClient>> links;
  std::size_t preferred = 0;  // the link that answered last
};

PeerClient::PeerClient(asio::any_io_executor executor, std::string partner,
                       const std::vector<std::string>& links, std::uint16_t port)
    : shared_(std::make_shared<Shared>()) {
  shared_->executor = executor;
  shared_->partner = std::move(partner);
  for (const std::string& address : links)
    shared_->links.push_back(HttpClient::create(executor, HttpEndpoint::tcp(address, port)));
}

PeerClient::~PeerClient() = default;

asio::awaitable<Result<nlohmann::json>> PeerClient::request_on(std::shared_ptr<Shared> shared,
                                                               std::string method,
                                                               std::string target,
                                                               nlohmann::json body,
                                                               milliseconds deadline) {
  const std::size_t count = shared->links.size();
  const milliseconds each = deadline / static_cast<long>(count);
  std::string why;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t link = (shared->preferred + i) % count;
    auto response = co_await shared->links[link]->request(method, target, body, each);
    if (!response) {
      why = response.error().message;
      continue;
    }
    shared->preferred = link;
    HttpResponse& r = response.value();
    if (r.status < 400) co_return std::move(r.body);
    co_return Error(r.body.is_object() ? r.body.value("error", "refused") : "refused", EPROTO);
  }
  co_return Error("node " + shared->partner + " does not answer on any link (" + why +
                      "); is havmd running there?",
                  EHOSTUNREACH);
}

asio::awaitable<Result<nlohmann::json>> PeerClient::request(std::string method, std::string target,
                                                            nlohmann::json body,
                                                            milliseconds deadline) {
  return request_on(shared_, std::move(method), std::move(target), std::move(body), deadline);
}

asio::awaitable<Result<void>> PeerClient::ask_takeover(std::string vm, Epoch epoch,
                                                       milliseconds deadline) {
  nlohmann::json body;
  body["epoch"] = epoch.value;
  auto reply =
      co_await request("POST", "/v1/peer/vms/" + vm + "/takeover", std::move(body), deadline);
  if (!reply) co_return reply.error();
  co_return success();
}

asio::awaitable<void> PeerClient::push(std::shared_ptr<Shared> shared, std::string target,
                                       nlohmann::json body) {
  auto reply =
      co_await request_on(shared, "PUT", std::move(target), std::move(body), push_deadline);
  if (!reply)
    spdlog::info("the definition has not reached node {} yet: {}", shared->partner,
                 reply.error().message);
}

void PeerClient::push_definition(const VmDefinition& definition) {
  spawn_supervised(shared_->executor, "push-definition",
                   push(shared_, "/v1/peer/vms/" + definition.vm + "/definition",
                        definition_to_json(definition)));
}

}  // namespace havm
