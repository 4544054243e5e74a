// The job of FakeHavmd: a havmd that answers what a test tells it to, on a unix socket in a folder
// of its own, and remembers what it was asked. Served by a thread of its own.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <nlohmann/json.hpp>

#include "agent/control/http.hpp"

namespace havm {

class FakeHavmd {
 public:
  FakeHavmd();
  FakeHavmd(const FakeHavmd&) = delete;
  FakeHavmd& operator=(const FakeHavmd&) = delete;
  ~FakeHavmd();

  // The answers to "GET /v1/vms", one after the other; the last is repeated.
  void answer(const std::string& request, int status, nlohmann::json body);
  // "POST /v1/vms/web1/start {}" in order; a GET without its (absent) body.
  [[nodiscard]] std::vector<std::string> requests() const;
  void stop();  // from now on nobody listens

  [[nodiscard]] const std::string& folder() const { return folder_; }
  [[nodiscard]] std::string socket() const { return folder_ + "/havmd.sock"; }
  // Writes a file into the folder; its path.
  [[nodiscard]] std::string write_file(const std::string& name, const std::string& text) const;

 private:
  boost::asio::awaitable<HttpResponse> serve(HttpRequest request);
  HttpResponse respond(const HttpRequest& request);

  std::string folder_;
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::unique_ptr<HttpServer> server_;
  mutable std::mutex mutex_;  // of answers_ and requests_
  std::map<std::string, std::deque<HttpResponse>> answers_;
  std::vector<std::string> requests_;
  std::thread thread_;
};

// The vm object of docs/protocol/api.md for a VM that is in sync, owned by node a, seen from a.
nlohmann::json example_vm(const std::string& name);

}  // namespace havm
