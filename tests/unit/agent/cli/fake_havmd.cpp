#include "tests/unit/agent/cli/fake_havmd.hpp"

#include <filesystem>
#include <fstream>
#include <future>

#include <boost/asio/post.hpp>
#include <stdlib.h>

#include "vmrepl/base/assert.hpp"

namespace havm {

using nlohmann::json;

FakeHavmd::FakeHavmd() : folder_("/tmp/havm-test-cli-XXXXXX"), work_(context_.get_executor()) {
  HAVM_ASSERT(mkdtemp(folder_.data()) != nullptr, "the tests need a folder in /tmp");
  const HttpHandler handler = [this](const HttpRequest& request) { return serve(request); };
  auto server =
      HttpServer::listen(context_.get_executor(), HttpEndpoint::unix_socket(socket()), handler);
  HAVM_ASSERT(server.has_value(), "the tests need a unix socket");
  server_ = std::move(server.value());
  thread_ = std::thread([this] { context_.run(); });
}

FakeHavmd::~FakeHavmd() {
  stop();
  work_.reset();
  context_.stop();
  thread_.join();
  std::filesystem::remove_all(folder_);
}

void FakeHavmd::stop() {
  std::promise<void> stopped;
  boost::asio::post(context_, [this, &stopped] {
    server_.reset();
    stopped.set_value();
  });
  stopped.get_future().wait();
}

void FakeHavmd::answer(const std::string& request, int status, json body) {
  const std::lock_guard lock(mutex_);
  answers_[request].emplace_back(status, std::move(body));
}

std::vector<std::string> FakeHavmd::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

std::string FakeHavmd::write_file(const std::string& name, const std::string& text) const {
  std::ofstream(folder_ + "/" + name) << text;
  return folder_ + "/" + name;
}

boost::asio::awaitable<HttpResponse> FakeHavmd::serve(HttpRequest request) {
  co_return respond(request);
}

HttpResponse FakeHavmd::respond(const HttpRequest& request) {
  std::string line = request.method + " ";
  for (const std::string& segment : request.path)
    line += "/" + segment;
  const std::lock_guard lock(mutex_);
  requests_.push_back(request.body.is_null() ? line : line + " " + request.body.dump());
  const auto found = answers_.find(line);
  if (found == answers_.end()) return HttpResponse::error(404, "no answer to " + line);
  HttpResponse response = found->second.front();
  if (found->second.size() > 1) found->second.pop_front();
  return response;
}

json example_vm(const std::string& name) {
  json vm = json::parse(R"({
    "uuid": "6695eb01-f6a4-8304-79aa-97f2502e193f", "title": "", "protected": true,
    "state": "running", "owner": "a", "role": "owner", "partner": "b", "epoch": 4,
    "in_sync": ["a", "b"],
    "sync": {"state": "in-sync", "done_bytes": 1073741824, "total_bytes": 1073741824,
             "rate_bytes_per_s": 0, "slow_partner": null},
    "ready": true, "ready_reason": "both replicas are in sync and node b is alive",
    "protection": {"protected": true, "reason": "every completed write is on both nodes",
                   "bytes_at_risk": 0},
    "desired": "running",
    "disks": [{"target": "vda", "path": "/images/web1.qcow2", "format": "qcow2",
               "size_bytes": 1073741824, "error": null}],
    "policy": {"version": 1, "failover": {"mode": "auto"},
               "replication": {"on_peer_loss": "continue", "slow_partner": "2s"},
               "guest": {"on_guest_shutdown": "stay-off"}, "preferred_node": null},
    "phase": "serving", "reason": "both nodes are in sync at epoch 4"})");
  vm["vm"] = name;
  return vm;
}

}  // namespace havm
