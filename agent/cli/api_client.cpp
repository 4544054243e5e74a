#include "agent/cli/api_client.hpp"

#include <cerrno>
#include <optional>

#include "vmrepl/base/spawn_supervised.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using nlohmann::json;

asio::awaitable<void> ask(HttpClient& http, std::string method, std::string target, json body,
                          std::chrono::milliseconds deadline,
                          std::optional<Result<HttpResponse>>& answer) {
  answer = co_await http.request(std::move(method), std::move(target), std::move(body), deadline);
}

std::string refusal_of(const HttpResponse& response) {
  if (response.body.is_object() && response.body.contains("error") &&
      response.body.at("error").is_string())
    return response.body.at("error").get<std::string>();
  return "havmd answered with status " + std::to_string(response.status) + " and no explanation";
}

}  // namespace

ApiClient::ApiClient(std::string socket_path)
    : socket_path_(std::move(socket_path)),
      http_(HttpClient::create(context_.get_executor(), HttpEndpoint::unix_socket(socket_path_))) {}

Result<ApiAnswer> ApiClient::get(const std::vector<std::string>& path) {
  return call("GET", path, nullptr, read_deadline);
}

Result<ApiAnswer> ApiClient::post(const std::vector<std::string>& path, json body) {
  return call("POST", path, std::move(body), change_deadline);
}

Error ApiClient::no_answer(const Error& cause, bool changing) const {
  const std::string at = "havmd at " + socket_path_;
  switch (cause.code) {
    case ENOENT:
    case ECONNREFUSED:
      return Error("cannot reach " + at + ": is it running? (systemctl start havmd)", cause.code);
    case EACCES:
    case EPERM:
      return Error("cannot reach " + at + ": permission denied (run havm as root)", cause.code);
    default:
      break;
  }
  std::string text = "no answer from " + at + ": " + cause.message;
  if (changing) text += "; the request may or may not have been carried out (see 'havm dominfo')";
  return Error(text, cause.code > 0 && cause.code < 400 ? cause.code : EIO);
}

Result<ApiAnswer> ApiClient::call(const std::string& method, const std::vector<std::string>& path,
                                  json body, std::chrono::milliseconds deadline) {
  std::vector<std::string> segments{"v1"};
  segments.insert(segments.end(), path.begin(), path.end());
  std::optional<Result<HttpResponse>> answer;
  spawn_supervised(context_.get_executor(), "havmd request",
                   ask(*http_, method, http_target(segments), std::move(body), deadline, answer));
  context_.restart();
  while (!answer && context_.run_one() > 0) {
  }
  if (!answer) return no_answer(Error("the request was given up", EIO), method != "GET");
  if (!answer->has_value()) return no_answer(answer->error(), method != "GET");
  HttpResponse& response = answer->value();
  if (response.status >= 400) return Error(refusal_of(response), response.status);
  return ApiAnswer{response.status, std::move(response.body)};
}

}  // namespace havm
