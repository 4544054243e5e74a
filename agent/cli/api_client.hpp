// The job of ApiClient: havmd's local API (docs/protocol/api.md) as plain blocking calls, with
// failures that tell a person what to do. One thread; nothing happens between calls.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <nlohmann/json.hpp>

#include "agent/control/http.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

struct ApiAnswer {
  int status = 200;  // 200 or 202
  nlohmann::json body;
};

class ApiClient {
 public:
  // Reading takes havmd no time; a request that changes something may wait for libvirt and the
  // guard.
  static constexpr std::chrono::seconds read_deadline{15};
  static constexpr std::chrono::seconds change_deadline{120};

  explicit ApiClient(std::string socket_path);

  // An HTTP status ≥ 400 is an Error with the sentence of havmd and the status as code (≥ 400); no
  // answer is an Error with an errno value (below 400).
  Result<ApiAnswer> get(const std::vector<std::string>& path);
  Result<ApiAnswer> post(const std::vector<std::string>& path, nlohmann::json body);

 private:
  Result<ApiAnswer> call(const std::string& method, const std::vector<std::string>& path,
                         nlohmann::json body, std::chrono::milliseconds deadline);
  [[nodiscard]] Error no_answer(const Error& cause, bool changing) const;

  std::string socket_path_;
  boost::asio::io_context context_;
  std::unique_ptr<HttpClient> http_;
};

// No answer came, as opposed to an answer that says no.
inline bool is_unreachable(const Error& error) {
  return error.code < 400;
}

}  // namespace havm
