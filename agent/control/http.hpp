// The job of these types: HTTP/1.1 with JSON bodies, over a unix socket (the local API) or TCP
// (witness, peers), on one Asio executor. Beast is only seen by the implementation.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <nlohmann/json.hpp>

#include "vmrepl/base/result.hpp"

namespace havm {

struct HttpRequest {
  std::string method;             // "GET", "POST", …
  std::vector<std::string> path;  // decoded segments: /v1/vms/web1 → {"v1","vms","web1"}
  std::string query;              // raw text after '?', empty when absent
  nlohmann::json body;            // null when the request had none

  HttpRequest() = default;
};

struct HttpResponse {
  int status = 200;
  nlohmann::json body;

  HttpResponse() = default;
  HttpResponse(int status_, nlohmann::json body_) : status(status_), body(std::move(body_)) {}
  // {"error": sentence}
  static HttpResponse error(int status, const std::string& sentence);
};

using HttpHandler = std::function<boost::asio::awaitable<HttpResponse>(HttpRequest)>;

// Where a server listens or a client connects.
struct HttpEndpoint {
  std::string unix_path;  // non-empty: unix socket
  std::string address;    // else TCP
  std::uint16_t port = 0;

  static HttpEndpoint unix_socket(std::string path);
  static HttpEndpoint tcp(std::string address, std::uint16_t port);
  [[nodiscard]] std::string text() const;  // for messages
};

// "/v1/vms/web%201" from {"v1","vms","web 1"}: the target of a request, each segment
// percent-encoded.
std::string http_target(const std::vector<std::string>& segments);

// Serves until destroyed. Keep-alive; bodies ≤ 4 MiB; at most 256 connections; malformed JSON gets
// 400 without calling the handler; an exception of the handler is a 500 with its text. Destroying
// it closes every connection at once; a handler that is still running goes on to its end and its
// answer is dropped, so what a handler uses must live as long as the executor runs. All of it on
// the executor's one thread (or strand).
class HttpServer {
 public:
  // Listens at once; a unix socket gets `unix_mode` and replaces a stale file (not a live server).
  static Result<std::unique_ptr<HttpServer>> listen(boost::asio::any_io_executor executor,
                                                    const HttpEndpoint& endpoint,
                                                    HttpHandler handler, unsigned unix_mode = 0600);
  virtual ~HttpServer() = default;
  // Where it listens; for TCP port 0 the port that the kernel chose.
  [[nodiscard]] virtual HttpEndpoint endpoint() const = 0;
};

// One peer; keeps its connection and reopens it when needed. A request whose connection fails after
// it was sent is NOT retried (the outcome is unknown to the caller). Calls may overlap; they are
// queued, in order, at most 1024. Destroying it ends every call with an Error (ECANCELED). A TCP
// address must be numeric: a slow name server must not delay a failover. All of it on the
// executor's one thread (or strand).
class HttpClient {
 public:
  static std::unique_ptr<HttpClient> create(boost::asio::any_io_executor executor,
                                            HttpEndpoint endpoint);
  virtual ~HttpClient() = default;
  // `target` like "/v1/vms/web1". An HTTP status ≥ 400 is a response, not an Error; Error means no
  // answer (refused, reset, deadline). Error.code is ETIMEDOUT for the deadline.
  virtual boost::asio::awaitable<Result<HttpResponse>> request(
      std::string method, std::string target, nlohmann::json body,
      std::chrono::milliseconds deadline) = 0;
};

}  // namespace havm
